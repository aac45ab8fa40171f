"""Which failure is tried again, where and how often, and who is blamed. Pure rules; `schedule` applies them."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Policy:
    """A passed deadline and an exception cost their task one attempt, as does the loss of an actor that ran it alone.

    An exception whose class says `retryable = False` is final at once; one that says `ends_run = True` ends the run.
    """

    max_attempts: int = 3
    min_actors: int = 2
    # distinct actors that must have failed at a task before it is given up, where that many exist
    deadline_s: float | None = None
    # per task, from when all that its actor was handed before have ended, and for building a worker; None: no deadline
    drain_s: float = 120.0
    # what running tasks get to end once nothing more is handed out
    max_in_flight: int = 2
    # per actor, and as many threads call its worker
    max_actor_restarts: int = 5
    # per place in the pool, in a row, with no task ended there in between
    max_machines_lost: int = 5
    # under one task, before their loss is held against it too

    def __post_init__(self) -> None:
        if min(self.max_attempts, self.min_actors, self.max_in_flight) < 1:
            raise ValueError(f"{self}: attempts, actors and tasks in flight must be ≥ 1")
        if min(self.max_actor_restarts, self.max_machines_lost, self.drain_s) < 0:
            raise ValueError(f"{self}: restarts, machines lost and seconds to drain must be ≥ 0")


class Blame(Enum):
    """What the loss of its actor means for a task in flight there."""

    CHARGED = auto()
    # an attempt
    ISOLATED = auto()
    # no attempt, but from now on nothing runs beside it: the next loss has one suspect
    SPARED = auto()
    # nothing


def blame(policy: Policy, num_in_flight: int, with_machine: bool, machines_lost: int) -> Blame:
    """The verdict on one of the `num_in_flight` tasks of an actor that was lost, maybe with its whole machine.

    Every verdict but CHARGED comes to a task a bounded number of times, so that none can kill actors for ever.
    """
    if with_machine and machines_lost < policy.max_machines_lost:
        return Blame.SPARED
    return Blame.ISOLATED if num_in_flight > 1 else Blame.CHARGED


def actors_wanted(policy: Policy, num_actors: int) -> int:
    """How many distinct actors must have failed at a task, of the `num_actors` that exist now."""
    return min(policy.min_actors, policy.max_attempts, num_actors)


def is_spent(policy: Policy, attempts: int, tried: Set[int], num_actors: int) -> bool:
    """Whether a task that failed `attempts` times, on the actors `tried`, is given up."""
    return attempts >= policy.max_attempts and len(tried) >= actors_wanted(policy, num_actors)


def may_run_on(policy: Policy, actor_id: int, tried: Set[int], num_actors: int) -> bool:
    """Whether an actor may take a task: not one it failed at, until enough others have failed too."""
    return actor_id not in tried or len(tried) >= actors_wanted(policy, num_actors)


def may_stack(stacked_cost: float, num_waiting: int, cost_open: float, num_actors: int) -> bool:
    """Whether a task is better off behind another, at `stacked_cost` together, than waiting for the first free actor.

    Not near the end, where it might wait behind a straggler while others are idle, and never so that an actor holds
    more than its share of all the work that is left: the two costliest in a row can take longer than all the rest.
    """
    return num_waiting >= num_actors and stacked_cost <= cost_open / num_actors


def is_suspect(failed_in_row: Set[str]) -> bool:
    """Whether an actor is to be replaced: two different tasks failed on it with none done in between.

    One bad task says nothing of its actor; two in a row are what a broken engine looks like, which would otherwise
    fail everything that it is given.
    """
    return len(failed_in_row) >= 2
