"""What sits in an actor: an engine that runs whatever task it is handed. Importing this loads no vLLM."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from harvest.engine.options import EngineOptions, bound_cores, engine_environment
from harvest.engine.versions import check_versions
from harvest.provenance import versions

if TYPE_CHECKING:
    from harvest.engine.engine import Engine


class EngineTask(Protocol):
    """A generation or a capture: both know what to do with an engine."""

    def run(self, engine: Engine) -> Any: ...


@dataclass(frozen=True, slots=True)
class EngineSeat:
    """Opens the engine where it is called (in the actor) and returns the callable that runs tasks on it."""

    options: EngineOptions
    versions: Mapping[str, str] = field(default_factory=versions)
    # the driver's

    def __call__(self, index: int) -> SeatedEngine:
        check_versions(self.versions, versions())
        return SeatedEngine(self.options, index)


class SeatedEngine:
    """May be called by several threads; the engine is opened, used and closed in one of its own."""

    def __init__(self, options: EngineOptions, place: int) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._engine = self._thread.submit(open_engine, options, place).result()

    def __call__(self, task: EngineTask) -> Any:
        return self._thread.submit(task.run, self._engine).result()

    def close(self) -> None:
        self._thread.submit(self._engine.close).result()
        self._thread.shutdown()


def open_engine(options: EngineOptions, place: int = 0) -> Engine:
    """An open engine in this process; the environment it needs is set first, because vLLM reads it when imported."""
    os.environ.update(engine_environment(options) | bound_cores(options, place))
    from harvest.engine.engine import Engine

    return Engine(options)
