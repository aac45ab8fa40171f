"""One demo run that many promises are held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from road import run


@dataclass(frozen=True)
class DemoRun:
    out: Path
    stdout: str


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """`value-harvest demo`, once a session."""
    out = tmp_path_factory.mktemp("demo") / "run"
    return DemoRun(out, run("demo", "--out", out).stdout)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a measured number so that whoever runs the tests sees it."""

    def print_it(text: str) -> None:
        with capsys.disabled():
            print(f"\n    {text}")

    return print_it
