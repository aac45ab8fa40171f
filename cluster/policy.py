"""Which failure is tried again, where and how often. Pure rules; `schedule` applies them."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """A lost actor, a passed deadline and an exception each cost the running task one attempt.

    An exception whose class says `retryable = False` is final at once.
    """

    max_attempts: int = 3
    min_actors: int = 2
    # distinct actors that must have failed at a task before it is given up, where that many exist
    deadline_s: float | None = None
    # per task, from its start in the actor; None: no deadline
    max_in_flight: int = 2
    # per actor: one runs, the rest wait beside it
    max_actor_restarts: int = 5
    # per place in the pool, in a row, with no task ended there in between

    def __post_init__(self) -> None:
        if min(self.max_attempts, self.min_actors, self.max_in_flight) < 1 or self.max_actor_restarts < 0:
            raise ValueError(f"{self}: attempts, actors and tasks in flight must be ≥ 1 and restarts ≥ 0")


def actors_wanted(policy: Policy, num_actors: int) -> int:
    """How many distinct actors must have failed at a task, of the `num_actors` that exist now."""
    return min(policy.min_actors, policy.max_attempts, num_actors)


def is_spent(policy: Policy, attempts: int, tried: Set[int], num_actors: int) -> bool:
    """Whether a task that failed `attempts` times, on the actors `tried`, is given up."""
    return attempts >= policy.max_attempts and len(tried) >= actors_wanted(policy, num_actors)


def may_run_on(policy: Policy, actor_id: int, tried: Set[int], num_actors: int) -> bool:
    """Whether an actor may take a task: not one it failed at, until enough others have failed too."""
    return actor_id not in tried or len(tried) >= actors_wanted(policy, num_actors)


def is_suspect(failed_in_row: Set[str]) -> bool:
    """Whether an actor is to be replaced: two different tasks failed on it with none done in between.

    One bad task says nothing of its actor; two in a row are what a broken engine looks like, which would otherwise
    fail everything that it is given.
    """
    return len(failed_in_row) >= 2
