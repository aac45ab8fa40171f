"""An engine's seat: one thread for the engine, whoever calls; what one task keeps, the next measures beside."""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from harvest.engine.options import EngineOptions
from harvest.engine.seat import EngineSeat, SeatedEngine
from harvest.errors import CaptureError


class Rows:
    """Something large."""


@dataclass
class Diary:
    """An engine that only remembers; and what its tasks did, in order."""

    threads: set[str] = field(default_factory=set)
    alive: weakref.WeakSet[Rows] = field(default_factory=weakref.WeakSet)
    most: int = 0
    measuring: int = 0

    def note(self) -> None:
        self.threads.add(threading.current_thread().name)

    def close(self) -> None:
        self.note()


@dataclass
class Step:
    """A task whose steps do what a test tells them to."""

    tokens: int = 1
    before_kept: threading.Event | None = None
    measured: threading.Event = field(default_factory=threading.Event)
    fails_at: str = ""
    diary: Diary = field(default_factory=Diary)
    kept_in: str = ""
    asked_in: str = ""
    asked: threading.Event = field(default_factory=threading.Event)
    wants: tuple[str, ...] = ("all",)
    while_measured: threading.Event | None = None

    def wanted(self) -> tuple[str, ...]:
        self.asked_in = threading.current_thread().name
        self.asked.set()
        if self.fails_at == "wanted":
            raise CaptureError("while asking")
        return self.wants

    def measure(self, engine: Diary, wanted: tuple[str, ...]) -> Rows:
        assert wanted == self.wants
        if self.while_measured is not None:
            assert self.while_measured.wait(20)
        engine.note()
        self.diary = engine
        engine.measuring += 1
        assert engine.measuring == 1, "two at once"
        if self.fails_at == "measure":
            engine.measuring -= 1
            raise CaptureError("while measuring")
        rows = Rows()
        engine.alive.add(rows)
        engine.most = max(engine.most, len(engine.alive))
        engine.measuring -= 1
        self.measured.set()
        return rows

    def keep(self, measured: Rows) -> int:
        assert isinstance(measured, Rows)
        self.kept_in = threading.current_thread().name
        if self.before_kept is not None:
            assert self.before_kept.wait(20)
        if self.fails_at == "keep":
            raise CaptureError("while keeping")
        return self.tokens


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> Diary:
    diary = Diary()

    def open_engine(options: Any, place: int) -> Diary:
        diary.note()
        return diary

    monkeypatch.setattr("harvest.engine.seat.open_engine", open_engine)
    return diary


@pytest.fixture
def seat(diary: Diary) -> SeatedEngine:
    return EngineSeat(EngineOptions("m"))(0)  # type: ignore[arg-type]


def test_whoever_calls_the_engine_is_built_used_and_closed_in_one_thread(seat: SeatedEngine, diary: Diary):
    tasks = [Step(tokens) for tokens in range(20)]
    with ThreadPoolExecutor(4, thread_name_prefix="caller") as callers:
        assert list(callers.map(seat, tasks)) == list(range(20))
    assert seat(Step(7)) == 7
    seat.close()
    assert len(diary.threads) == 1
    for name in ("asked_in", "kept_in"):
        assert all(getattr(task, name).startswith("caller") for task in tasks), f"{name}: not the calling thread"


def test_the_next_task_is_measured_while_one_is_kept(seat: SeatedEngine):
    second = Step(2)
    first = Step(1, before_kept=second.measured)
    with ThreadPoolExecutor(2) as callers:
        held = callers.submit(seat, first)
        assert first.measured.wait(20)
        assert callers.submit(seat, second).result(20) == 2
        assert held.result(20) == 1
    seat.close()


def test_the_store_is_asked_for_the_next_task_while_one_is_measured(seat: SeatedEngine):
    second = Step(2)
    first = Step(1, while_measured=second.asked)
    with ThreadPoolExecutor(2) as callers:
        assert [one.result(20) for one in [callers.submit(seat, first), callers.submit(seat, second)]] == [1, 2]
    seat.close()


def test_a_task_of_which_nothing_is_wanted_is_not_measured(seat: SeatedEngine):
    done = Step(3, wants=())
    assert seat(done) == 0
    assert not done.measured.is_set()
    seat.close()


def test_rows_of_at_most_two_tasks_are_held(seat: SeatedEngine, diary: Diary):
    gate = threading.Event()
    tasks = [Step(before_kept=gate) for _ in range(6)]
    with ThreadPoolExecutor(6) as callers:
        running = [callers.submit(seat, task) for task in tasks]
        while sum(task.measured.is_set() for task in tasks) < 2:
            gate.wait(0.01)
        gate.wait(0.2)
        assert sum(task.measured.is_set() for task in tasks) == 2
        gate.set()
        assert [one.result(20) for one in running] == [1] * 6
    assert diary.most == 2
    assert len(diary.alive) == 0, "nothing is held once it is kept"
    seat.close()


@pytest.mark.parametrize("step", ["wanted", "measure", "keep"])
def test_an_error_of_any_step_is_the_caller_s_and_the_seat_goes_on(seat: SeatedEngine, step: str):
    for _ in range(3):
        with pytest.raises(CaptureError, match=r"^while "):
            seat(Step(fails_at=step))
    assert seat(Step(5)) == 5
    seat.close()


def test_an_engine_that_cannot_be_opened_leaves_no_thread(monkeypatch: pytest.MonkeyPatch):
    def open_engine(options: Any, place: int) -> None:
        raise CaptureError("no engine")

    monkeypatch.setattr("harvest.engine.seat.open_engine", open_engine)
    before = threading.active_count()
    with pytest.raises(CaptureError, match="no engine"):
        EngineSeat(EngineOptions("m"))(0)  # type: ignore[arg-type]
    assert threading.active_count() == before
