"""A store against a dict: whatever is committed, killed at any step, collected or adopted, readers get what was won."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from places import Somewhere, new_folder, new_prefix

from harvest.store.attempts import Draft, commit, unit_slot
from harvest.store.commit import Store
from harvest.store.gc import sweep
from harvest.store.key import unit_name
from harvest.store.verify import orphans, verify_store

UNITS = [unit_name("answers", {"index": index}) for index in range(3)]
LOST = "is missing (deleted, or its writer was stopped"


class Killed(BaseException):
    """The process is gone: nothing catches it, and nothing that tidies up reaches the place any more."""


class Dying:
    """A place for a process that is killed at one of its operations, before or after it took effect."""

    def __init__(self, place: Any, step: int, takes_effect: bool) -> None:
        self._place, self._left, self._takes_effect = place, step, takes_effect

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._place, name)
        if name in ("root", "at"):
            return operation

        def call(*arguments: Any) -> Any:
            self._left -= 1
            if self._left < 0 or (self._left == 0 and not self._takes_effect):
                raise Killed
            result = operation(*arguments)
            if self._left == 0:
                raise Killed
            return result

        return self._staged if name == "staged" else call

    @contextmanager
    def _staged(self, key: str) -> Iterator[Path]:
        self._left -= 1
        with self._place.staged(key) as path:
            yield path
            if self._left <= 0:
                raise Killed


def _writes(data: bytes) -> Any:
    def write(path: Path) -> None:
        path.mkdir()
        (path / "one").write_bytes(data)
        (path / "two").write_bytes(data[::-1])

    return write


class Machine(RuleBasedStateMachine):
    somewhere: Somewhere

    @initialize()
    def begin(self) -> None:
        self.store = Store(type(self).fresh().root).prepare()
        self.won: dict[str, bytes] = {}
        self.possible: dict[str, set[bytes]] = {unit: set() for unit in UNITS}
        # what those who were killed wrote
        self.number = 0

    def _fresh_data(self) -> bytes:
        self.number += 1
        return f"attempt {self.number}".encode()

    def _see(self, unit: str) -> None:
        found = self.store.find(unit)
        if found is None:
            assert unit not in self.won
            return
        tree = self.store.open(found)
        data = tree.read("one")
        assert tree.differences() == []
        assert tree.read("two") == data[::-1]
        assert data == self.won.setdefault(unit, data)
        assert data in self.possible[unit]

    @rule(unit=st.sampled_from(UNITS))
    def commit(self, unit: str) -> None:
        data = self._fresh_data()
        self.possible[unit].add(data)
        self.store.commit(unit, ".zarr", _writes(data), {})
        assert self.store.find(unit) is not None
        self._see(unit)

    @rule(unit=st.sampled_from(UNITS), step=st.integers(1, 10), takes_effect=st.booleans())
    def commit_and_be_killed(self, unit: str, step: int, takes_effect: bool) -> None:
        data = self._fresh_data()
        self.possible[unit].add(data)
        place: Any = Dying(self.store.place, step, takes_effect)
        with suppress(Killed):
            commit(place, unit_slot(unit), Draft(".zarr", _writes(data), {}))
        self._see(unit)

    @rule(unit=st.sampled_from(UNITS))
    def commit_while_others_collect_and_commit(self, unit: str) -> None:
        data, calls = self._fresh_data(), []
        self.possible[unit].add(data)

        def write(path: Path) -> None:
            calls.append(path)
            _writes(data)(path)
            if len(calls) == 1:
                sweep(self.store, 0, delete=True)

        self.store.commit(unit, ".zarr", write, {})
        assert len(calls) <= 2
        self._see(unit)

    @rule(unit=st.sampled_from(UNITS))
    def overtake(self, unit: str) -> None:
        slow, fast = self._fresh_data(), self._fresh_data()
        self.possible[unit] |= {slow, fast}

        def write(path: Path) -> None:
            self.store.commit(unit, ".zarr", _writes(fast), {})
            _writes(slow)(path)

        self.store.commit(unit, ".zarr", write, {})
        self._see(unit)
        assert self.won[unit] != slow

    @rule()
    def collect(self) -> None:
        sweep(self.store, 0, delete=True)
        assert orphans(self.store.root) == []

    @precondition(lambda self: self.number > 0)
    @invariant()
    def readers_get_what_was_won(self) -> None:
        for unit in UNITS:
            self._see(unit)
        assert self.store.committed(UNITS) == set(self.won)
        damage = verify_store(self.store.root, grace_s=0)
        assert all(one.what.startswith(LOST) for one in damage)

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        sweep(self.store, 0, delete=True)
        for unit in UNITS:
            self._see(unit)
        assert verify_store(self.store.root, grace_s=0) == []
        assert orphans(self.store.root) == []


@pytest.mark.parametrize(("kind", "examples"), [("folder", 25), ("bucket", 3)])
def test_a_store_is_a_dict_whatever_is_killed(kind: str, examples: int, tmp_path: Path, request: pytest.FixtureRequest):
    server = request.getfixturevalue("s3") if kind == "bucket" else None

    class Here(Machine):
        @staticmethod
        def fresh() -> Somewhere:
            return new_prefix(server) if server else new_folder(tmp_path)

    chosen = settings(
        max_examples=examples,
        stateful_step_count=12,
        deadline=None,
        # a store is slow to build: shrinking would take minutes
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Here, settings=chosen)
