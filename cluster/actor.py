"""The inside of an actor: it builds one worker and runs payloads on it. It knows nothing of Ray.

The worker is called from as many threads at once as its pool has tasks in flight on an actor (`Policy.max_in_flight`),
and is built in one of them: what must stay in one thread, it keeps there itself. What it raises comes back as a
`Fault`, as data: an exception that travels as itself can fail to unpickle.
"""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Worker = Callable[[Any], Any]
MakeWorker = Callable[[int], Worker]
# takes the actor's place in the pool, 0 … max_actors − 1


@dataclass(frozen=True, slots=True)
class Ran:
    """A payload went through."""

    value: Any
    wall_s: float


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception as data."""

    type_name: str
    message: str
    retryable: bool
    # the exception class's own word; True where it says nothing
    pickled: bytes | None
    # the exception itself, if it survives a round trip
    ends_run: bool = False
    # as the class says, too

    @staticmethod
    def of(exception: Exception) -> Fault:
        name, retryable = type(exception).__qualname__, bool(getattr(exception, "retryable", True))
        ends_run = bool(getattr(exception, "ends_run", False))
        return Fault(name, str(exception), retryable, _pickled(exception), ends_run)

    @property
    def reason(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


def _pickled(exception: Exception) -> bytes | None:
    try:
        pickled = pickle.dumps(exception)
        pickle.loads(pickled)  # noqa: S301 - our own bytes; an __init__ of several arguments fails only here
    except Exception:  # noqa: BLE001 - a foreign class's pickling raises what it likes; its text travels anyway
        return None
    return pickled


class Runner:
    """One process's worker. `run` may be called by several threads at once, once `build` has returned."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def call(self) -> None:
        """Answers; so the process exists."""

    def build(self, make_worker: MakeWorker, place: int) -> Fault | None:
        """Builds the worker; the fault if that fails."""
        try:
            self._worker = make_worker(place)
        except Exception as exception:  # noqa: BLE001 - the worker is opaque: whatever it raises is data here
            traceback.print_exc()  # to the worker's own log: the trace does not travel
            return Fault.of(exception)
        return None

    def run(self, payload: Any) -> Ran | Fault:
        """The worker's value for a payload, or its fault."""
        assert self._worker is not None, "run before build"
        began = time.perf_counter()
        try:
            value = self._worker(payload)
        except Exception as exception:  # noqa: BLE001 - as above
            traceback.print_exc()
            return Fault.of(exception)
        return Ran(value, time.perf_counter() - began)

    def close(self) -> Fault | None:
        """Calls the worker's `close()`, where it has one; the fault if that fails."""
        close = getattr(self._worker, "close", None)
        if close is None:
            return None
        try:
            close()
        except Exception as exception:  # noqa: BLE001 - as above
            traceback.print_exc()
            return Fault.of(exception)
        return None
