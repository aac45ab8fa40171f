"""Whole runs of the pool's decisions against a made-up world with a clock of its own: no Ray, no waiting."""

from __future__ import annotations

import pickle
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush
from types import FrameType

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.events import (
    ActorLost,
    ActorPlaced,
    ActorReady,
    Deliver,
    Event,
    GiveUp,
    Instruction,
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

BUILD_S = 60.0


@dataclass
class Machines:
    """Engines that work through what they hold one after the other, a token a second, and die when chance says so."""

    schedule: Schedule
    chance: random.Random
    mean_life_s: float = float("inf")
    stragglers: float = 0.0
    # how likely a task takes twenty times as long as it should
    poison: frozenset[str] = frozenset()
    # kill whatever runs them
    stuck: int = -1
    stuck_at: float = 0.0
    # an engine that stands still from some time on
    now: float = 0.0
    held: dict[int, list[Task]] = field(default_factory=dict)
    busy_until: dict[int, float] = field(default_factory=dict)
    agenda: list[tuple[float, int, int, str]] = field(default_factory=list)
    # when, a number that keeps the order, the actor, and what happens to it
    ended: Counter[str] = field(default_factory=Counter)
    quarantined: set[str] = field(default_factory=set)
    num_events: int = 0
    num_lost: int = 0
    worst_in_flight: int = 0
    wasted_s: float = 0.0

    def tell(self, event: Event) -> None:
        for instruction in self.schedule.handle(event, self.now):
            match instruction:
                case StartActor(actor_id, _):
                    self.plan(BUILD_S * self.chance.uniform(0.5, 1.5), actor_id, "built")
                case StopActor(actor_id):
                    self.forget(actor_id)
                case Submit(actor_id, task):
                    self.held[actor_id].append(task)
                    self.worst_in_flight = max(self.worst_in_flight, len(self.held[actor_id]))
                    if len(self.held[actor_id]) == 1:
                        self.begin(actor_id)
                case Deliver(_, task_id):
                    self.ended[task_id] += 1
                case Quarantine(failure):
                    self.ended[failure.task_id] += 1
                    self.quarantined.add(failure.task_id)
                case GiveUp(_, reason):
                    raise AssertionError(f"given up: {reason}")

    def plan(self, in_s: float, actor_id: int, what: str) -> None:
        self.num_events += 1
        heappush(self.agenda, (self.now + in_s, self.num_events, actor_id, what))

    def begin(self, actor_id: int) -> None:
        task = self.held[actor_id][0]
        slow = 20.0 if self.chance.random() < self.stragglers else 1.0
        self.busy_until[actor_id] = self.now + task.cost * slow
        self.plan(task.cost * slow, actor_id, "killed" if task.task_id in self.poison else f"done {task.task_id}")

    def forget(self, actor_id: int) -> None:
        if self.held.pop(actor_id, None):
            self.wasted_s += max(0.0, self.busy_until[actor_id] - self.now)

    def run(self, costs: list[float]) -> float:
        """How long it takes (s), once the first engine is there."""
        self.tell(TasksAdded(tuple(Task(f"t{i}", None, cost) for i, cost in enumerate(costs))))
        while not self.schedule.finished:
            if not self.agenda:
                assert self.stuck >= 0, "nothing will ever happen again"
                break
            self.now, _, actor_id, what = heappop(self.agenda)
            if actor_id == self.stuck and self.now >= self.stuck_at and what != "built":
                continue
            if what == "built":
                self.held[actor_id] = []
                self.tell(ActorPlaced(actor_id))
                self.tell(ActorReady(actor_id))
                if self.mean_life_s < float("inf"):
                    self.plan(self.chance.expovariate(1 / self.mean_life_s), actor_id, "killed")
            elif actor_id in self.held and what == "killed":
                self.num_lost += 1
                self.forget(actor_id)
                self.tell(ActorLost(actor_id, "killed"))
            elif actor_id in self.held:
                self.held[actor_id].pop(0)
                if self.held[actor_id]:
                    self.begin(actor_id)
                self.tell(TaskDone(actor_id, what.removeprefix("done ")))
            self.tell(Tick())
        return self.now


def realistic_costs(num: int, chance: random.Random) -> list[float]:
    """Tokens of blocks of questions: most alike, some far longer."""
    return [chance.lognormvariate(5, 0.5) for _ in range(num)]


def lower_bound(costs: list[float], num_engines: int) -> float:
    longest = max(costs)
    return max(sum(costs) / num_engines, longest)


def test_ten_thousand_units_on_a_thousand_engines_take_hardly_longer_than_they_must() -> None:
    chance = random.Random(7)
    costs = realistic_costs(10_000, chance)
    machines = Machines(Schedule(1000, Policy()), chance)
    took = machines.run(costs)
    assert machines.worst_in_flight == 2
    assert set(machines.ended.values()) == {1}
    assert len(machines.ended) == 10_000
    assert took <= 1.05 * (lower_bound(costs, 1000) + BUILD_S)


def test_what_the_decisions_remember_does_not_grow_with_the_run() -> None:
    schedule = Schedule(4, Policy(deadline_s=1e6))
    Machines(schedule, random.Random(1)).run(realistic_costs(5_000, random.Random(1)))
    assert len(pickle.dumps(schedule)) < 20_000


def test_ten_thousand_units_survive_a_thousand_engines_that_die_and_dawdle() -> None:
    chance = random.Random(8)
    costs = realistic_costs(10_000, chance)
    policy = Policy(deadline_s=3 * max(costs), max_actor_restarts=10_000)
    poison = frozenset(f"t{number}" for number in chance.sample(range(10_000), 5))
    machines = Machines(Schedule(1000, policy), chance, mean_life_s=1500, stragglers=0.002, poison=poison)
    took = machines.run(costs)
    assert machines.num_lost > 500
    assert set(machines.ended.values()) == {1}
    assert len(machines.ended) == 10_000
    assert machines.quarantined >= poison
    assert len(machines.quarantined - poison) <= 20, "bad luck three times over"
    # what a death throws away is what ran, and the time to build the next engine
    lost = (machines.num_lost * (2 * sum(costs) / len(costs) + 1.5 * BUILD_S)) / 1000
    assert took <= 1.05 * (lower_bound(costs, 1000) + BUILD_S + lost) + 3 * policy.deadline_s


def lines_per_event(num_engines: int) -> float:
    """How many lines of Python an event takes, through a whole run with deaths; no clock can disturb that."""
    chance = random.Random(9)
    schedule = Schedule(num_engines, Policy(deadline_s=1e6, max_actor_restarts=10_000))
    handle, count = schedule.handle, Counter[str]()

    def trace(frame: FrameType, event: str, arg: object) -> object:
        count[event] += 1
        return trace

    def traced(event: Event, now: float) -> list[Instruction]:
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            return handle(event, now)
        finally:
            sys.settrace(before)

    schedule.handle = traced  # type: ignore[method-assign]
    machines = Machines(schedule, chance, mean_life_s=1500)
    machines.run(realistic_costs(10 * num_engines, chance))
    return count["line"] / machines.num_events


def test_what_an_event_costs_does_not_grow_with_the_pool() -> None:
    small, large = lines_per_event(10), lines_per_event(500)
    assert large < 1.5 * small, f"{small:.0f} lines with 10 engines, {large:.0f} with 500"


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_engines=st.integers(1, 30),
    num_tasks=st.integers(1, 200),
    ills=st.tuples(st.sampled_from([500.0, 3000.0, float("inf")]), st.sampled_from([0.0, 0.05])),
    max_in_flight=st.integers(1, 3),
)
def test_every_task_ends_exactly_once(
    seed: int, num_engines: int, num_tasks: int, ills: tuple[float, float], max_in_flight: int
) -> None:
    chance = random.Random(seed)
    costs = realistic_costs(num_tasks, chance)
    policy = Policy(deadline_s=2 * max(costs), max_actor_restarts=10_000, max_in_flight=max_in_flight)
    machines = Machines(Schedule(num_engines, policy), chance, *ills)
    machines.run(costs)
    assert machines.ended == Counter({f"t{i}": 1 for i in range(num_tasks)})
    assert machines.worst_in_flight <= max_in_flight


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), num_engines=st.integers(2, 12), num_tasks=st.integers(1, 150))
def test_near_the_end_a_straggler_holds_back_nothing_but_what_it_has(
    seed: int, num_engines: int, num_tasks: int
) -> None:
    """One engine stands still from some point on: the others finish all the rest, and it is left with two at most.

    And where fewer tasks wait than there are engines, none is handed to an engine that is still at work.
    """
    chance = random.Random(seed)
    machines = Machines(Schedule(num_engines, Policy()), chance)
    told = machines.tell

    def tell(event: Event) -> None:
        before = {actor_id: list(held) for actor_id, held in machines.held.items()}
        told(event)
        waiting = num_tasks - machines.schedule.counts.done - sum(map(len, machines.held.values()))
        for actor_id, held in machines.held.items():
            handed = [task for task in held if task not in before.get(actor_id, [])]
            if len(held) > 1 and handed:
                assert waiting + len(handed) >= num_engines, "handed to an engine at work, near the end"

    machines.tell = tell  # type: ignore[method-assign]
    machines.stuck = chance.randrange(min(num_engines, num_tasks))
    machines.stuck_at = chance.uniform(0, 2000)
    machines.run(realistic_costs(num_tasks, chance))
    assert len(machines.ended) + len(machines.held.get(machines.stuck, [])) == num_tasks
    assert len(machines.held.get(machines.stuck, [])) <= 2
