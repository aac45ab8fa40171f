"""What happens to a pool, and what the schedule answers. Plain data; an actor is known by its number."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.task import Failure, Task


@dataclass(frozen=True, slots=True)
class TasksAdded:
    """A run begins."""

    tasks: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class ActorPlaced:
    """The actor's process exists; its worker is being built."""

    actor_id: int


@dataclass(frozen=True, slots=True)
class ActorReady:
    """The actor's worker is built, or it answered a call."""

    actor_id: int


@dataclass(frozen=True, slots=True)
class ActorUnbuilt:
    """The actor's worker could not be built."""

    actor_id: int
    reason: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class ActorLost:
    """The actor's process is gone."""

    actor_id: int
    reason: str
    with_machine: bool = False
    # the whole machine is gone, or cannot be reached


@dataclass(frozen=True, slots=True)
class TaskDone:
    """A task's value has arrived."""

    actor_id: int
    task_id: str


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """A task raised, and its actor lives on."""

    actor_id: int
    task_id: str
    reason: str
    retryable: bool
    ends_run: bool = False
    # no other task could end well either


@dataclass(frozen=True, slots=True)
class RoomSeen:
    """The machines that are up could hold so many actors in all."""

    num_actors: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; deadlines are looked at."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Hand out nothing more; what runs may finish, for a while."""


Event = (
    TasksAdded | ActorPlaced | ActorReady | ActorUnbuilt | ActorLost | TaskDone | TaskFailed | RoomSeen | Tick | Drain
)


@dataclass(frozen=True, slots=True)
class StartActor:
    """Start an actor and build its worker for this place of the pool."""

    actor_id: int
    place: int


@dataclass(frozen=True, slots=True)
class CallActor:
    """Ask an actor of an earlier run whether it still lives; it answers with ActorReady."""

    actor_id: int


@dataclass(frozen=True, slots=True)
class StopActor:
    """Kill an actor; nothing that it still sends counts."""

    actor_id: int


@dataclass(frozen=True, slots=True)
class Submit:
    """Hand a task to an actor."""

    actor_id: int
    task: Task


@dataclass(frozen=True, slots=True)
class Deliver:
    """This value is the task's one result."""

    actor_id: int
    task_id: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A task is given up."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The run cannot go on; this actor was the last straw."""

    actor_id: int
    reason: str


Instruction = StartActor | CallActor | StopActor | Submit | Deliver | Quarantine | GiveUp
