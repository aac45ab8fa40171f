"""A table of disasters, printed at the end whatever became of them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.calm import Calm
from chaos.machines import Machines
from chaos.table import Row, render

_SEED = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
_rows: list[Row] = []


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Callable[[str, str], Row]]:
    """Opens the test's line of the table."""
    opened: list[Row] = []
    began = time.monotonic()

    def open_row(tried: str, promise: str) -> Row:
        opened.append(Row(tried, promise))
        _rows.append(opened[-1])
        return opened[-1]

    yield open_row
    for one in opened:
        one.seconds = time.monotonic() - began
        if request.node.stash.get(_passed, False):
            one.state = "held"


_passed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.when == "call":
        item.stash[_passed] = report.passed
        if report.skipped and Path(__file__).parent in item.path.parents:
            name = item.name.removeprefix("test_").replace("_", " ")
            _rows.append(Row(name, "", state="skipped", notes=[str(call.excinfo.value) if call.excinfo else ""]))
    return report


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Chance, the same for the same seed and test."""
    print(f"CHAOS_SEED={_SEED}")
    return random.Random(f"{_SEED} {request.node.name}")


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """The job with nothing disturbed, for as many units as asked for."""
    return Calm(tmp_path_factory.mktemp("calm"))


@pytest.fixture(scope="package")
def machines() -> Iterator[Machines]:
    """A Ray cluster that several rows share: a head without CPUs and two nodes with one each."""
    made = Machines(2)
    yield made
    made.stop()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _rows:
        width = max(120, terminalreporter._tw.fullwidth)
        terminalreporter.write_line(render(_rows, _SEED, width))
