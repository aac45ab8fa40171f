"""A made-up world that answers a schedule's instructions, with no Ray and no clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cluster.events import (
    ActorLost,
    ActorPlaced,
    ActorReady,
    CallActor,
    Deliver,
    Event,
    GiveUp,
    Quarantine,
    StartActor,
    StopActor,
    Submit,
    TaskDone,
    TaskFailed,
    TasksAdded,
)
from cluster.policy import Policy
from cluster.schedule import Schedule
from cluster.task import Failure, Task


@dataclass
class World:
    """Obeys instructions and keeps the books that the promises are checked against."""

    schedule: Schedule
    now: float = 0.0
    starting: dict[int, int] = field(default_factory=dict)
    called: set[int] = field(default_factory=set)
    idle_or_busy: dict[int, list[Task]] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)
    submitted: list[tuple[int, str]] = field(default_factory=list)
    quarantined: list[Failure] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    given_up: str = ""

    def tell(self, event: Event) -> None:
        for instruction in self.schedule.handle(event, self.now):
            match instruction:
                case StartActor(actor_id, place):
                    assert place not in self.starting.values()
                    self.starting[actor_id] = place
                case CallActor(actor_id):
                    self.called.add(actor_id)
                case StopActor(actor_id):
                    self.stopped.append(actor_id)
                    del self.idle_or_busy[actor_id]
                case Submit(actor_id, task):
                    self.submitted.append((actor_id, task.task_id))
                    self.idle_or_busy[actor_id].append(task)
                case Deliver(_, task_id):
                    self.ended[task_id] += 1
                case Quarantine(failure):
                    self.ended[failure.task_id] += 1
                    self.quarantined.append(failure)
                case GiveUp(_, reason):
                    self.given_up = reason

    def ready(self, actor_id: int) -> None:
        del self.starting[actor_id]
        self.idle_or_busy[actor_id] = []
        self.tell(ActorPlaced(actor_id))
        self.tell(ActorReady(actor_id))

    def ready_all(self) -> None:
        while self.starting:
            self.ready(min(self.starting))

    def done(self, actor_id: int, task_id: str = "") -> None:
        tasks = self.idle_or_busy[actor_id]
        task = next(task for task in tasks if task.task_id == (task_id or tasks[0].task_id))
        tasks.remove(task)
        self.tell(TaskDone(actor_id, task.task_id))

    def fail(self, actor_id: int, retryable: bool = True, ends_run: bool = False) -> None:
        task = self.idle_or_busy[actor_id].pop(0)
        self.tell(TaskFailed(actor_id, task.task_id, "ValueError: no", retryable, ends_run))

    def lose(self, actor_id: int, with_machine: bool = False) -> None:
        del self.idle_or_busy[actor_id]
        self.tell(ActorLost(actor_id, "killed", with_machine))

    def running(self, actor_id: int) -> list[str]:
        return [task.task_id for task in self.idle_or_busy[actor_id]]


def world(num_actors: int, *costs: float, policy: Policy | None = None) -> World:
    made = World(Schedule(num_actors, policy or Policy()))
    made.tell(TasksAdded(tuple(Task(f"t{i}", None, cost) for i, cost in enumerate(costs))))
    return made
