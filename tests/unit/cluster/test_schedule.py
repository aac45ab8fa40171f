"""What the pool hands out to whom, and when; no Ray, no clock."""

from __future__ import annotations

import pytest
from scheduled import World, world

from cluster.events import ActorReady, Drain, RoomSeen, TasksAdded, Tick
from cluster.policy import Policy
from cluster.schedule import Schedule
from cluster.task import Task


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


def test_a_repeated_task_id_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 3 tasks repeat"):
        Schedule(1, Policy()).handle(TasksAdded((Task("a", 0), Task("b", 0), Task("a", 0))), 0.0)
