"""What sits in an actor: an engine that runs whatever task it is handed. Importing this loads no vLLM."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
        return SeatedEngine(open_engine(self.options, index))


class SeatedEngine:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self, task: EngineTask) -> Any:
        return task.run(self._engine)

    def close(self) -> None:
        self._engine.close()


def open_engine(options: EngineOptions, place: int = 0) -> Engine:
    """An open engine in this process; the environment it needs is set first, because vLLM reads it when imported."""
    os.environ.update(engine_environment(options) | bound_cores(options, place))
    from harvest.engine.engine import Engine

    return Engine(options)
