"""Whatever happens to a pool in whatever order, its promises hold; no Ray, no clock."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scheduled import World, world

from cluster.events import ActorReady, RoomSeen, TaskDone, TasksAdded, Tick
from cluster.policy import Policy
from cluster.schedule import Schedule
from cluster.task import Task


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), num_actors=st.integers(1, 6), num_tasks=st.integers(0, 60))
def test_through_any_deaths_every_task_ends_once_and_only_the_poison_is_quarantined(
    seed: int, num_actors: int, num_tasks: int
) -> None:
    chance = random.Random(seed)
    w = world(num_actors, *[chance.choice([1, 2, 5]) for _ in range(num_tasks)], policy=Policy(deadline_s=3))
    kind = {f"t{i}": chance.choices(["good", "kills", "raises", "hangs"], [20, 1, 1, 1])[0] for i in range(num_tasks)}
    random_deaths = 5  # spent at most once a task, so that bad luck alone never uses up three attempts
    unlucky: set[str] = set()
    for _ in range(200 * (num_tasks + 1)):
        if w.schedule.finished or w.given_up:
            break
        w.now += 1
        w.tell(Tick())
        if w.starting and chance.random() < 0.5:
            w.ready(chance.choice(sorted(w.starting)))
        busy = [actor_id for actor_id, tasks in w.idle_or_busy.items() if tasks]
        if not busy:
            continue
        actor_id = chance.choice(busy)
        task_id = w.running(actor_id)[0]
        if kind[task_id] == "kills":
            w.lose(actor_id)
        elif kind[task_id] == "raises":
            w.fail(actor_id)
        elif kind[task_id] == "good" and random_deaths and task_id not in unlucky and chance.random() < 0.1:
            random_deaths -= 1
            unlucky.add(task_id)
            w.lose(actor_id)
        elif kind[task_id] == "good":
            w.done(actor_id)
    assert w.schedule.finished, "no progress"
    assert set(w.ended.values()) <= {1}
    assert len(w.ended) == num_tasks
    assert all(kind[failure.task_id] != "good" or failure.attempts >= 3 for failure in w.quarantined)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, the bounds hold."""

    @initialize(num_actors=st.integers(1, 4), costs=st.lists(st.sampled_from([1.0, 2.0, 3.0]), max_size=20))
    def begin(self, num_actors: int, costs: list[float]) -> None:
        self.num_tasks = len(costs)
        self.alone: set[str] = set()
        self.w = World(Schedule(num_actors, Policy(deadline_s=5, max_actor_restarts=1000), num_actors + 2))
        self.w.tell(TasksAdded(tuple(Task(f"t{i}", None, cost) for i, cost in enumerate(costs))))

    def busy(self) -> list[int]:
        return sorted(actor_id for actor_id, tasks in self.w.idle_or_busy.items() if tasks)

    @precondition(lambda self: self.w.starting)
    @rule(pick=st.randoms())
    def an_actor_is_ready(self, pick: random.Random) -> None:
        self.w.ready(pick.choice(sorted(self.w.starting)))

    @precondition(lambda self: self.busy())
    @rule(pick=st.randoms())
    def a_task_is_done(self, pick: random.Random) -> None:
        actor_id = pick.choice(self.busy())
        self.w.done(actor_id, pick.choice(self.w.running(actor_id)))

    @precondition(lambda self: self.busy())
    @rule(pick=st.randoms(), retryable=st.booleans())
    def a_task_fails(self, pick: random.Random, retryable: bool) -> None:
        self.w.fail(pick.choice(self.busy()), retryable)

    @precondition(lambda self: self.w.idle_or_busy)
    @rule(pick=st.randoms(), with_machine=st.booleans())
    def an_actor_is_lost(self, pick: random.Random, with_machine: bool) -> None:
        lost = pick.choice(sorted(self.w.idle_or_busy))
        if not with_machine and len(self.w.running(lost)) == 2:
            self.alone.update(self.w.running(lost))
        self.w.lose(lost, with_machine)

    @rule(num_actors=st.integers(0, 8))
    def machines_come_and_go(self, num_actors: int) -> None:
        self.w.tell(RoomSeen(num_actors))

    @rule(actor_id=st.integers(0, 30), task=st.integers(0, 20))
    def a_ghost_speaks(self, actor_id: int, task: int) -> None:
        if actor_id not in self.w.idle_or_busy and actor_id not in self.w.starting:
            self.w.tell(TaskDone(actor_id, f"t{task}"))
            self.w.tell(ActorReady(actor_id))

    @rule(passed_s=st.floats(0, 4))
    def time_passes(self, passed_s: float) -> None:
        self.w.now += passed_s
        self.w.tell(Tick())

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        in_flight = Counter(t.task_id for tasks in self.w.idle_or_busy.values() for t in tasks)
        assert set(in_flight.values()) <= {1}
        assert set(self.w.ended.values()) <= {1}
        assert not set(in_flight) & set(self.w.ended)
        assert self.w.schedule.finished == (len(self.w.ended) == self.num_tasks)

    @invariant()
    def at_most_two_are_in_flight_on_an_actor(self) -> None:
        assert all(len(tasks) <= 2 for tasks in self.w.idle_or_busy.values())

    @invariant()
    def what_was_lost_beside_another_runs_alone_ever_after(self) -> None:
        for tasks in self.w.idle_or_busy.values():
            assert len(tasks) < 2 or not self.alone.intersection(task.task_id for task in tasks)

    def teardown(self) -> None:
        """From any state good behaviour leads to the end."""
        if not hasattr(self, "w"):
            return
        for _ in range(4 * self.num_tasks + 20):
            self.w.ready_all()
            for actor_id in self.busy():
                self.w.done(actor_id)
        assert self.w.schedule.finished


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
