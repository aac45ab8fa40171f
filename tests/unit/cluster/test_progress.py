"""What a person sees of a run, and what a listener is told."""

from __future__ import annotations

import json
import re
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from cluster.progress import Progress, Rate
from cluster.task import Counts


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def counts(done: int, total: int = 40, quarantined: int = 0, actors: int = 2, draining: bool = False) -> Counts:
    """Every task costs 50 tokens."""
    left = total - done - quarantined
    return Counts(total, done, quarantined, 1, actors, 50.0 * total, 50.0 * done, 50.0 * left, draining=draining)


def show(console: Console) -> list[dict[str, Any]]:
    """Ten seconds at four tasks a second; what a listener hears of it."""
    clock, heard = Clock(), []
    progress = Progress("capture", console, every_s=5.0, clock=clock, listener=heard.append)
    progress.begin(40)
    for done in range(41):
        progress.update(counts(done))
        clock.now += 0.25
    progress.end(counts(40))
    return heard


def test_piped_it_writes_a_json_line_now_and_then_and_the_last_one_which_a_listener_hears_too() -> None:
    out = StringIO()
    heard = show(Console(file=out, force_terminal=False, width=20))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert lines == heard
    assert [(line["done"], line["elapsed_s"], line["state"]) for line in lines] == [
        (20, 5.0, "running"),
        (40, 10.0, "running"),
        (40, 10.2, "done"),
    ]
    first = lines[0]
    assert first == {
        "stage": "capture",
        "done": 20,
        "total": 40,
        "tokens_done": 20 * 50,
        "tokens": 40 * 50,
        "tokens_per_s": 200.0,
        "eta_s": 5,
        "engines": 2,
        "retries": 1,
        "quarantined": 0,
        "elapsed_s": 5.0,
        "state": "running",
    }


def test_on_a_terminal_the_last_line_stands_and_a_listener_hears_the_same() -> None:
    out = StringIO()
    heard = show(Console(file=out, force_terminal=True, width=120, highlight=False))
    assert [(line["done"], line["state"]) for line in heard] == [(20, "running"), (40, "running"), (40, "done")]
    last = out.getvalue().splitlines()[-1]
    assert last.endswith("capture 40/40 tasks, 195 tokens/s, 2 engines, 1 retries, 0 quarantined, 10.2 s")


@pytest.mark.parametrize(
    ("last", "failed", "state"),
    [
        (counts(40), False, "done"),
        (counts(39, quarantined=1), False, "failed"),
        (counts(40), True, "failed"),
        (counts(10, draining=True), False, "draining"),
    ],
)
def test_the_last_state_says_how_it_ended(last: Counts, failed: bool, state: str) -> None:
    heard: list[dict[str, Any]] = []
    progress = Progress("x", Console(file=StringIO(), force_terminal=False), clock=Clock(), listener=heard.append)
    progress.begin(40)
    progress.end(last, failed)
    assert heard[-1]["state"] == state


def test_the_time_that_engines_take_to_open_says_nothing_of_their_speed() -> None:
    clock, heard = Clock(), []
    progress = Progress("x", Console(file=StringIO(), force_terminal=False), clock=clock, listener=heard.append)
    progress.begin(40)
    clock.now += 300
    progress.update(counts(0, actors=0))
    assert heard[-1]["eta_s"] is None
    clock.now += 10
    progress.update(counts(4))
    assert (heard[-1]["tokens_per_s"], heard[-1]["eta_s"]) == (20.0, 36 * 50 / 20)


def test_the_speed_is_that_of_the_last_minute_and_not_of_the_whole_run() -> None:
    rate = Rate(window_s=60)
    rate.restart(0.0)
    for second in range(1, 1001):
        rate.add(10.0 * second, second)
    assert rate.per_second(1000) == pytest.approx(10)
    for second in range(1001, 1101):
        rate.add(10_000 + 2.0 * (second - 1000), second)
    assert rate.per_second(1100) == pytest.approx(2, rel=0.05)
    assert rate.per_second(1100 + 900) < 0.5  # and it falls while nothing comes


def test_seldom_results_still_give_a_speed() -> None:
    rate = Rate(window_s=60)
    rate.restart(0.0)
    for number in range(1, 30):
        rate.add(600.0 * number, 120.0 * number)
        assert rate.per_second(120.0 * number) == pytest.approx(5)


def test_what_is_waited_for_is_said_where_there_is_something() -> None:
    clock, out = Clock(), StringIO()
    progress = Progress("x", Console(file=out, force_terminal=False), clock=clock)
    progress.begin(1)
    clock.now += 6
    progress.update(counts(0), "room for 1 actor(s)")
    assert json.loads(out.getvalue())["waiting_for"] == "room for 1 actor(s)"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_label_is_text_and_no_order_to_the_terminal(is_terminal: bool) -> None:
    out = StringIO()
    progress = Progress("[red]x\x1b]0;owned\x07", Console(file=out, force_terminal=is_terminal, width=200))
    progress.begin(0)
    progress.end(Counts(0, 0, 0, 0, 0))
    assert "[red]x" in re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert "\x1b]" not in out.getvalue()
    assert "\x07" not in out.getvalue()
