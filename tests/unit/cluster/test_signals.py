"""The first signal asks for an orderly end, the second ends at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from cluster.signals import drained_by_signals

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    before = [signal.getsignal(signum) for signum in BOTH]
    yield
    assert [signal.getsignal(signum) for signum in BOTH] == before


@pytest.mark.parametrize("first", BOTH)
@pytest.mark.parametrize("second", BOTH)
def test_the_first_signal_drains_and_the_second_interrupts(first: signal.Signals, second: signal.Signals) -> None:
    asked: list[str] = []
    with pytest.raises(KeyboardInterrupt), drained_by_signals(lambda: asked.append("drain")):  # noqa: PT012
        os.kill(os.getpid(), first)
        assert asked == ["drain"]
        os.kill(os.getpid(), second)
    assert asked == ["drain"]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As SIGINT is under nohup, and of what a shell script starts with an ampersand."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with drained_by_signals(lambda: pytest.fail("drained")):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
