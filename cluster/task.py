"""The nouns of a pool: what goes in, what comes out. The payload is opaque and is never looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    """One idempotent piece of work: it may run more than once, and is delivered once."""

    task_id: str
    # unique within a run
    payload: Any
    cost: float = 1.0
    # any unit; the costliest goes first


@dataclass(frozen=True, slots=True)
class Result:
    """A finished task; its value is a small receipt."""

    task_id: str
    value: Any
    actor_id: int
    wall_s: float
    # within the worker


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that was given up."""

    task_id: str
    reason: str
    # of the last attempt
    attempts: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run's tasks: done + failures + left = all of them."""

    done: int
    failures: tuple[Failure, ...]
    left: int = 0
    # never handed out, or dropped, because the pool was drained
    drained: bool = False
    # somebody asked for it, in time or not


@dataclass(frozen=True, slots=True)
class Counts:
    """A run at one moment."""

    total: int
    done: int
    quarantined: int
    retries: int
    actors: int
    # ready for work
    cost: float = 0.0
    # of all tasks
    cost_done: float = 0.0
    cost_open: float = 0.0
    # of those that have not ended
    unplaced: int = 0
    # actors that wait for a machine
    draining: bool = False
