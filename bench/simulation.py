"""The schedule alone, with a clock that is made up: thousands of units, a thousand engines, deaths and stragglers."""

from __future__ import annotations

import heapq
import math
import random
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

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
    TasksAdded,
    Tick,
)
from cluster.policy import Policy
from cluster.schedule import Schedule
from cluster.task import Task


@dataclass(frozen=True, slots=True)
class World:
    """What engines are like."""

    num_actors: int
    boot_s: float = 120.0
    # from the start of an actor to its first task
    life_s: float = math.inf
    # of an actor, on average
    keep: float = 0.4
    # what committing a unit takes beside the engine, as a share of its time on the engine
    slow: float = 0.0
    # share of the actors
    slowdown: float = 3.0
    # of those


@dataclass(slots=True)
class _Engine:
    free_at: float
    pace: float
    # seconds per unit of cost
    running: dict[str, tuple[float, float]] = field(default_factory=dict)
    # begin and end of each task in its hands


@dataclass(frozen=True, slots=True)
class Simulated:
    """What became of a run."""

    num_tasks: int
    makespan_s: float
    # from the first task handed out
    lower_bound_s: float
    # of engines that neither die nor lag
    schedule_s: float
    # CPU time of the schedule, per task
    wasted: float
    # engine time that came to nothing, as a share of what the tasks need
    lost: int
    # actors
    most_in_flight: int
    quarantined: int
    held_bytes: int
    # by the schedule, once all tasks are in it

    @property
    def stretch(self) -> float:
        return self.makespan_s / self.lower_bound_s


class _Run:
    """Plays the crew: carries out what the schedule says, and tells it what came of that."""

    def __init__(self, world: World, policy: Policy, seed: int) -> None:
        self.world = world
        self.schedule = Schedule(world.num_actors, policy)
        self.random = random.Random(seed)
        self.events: list[tuple[float, int, Event]] = []
        self.number = count()
        self.engines: dict[int, _Engine] = {}
        self.now = self.schedule_s = self.wasted_s = 0.0
        self.first = math.inf
        self.lost = self.most = self.quarantined = 0

    def tell(self, event: Event) -> None:
        began = time.thread_time()
        instructions = self.schedule.handle(event, self.now)
        self.schedule_s += time.thread_time() - began
        for instruction in instructions:
            match instruction:
                case StartActor(actor_id):
                    self._start(actor_id)
                case CallActor(actor_id):
                    self._later(0.0, ActorReady(actor_id))
                case StopActor(actor_id):
                    self._end(actor_id)
                case Submit(actor_id, task):
                    self._submit(actor_id, task)
                case Deliver(actor_id, task_id):
                    del self.engines[actor_id].running[task_id]
                case Quarantine():
                    self.quarantined += 1
                case GiveUp(_, reason):
                    raise AssertionError(reason)

    def run(self, tasks: Sequence[Task]) -> None:
        self.tell(TasksAdded(tuple(tasks)))
        while not self.schedule.finished:
            self.now, _, event = heapq.heappop(self.events)
            if event.actor_id in self.engines:
                if isinstance(event, ActorLost):
                    self.lost += 1
                    self._end(event.actor_id)
                self.tell(event)
            # as the pool does whenever it has listened
            self.tell(Tick())

    def _later(self, after_s: float, event: Event) -> None:
        heapq.heappush(self.events, (self.now + after_s, next(self.number), event))

    def _start(self, actor_id: int) -> None:
        pace = self.world.slowdown if self.random.random() < self.world.slow else 1.0
        self.engines[actor_id] = _Engine(0.0, pace)
        self._later(0.0, ActorPlaced(actor_id))
        self._later(self.world.boot_s, ActorReady(actor_id))
        if self.world.life_s < math.inf:
            life_s = self.world.boot_s + self.random.expovariate(1 / self.world.life_s)
            self._later(life_s, ActorLost(actor_id, "died"))

    def _submit(self, actor_id: int, task: Task) -> None:
        engine, self.first = self.engines[actor_id], min(self.first, self.now)
        begin = max(self.now, engine.free_at)
        engine.free_at = begin + task.cost * engine.pace
        engine.running[task.task_id] = (begin, engine.free_at)
        self.most = max(self.most, len(engine.running))
        kept_at = engine.free_at + task.cost * engine.pace * self.world.keep
        self._later(kept_at - self.now, TaskDone(actor_id, task.task_id))

    def _end(self, actor_id: int) -> None:
        engine = self.engines.pop(actor_id, None)
        if engine is not None:
            self.wasted_s += sum(max(0.0, min(self.now, end) - begin) for begin, end in engine.running.values())


def simulate(costs_s: Sequence[float], world: World, policy: Policy | None = None, seed: int = 0) -> Simulated:
    """A run of units that take so many seconds each, on engines that boot, die and lag as the world has it."""
    tasks = [Task(f"unit-{at}", None, cost) for at, cost in enumerate(costs_s)]
    policy = policy or Policy()
    run = _Run(world, policy, seed)
    run.run(tasks)
    return Simulated(
        len(tasks),
        run.now - run.first,
        max(sum(costs_s) / world.num_actors, *costs_s),
        run.schedule_s / len(tasks),
        run.wasted_s / sum(costs_s),
        run.lost,
        run.most,
        run.quarantined,
        _held_bytes(tasks, world, policy),
    )


def _held_bytes(tasks: Sequence[Task], world: World, policy: Policy) -> int:
    tracemalloc.start()
    schedule = Schedule(world.num_actors, policy)
    schedule.handle(TasksAdded(tuple(tasks)), 0.0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held
