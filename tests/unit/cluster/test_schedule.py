"""The pool's decisions, with no Ray and no clock: a made-up world answers the schedule's instructions."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.events import (
    ActorLost,
    ActorPlaced,
    ActorReady,
    ActorUnbuilt,
    CallActor,
    Deliver,
    Drain,
    Event,
    GiveUp,
    Quarantine,
    RoomSeen,
    StartActor,
    StopActor,
    Submit,
    TaskDone,
    TaskFailed,
    TasksAdded,
    Tick,
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


def test_the_costliest_task_goes_first() -> None:
    w = world(2, 10, 60, 30, 50, 20, 40, 5, 5, 5, 5)
    w.ready_all()
    assert w.submitted == [(0, "t1"), (0, "t3"), (1, "t5"), (1, "t2")]
    w.done(1)
    assert w.submitted[-1] == (1, "t4")


def test_no_actor_is_given_a_second_task_beyond_its_share_of_the_work() -> None:
    w = world(2, 9, 8, 7, 1)
    w.ready_all()
    assert w.submitted == [(0, "t0"), (1, "t1")]


def test_near_the_end_a_task_waits_for_the_first_free_actor_even_one_that_still_starts() -> None:
    w = world(2, 9, 8)
    w.ready(0)
    assert w.running(0) == ["t0"]
    w.ready(1)
    assert w.running(1) == ["t1"]


def test_no_more_actors_start_than_there_are_tasks() -> None:
    assert len(world(8, 1, 1).starting) == 2
    assert world(8).starting == {}


def test_a_loss_with_two_in_flight_charges_neither_and_both_run_alone_afterwards() -> None:
    w = world(1, 3, 2, 1)
    w.ready_all()
    assert w.running(0) == ["t0", "t1"]
    w.lose(0)
    w.ready_all()
    for attempt in range(3):
        actor_id = min(w.idle_or_busy)
        assert w.running(actor_id) == ["t0"], attempt
        w.lose(actor_id)
        w.ready_all()
    assert w.quarantined == [Failure("t0", "killed", 3)]
    for alone in ("t1", "t2"):
        assert w.running(4) == [alone]
        w.done(4)
    assert w.schedule.finished
    assert w.ended == {"t0": 1, "t1": 1, "t2": 1}


def test_a_lost_machine_is_no_tasks_fault_until_it_happens_again_and_again() -> None:
    w = world(1, 1, policy=Policy(max_attempts=1, max_machines_lost=3, max_actor_restarts=0))
    for _ in range(3):
        w.ready_all()
        w.lose(min(w.idle_or_busy), with_machine=True)
        assert not w.quarantined
        assert w.given_up == ""
    w.ready_all()
    w.lose(min(w.idle_or_busy), with_machine=True)
    assert w.quarantined == [Failure("t0", "killed", 1)]


def test_the_two_in_flight_may_end_in_any_order() -> None:
    w = world(1, 3, 2, 1)
    w.ready_all()
    w.done(0, "t1")
    assert w.running(0) == ["t0", "t2"]
    w.done(0, "t2")
    w.done(0, "t0")
    assert w.schedule.finished


def test_a_task_that_must_be_alone_is_not_kept_waiting_for_the_end_of_the_queue() -> None:
    w = world(2, 9, 8, *[1] * 20)
    w.ready_all()
    (held,) = (actor for actor, tasks in w.idle_or_busy.items() if [t.task_id for t in tasks] == ["t0", "t1"])
    w.lose(held)
    w.ready_all()
    assert w.running(2) == ["t0"]
    while w.idle_or_busy[1]:
        w.done(1)
        if w.running(1) == ["t1"]:
            break
    assert w.submitted[-1] == (1, "t1")
    assert len(w.ended) <= 3


def test_a_retry_goes_to_another_actor() -> None:
    w = world(2, 3, 2)
    w.ready_all()
    w.fail(0)
    assert w.running(0) == []
    w.done(1)
    assert w.running(1) == ["t0"]


def test_an_exception_that_forbids_retries_ends_its_task_at_once() -> None:
    w = world(2, 1, 1)
    w.ready_all()
    w.fail(0, retryable=False)
    assert w.quarantined == [Failure("t0", "ValueError: no", 1)]


def test_an_actor_on_which_two_different_tasks_fail_is_replaced_before_it_spoils_the_queue() -> None:
    w = world(1, 3, 2, 1)
    w.ready_all()
    w.fail(0)
    w.fail(0)
    assert w.stopped == [0]
    assert w.quarantined == []
    w.ready_all()
    while not w.schedule.finished:
        w.done(1)
    assert w.ended == {"t0": 1, "t1": 1, "t2": 1}


def test_a_task_past_its_deadline_is_charged_and_its_actor_killed() -> None:
    w = world(1, 2, 1, policy=Policy(max_attempts=1, deadline_s=10))
    w.ready_all()
    w.now = 9
    w.tell(Tick())
    assert w.stopped == []
    w.now = 10.5
    w.tell(Tick())
    assert w.stopped == [0]
    assert w.quarantined == [Failure("t0", "it ran longer than its deadline of 10 s", 1)]
    w.now = 100
    w.ready_all()
    w.now = 105
    w.tell(Tick())
    w.done(1)
    assert w.ended == {"t0": 1, "t1": 1}


def test_a_waiting_tasks_deadline_counts_from_when_it_runs() -> None:
    w = world(1, 2, 1, policy=Policy(deadline_s=10))
    w.ready_all()
    w.now = 9
    w.done(0)
    w.now = 18
    w.tell(Tick())
    assert w.stopped == []


def test_the_one_that_was_first_is_past_its_deadline_however_many_go_by_beside_it() -> None:
    w = world(1, 9, *[1] * 9, policy=Policy(max_attempts=1, deadline_s=10))
    w.ready_all()
    for number in range(1, 6):
        w.now += 3
        w.tell(Tick())
        if w.stopped:
            break
        w.done(0, f"t{number}")
    assert w.stopped == [0]
    assert w.now == 12
    assert w.quarantined == [Failure("t0", "it ran longer than its deadline of 10 s", 1)]


def test_a_worker_that_is_never_built_is_given_up_at_the_deadline() -> None:
    w = world(1, 1, policy=Policy(deadline_s=10))
    w.tell(ActorPlaced(0))
    w.idle_or_busy[0] = []
    w.now = 11
    w.tell(Tick())
    assert w.stopped == [0]
    assert w.given_up == "building its worker: it ran longer than its deadline of 10 s"


def test_an_actor_that_no_machine_has_room_for_yet_has_no_deadline() -> None:
    w = world(1, 1, policy=Policy(deadline_s=10))
    w.now = 1000
    w.tell(Tick())
    assert w.starting == {0: 0}
    assert w.schedule.counts.unplaced == 1


def test_what_a_stopped_actor_still_sends_counts_for_nothing() -> None:
    w = world(1, 1, policy=Policy(deadline_s=1))
    w.ready_all()
    w.now = 5
    w.tell(Tick())
    w.tell(TaskDone(0, "t0"))
    assert w.ended == {}
    w.ready_all()
    w.done(1)
    assert w.ended == {"t0": 1}


def test_a_drained_run_finishes_what_runs_and_counts_what_it_leaves() -> None:
    w = world(2, *range(1, 11))
    w.ready_all()
    w.tell(Drain())
    in_flight = [actor for actor, tasks in w.idle_or_busy.items() for _ in tasks]
    assert w.schedule.left == 10 - len(in_flight)
    w.lose(in_flight.pop())
    while w.idle_or_busy[0]:
        w.done(0)
    assert w.schedule.finished
    assert w.starting == {}
    assert w.schedule.left + sum(w.ended.values()) == 10


def test_a_drain_drops_whole_what_does_not_end_in_time() -> None:
    w = world(2, *[1] * 10, policy=Policy(drain_s=30))
    w.ready_all()
    w.tell(Drain())
    w.now = 20
    w.tell(Drain())  # asking again gives no more time
    w.done(0)
    w.tell(Tick())
    assert not w.schedule.finished
    w.now = 31
    w.tell(Tick())
    assert w.schedule.finished
    assert sorted(w.stopped) == [0, 1]
    assert (w.schedule.left, w.ended) == (9, {"t0": 1})


def test_a_failure_that_ends_the_run_hands_out_nothing_more_and_lets_the_others_end() -> None:
    w = world(2, *[1] * 100)
    w.ready_all()
    w.fail(0, ends_run=True)
    assert w.schedule.ended_by == 0
    handed_out = len(w.submitted)
    for actor_id in (0, 1, 1):
        w.done(actor_id)
    assert w.schedule.finished
    assert len(w.submitted) == handed_out
    assert (w.schedule.counts.done, w.schedule.left, w.quarantined) == (3, 97, [])


def test_more_actors_start_as_far_as_machines_have_room() -> None:
    w = World(Schedule(2, Policy(), max_actors=5))
    w.tell(TasksAdded(tuple(Task(f"t{i}", None) for i in range(50))))
    assert len(w.starting) == 2
    w.tell(RoomSeen(4))
    assert len(w.starting) == 4
    w.tell(RoomSeen(100))
    assert len(w.starting) == 5
    w.ready_all()
    w.tell(RoomSeen(3))
    for _ in range(2):
        w.lose(min(w.idle_or_busy), with_machine=True)
    assert w.starting == {}, "there is no room for another"
    w.lose(min(w.idle_or_busy), with_machine=True)
    assert len(w.starting) == 1
    w.tell(RoomSeen(0))
    for _ in range(2):
        w.lose(min(w.idle_or_busy), with_machine=True)
    assert len(w.starting) == 2, "as many as were asked for always wait for a machine"


def test_a_place_that_is_used_up_is_not_made_good_by_one_to_grow_into() -> None:
    w = World(Schedule(2, Policy(max_actor_restarts=0), max_actors=4))
    w.tell(TasksAdded(tuple(Task(f"t{i}", None) for i in range(50))))
    w.ready_all()
    w.lose(0)
    assert w.starting == {}


def test_actors_stay_for_the_next_run_once_they_have_answered() -> None:
    w = world(2, 1, 1)
    w.ready_all()
    w.done(0)
    w.done(1)
    w.tell(TasksAdded((Task("u0", None), Task("u1", None))))
    assert w.called == {0, 1}
    assert w.starting == {}
    w.tell(ActorReady(0))
    assert w.running(0) == ["u0"]


def test_an_actor_that_died_between_runs_costs_no_task_an_attempt() -> None:
    w = world(1, 1, policy=Policy(max_attempts=1))
    w.ready_all()
    w.done(0)
    w.tell(TasksAdded((Task("u", None),)))
    w.lose(0)
    w.ready_all()
    w.done(1)
    assert w.quarantined == []
    assert w.schedule.finished


def test_a_worker_that_must_not_be_retried_ends_the_run_at_once() -> None:
    w = world(2, 1, 1)
    del w.starting[0]
    w.tell(ActorUnbuilt(0, "ModelError: no such folder", retryable=False))
    assert w.given_up == "ModelError: no such folder"


def test_the_run_ends_when_every_worker_failed_to_build_and_not_before() -> None:
    w = world(2, 1, 1)
    del w.starting[0]
    w.tell(ActorUnbuilt(0, "OSError: busy", retryable=True))
    assert w.given_up == ""
    del w.starting[1]
    w.tell(ActorUnbuilt(1, "OSError: busy", retryable=True))
    assert w.given_up == "OSError: busy"


def test_a_place_that_loses_actors_in_a_row_stays_empty_and_the_rest_goes_on() -> None:
    w = world(2, *[1] * 6, policy=Policy(max_actor_restarts=2))
    w.ready(0)
    for _ in range(3):
        actor_id = min(w.starting)
        del w.starting[actor_id]
        w.tell(ActorUnbuilt(actor_id, "OSError: broken GPU", retryable=True))
    assert w.starting == {}
    assert w.given_up == ""
    while not w.schedule.finished:
        w.done(0)


def test_with_no_place_left_the_run_is_given_up_with_the_last_reason() -> None:
    w = world(1, 1, policy=Policy(max_attempts=9, max_actor_restarts=1))
    for _ in range(2):
        w.ready_all()
        w.lose(min(w.idle_or_busy))
    assert w.given_up == "killed"


def test_a_repeated_task_id_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 3 tasks repeat"):
        Schedule(1, Policy()).handle(TasksAdded((Task("a", 0), Task("b", 0), Task("a", 0))), 0.0)


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
