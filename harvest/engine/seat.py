"""What sits in an actor: an engine that runs whatever task it is handed. Importing this loads no vLLM.

A task has three steps: asking what of it is wanted still, and keeping, in the thread that called, and measuring
between them, always in the engine's one thread. While one caller waits for the store, another's measuring goes on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, Protocol

from harvest.engine.options import EngineOptions, bound_cores, engine_environment
from harvest.engine.refusals import refuse_another_checkpoint
from harvest.engine.versions import check_versions
from harvest.provenance import versions

if TYPE_CHECKING:
    from harvest.engine.engine import Engine

_MAX_HELD = 2
# tasks between the start of measuring and the end of keeping, each with its rows in memory


class EngineTask(Protocol):
    """A generation or a capture: both know what to do with an engine."""

    def wanted(self) -> Any:
        """What nobody has committed since the task was made; empty if there is nothing left to do."""

    def measure(self, engine: Engine, wanted: Any) -> Any: ...

    def keep(self, measured: Any) -> int: ...


@dataclass(frozen=True, slots=True)
class EngineSeat:
    """Opens the engine where it is called (in the actor) and returns the callable that runs tasks on it."""

    options: EngineOptions
    versions: Mapping[str, str] = field(default_factory=versions)
    # the driver's

    def __call__(self, index: int) -> SeatedEngine:
        check_versions(self.versions, versions())
        # torch and CUDA keep state by thread: whatever touches the engine does so in this one
        thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        try:
            engine = thread.submit(open_engine, self.options, index).result()
        except BaseException:
            thread.shutdown()
            raise
        return SeatedEngine(engine, thread)


class SeatedEngine:
    """Runs tasks; may be called from any number of threads."""

    def __init__(self, engine: Engine, thread: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._thread = thread
        self._room = BoundedSemaphore(_MAX_HELD)

    def __call__(self, task: EngineTask) -> int:
        """Tokens that the engine worked on; raises what any step raises."""
        with self._room:
            wanted = task.wanted()
            if not wanted:
                return 0
            measured = self._thread.submit(task.measure, self._engine, wanted).result()
            return task.keep(measured)

    def close(self) -> None:
        try:
            self._thread.submit(self._engine.close).result()
        finally:
            self._thread.shutdown()


def open_engine(options: EngineOptions, place: int = 0) -> Engine:
    """An open engine in this process; the environment it needs is set first, because vLLM reads it when imported.

    Raises ModelError unless the checkpoint is the one that the options name, as it was before and after it was loaded.
    """
    os.environ.update(engine_environment(options) | bound_cores(options, place))
    refuse_another_checkpoint(options)
    from harvest.engine.engine import Engine

    engine = Engine(options)
    try:
        refuse_another_checkpoint(options)
    except BaseException:
        engine.close()
        raise
    return engine
