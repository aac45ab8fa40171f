"""The first SIGINT or SIGTERM asks for an orderly end, the second ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def drained_by_signals(drain: Callable[[], None]) -> Iterator[None]:
    """Within it the first of these signals calls `drain`, and a second raises KeyboardInterrupt.

    Does nothing outside the main thread, where Python delivers no signals, and to a signal that is ignored, as SIGINT
    is under `nohup` and `&`. The handlers that were there are put back at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    before = {signum: handler for signum, handler in found.items() if handler not in (signal.SIG_IGN, None)}

    def end_at_once(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def end_in_order(_signum: int, _frame: FrameType | None) -> None:
        for caught in before:
            signal.signal(caught, end_at_once)
        drain()

    try:
        for signum in before:
            signal.signal(signum, end_in_order)
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
