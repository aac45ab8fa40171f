"""What the pool does about failures, losses and tasks that take too long; no Ray, no clock."""

from __future__ import annotations

from scheduled import World, world

from cluster.events import ActorLost, ActorPlaced, ActorUnbuilt, TaskDone, TasksAdded, Tick
from cluster.policy import Policy
from cluster.schedule import Schedule
from cluster.task import Failure, Task


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


def test_a_place_that_is_used_up_is_not_made_good_by_one_to_grow_into() -> None:
    w = World(Schedule(2, Policy(max_actor_restarts=0), max_actors=4))
    w.tell(TasksAdded(tuple(Task(f"t{i}", None) for i in range(50))))
    w.ready_all()
    w.lose(0)
    assert w.starting == {}
    w.lose(1)
    assert list(w.starting.values()) == [2], "the last one is, as long as there is any place"
    w.ready_all()
    w.lose(2)
    w.ready_all()
    assert w.given_up == ""
    w.lose(3)
    assert w.given_up == "killed"


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


def test_one_late_bad_machine_costs_its_place_and_not_the_run() -> None:
    w = world(2, *[1] * 6)
    w.ready(0)
    del w.starting[1]
    w.tell(ActorUnbuilt(1, "WrongNode: no vLLM", retryable=False))
    assert w.given_up == ""
    assert w.starting == {}, "it would not be built there the next time either"
    while not w.schedule.finished:
        w.done(0)
    assert len(w.ended) == 6


def test_bad_machines_alone_end_a_run_whose_good_one_is_lost() -> None:
    w = world(2, *[1] * 6)
    w.ready(0)
    del w.starting[1]
    w.tell(ActorUnbuilt(1, "WrongNode: no vLLM", retryable=False))
    w.lose(0)
    assert w.given_up == ""
    actor_id, _ = w.starting.popitem()
    w.tell(ActorUnbuilt(actor_id, "WrongNode: no vLLM here", retryable=False))
    assert w.given_up == "WrongNode: no vLLM here"


def test_the_run_ends_when_every_worker_failed_to_build_and_not_before() -> None:
    w = world(2, 1, 1)
    del w.starting[0]
    w.tell(ActorUnbuilt(0, "OSError: busy", retryable=True))
    assert w.given_up == ""
    del w.starting[1]
    w.tell(ActorUnbuilt(1, "OSError: busy", retryable=True))
    assert w.given_up == "OSError: busy"


def fail_building(w: World, actor_id: int) -> None:
    del w.starting[actor_id]
    w.tell(ActorPlaced(actor_id))
    w.tell(ActorUnbuilt(actor_id, "RuntimeError: no CUDA", retryable=True))


def test_why_no_worker_was_built_is_told_though_another_waits_for_a_machine() -> None:
    w = world(2, 1, 1, policy=Policy(max_actor_restarts=2))
    for actor_id in (0, 2, 3):
        assert w.given_up == ""
        fail_building(w, actor_id)
    assert w.given_up == "RuntimeError: no CUDA"


def test_why_no_worker_was_built_is_told_though_the_last_machine_was_lost() -> None:
    w = world(2, 1, 1, policy=Policy(max_actor_restarts=0))
    w.tell(ActorPlaced(1))
    fail_building(w, 0)
    assert w.given_up == "", "the other may yet be built"
    del w.starting[1]
    w.tell(ActorLost(1, "the node has died", with_machine=True))
    assert w.given_up == "RuntimeError: no CUDA"


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
