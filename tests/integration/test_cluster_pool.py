"""The pool on a real private Ray, with workers that misbehave on purpose."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pooled import CPUS, gone, run, wait_until, worker_in

from cluster.errors import ClusterError, PlacementImpossible, RunEnded, SetupFailed
from cluster.launch import connect, disconnect
from cluster.policy import Policy
from cluster.pool import Pool
from cluster.task import Failure, Outcome, Result, Task
from harvest.errors import StoreError


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    connect(num_cpus=2)
    connect(num_cpus=2)  # a second call does nothing
    yield
    disconnect()
    disconnect()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pool")


@pytest.fixture(scope="module")
def pool(ray_here: None, folder: Path) -> Iterator[Pool]:
    with Pool(worker_in(folder), 2, num_cpus=CPUS, env={"POOL_TEST": "here"}) as made:
        assert not made.started
        yield made


def test_every_task_is_delivered_once_and_the_next_run_uses_the_same_actors(pool: Pool) -> None:
    outcome, results = run(pool, *(Task(f"t{i}", ("add_one", i), cost=i) for i in range(100)))
    assert outcome == Outcome(done=100, failures=())
    assert {task_id: result.value for task_id, result in results.items()} == {f"t{i}": i + 1 for i in range(100)}
    assert pool.started
    runs = [run(pool, *(Task(f"w{i}", ("who", None)) for i in range(4)))[1] for _ in range(2)]
    seen = [{result.value for result in results.values()} for results in runs]
    assert seen[0] == seen[1]
    assert {place for _, place, _ in seen[0]} == {0, 1}
    assert {value for _, _, value in seen[0]} == {"here"}  # the environment of the pool


def test_no_tasks_start_nothing(folder: Path) -> None:
    with Pool(worker_in(folder), 2, num_cpus=CPUS) as idle:
        assert idle.run([]) == Outcome(0, ())
        assert not idle.started


def test_a_task_whose_actor_is_killed_completes_on_another(pool: Pool) -> None:
    tasks = [Task("unlucky", ("die_once", "m"), cost=9), *(Task(f"t{i}", ("add_one", i)) for i in range(20))]
    outcome, results = run(pool, *tasks)
    assert outcome == Outcome(done=21, failures=())
    assert results["unlucky"].value == "second time"


def test_a_task_that_always_kills_its_actor_is_quarantined_and_the_rest_completes(pool: Pool) -> None:
    outcome, results = run(
        pool, Task("poison", ("die", None), cost=9), *(Task(f"t{i}", ("add_one", i)) for i in range(20))
    )
    assert (outcome.done, len(results)) == (20, 20)
    (failure,) = outcome.failures  # and not those that were in flight beside it
    assert (failure.task_id, failure.attempts) == ("poison", 3)
    assert "was lost: The actor died unexpectedly" in failure.reason


def test_an_exception_is_tried_three_times_and_told(folder: Path) -> None:
    with Pool(worker_in(folder), 1, num_cpus=CPUS) as alone:
        outcome, _ = run(alone, Task("bad", ("fail", "row 7 is empty")), Task("good", ("add_one", 1)))
    assert outcome == Outcome(done=1, failures=(Failure("bad", "ValueError: row 7 is empty", 3),))
    assert (folder / "row 7 is empty").read_text() == "xxx"


def test_where_there_are_two_actors_a_task_has_failed_on_both_before_it_is_given_up(pool: Pool, folder: Path) -> None:
    outcome, _ = run(pool, Task("bad", ("fail", "row 8 is empty")), Task("good", ("add_one", 1)))
    (failure,) = outcome.failures
    # a fourth attempt is right where the second actor was still being built during the first three
    assert failure.attempts in (3, 4)
    assert (folder / "row 8 is empty").read_text() == "x" * failure.attempts


def test_an_exception_that_forbids_it_is_not_tried_again(pool: Pool, folder: Path) -> None:
    outcome, _ = run(pool, Task("bad", ("refuse", "a NaN")))
    assert outcome.failures == (Failure("bad", "NoWeightsError: a NaN", 1),)
    assert (folder / "a NaN").read_text() == "x"


def test_a_value_that_cannot_travel_is_a_failure_of_its_task_alone(pool: Pool) -> None:
    outcome, _ = run(pool, Task("lock", ("lock", None)), Task("good", ("add_one", 1)))
    assert outcome.done == 1
    (failure,) = outcome.failures
    assert (failure.task_id, failure.attempts) == ("lock", 1)
    assert "pickle" in failure.reason


def test_a_lost_actors_children_go_with_it(pool: Pool, folder: Path) -> None:
    run(pool, Task("breed", ("breed", None)))
    child = int((folder / "child").read_text())
    assert wait_until(lambda: gone(child), 10)


def test_a_drained_run_returns_with_what_it_left_and_the_next_one_goes_on(pool: Pool) -> None:
    outcome = pool.run([Task(f"t{i}", ("sleep", 0.05)) for i in range(40)], lambda result: pool.drain())
    assert outcome.drained
    assert 1 <= outcome.done <= 6
    assert outcome.done + outcome.left == 40
    assert run(pool, Task("t", ("add_one", 1)))[0].done == 1


def test_two_tasks_overlap_in_one_actor_and_the_second_may_end_first(folder: Path) -> None:
    tasks = [Task("long", ("sleep", 2.0), cost=3), *(Task(f"t{i}", ("sleep", 0.01), cost=1) for i in range(8))]
    with Pool(worker_in(folder), 1, num_cpus=CPUS) as alone:
        outcome, results = run(alone, *tasks)
    assert outcome.done == 9
    assert list(results)[-1] == "long", "what stood behind it was not held up by it"


def test_a_store_that_is_full_ends_the_run_with_its_own_error_and_what_ran_is_delivered_or_told(folder: Path) -> None:
    tasks = [Task("full", ("fill_up", "no space left"), cost=9), *(Task(f"t{i}", ("sleep", 0.2)) for i in range(200))]
    results: list[Result] = []
    pool = Pool(worker_in(folder), 2, num_cpus=CPUS)
    given_up: list[Failure] = []
    with pytest.raises(RunEnded, match="the run was ended by StoreError: no space left") as caught:
        pool.run([Task("bad", ("refuse", "given-up"), cost=10), *tasks], results.append, on_failure=given_up.append)
    assert [failure.task_id for failure in given_up] == ["bad"]
    assert type(caught.value.__cause__) is StoreError
    assert len(results) <= 6
    assert not pool.started


def test_a_result_costs_the_driver_little(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    del pool  # it only keeps Ray warm
    with Pool(lambda place: lambda payload: payload, 20, num_cpus=0.01) as wide:
        wide.run([Task(f"w{i}", i) for i in range(200)])
        began = time.process_time()
        outcome = wide.run([Task(f"t{i}", i) for i in range(2000)])
        cpu_ms = (time.process_time() - began) / 2000 * 1000
    assert outcome.done == 2000
    with capsys.disabled():
        print(f"\n    {cpu_ms:.2f} ms of the driver's CPU a task, with 20 actors")
    assert cpu_ms < 2


def test_what_on_result_raises_reaches_the_caller_with_the_actors_killed(folder: Path) -> None:
    pids: list[int] = []

    def full(result: Result) -> None:
        pids.append(result.value[0])
        raise OSError("no space left")

    doomed = Pool(worker_in(folder), 1, num_cpus=CPUS)
    with pytest.raises(OSError, match="no space left"):
        doomed.run([Task("a", ("who", None)), Task("b", ("sleep", 60))], full)
    assert not doomed.started
    assert wait_until(lambda: gone(pids[0]), 10)


def test_a_task_past_its_deadline_is_given_up(folder: Path) -> None:
    with Pool(worker_in(folder), 1, num_cpus=CPUS, policy=Policy(max_attempts=1, deadline_s=1.0)) as strict:
        outcome, _ = run(strict, Task("slow", ("sleep", 60), cost=9), Task("quick", ("add_one", 1)))
    assert outcome == Outcome(done=1, failures=(Failure("slow", "it ran longer than its deadline of 1 s", 1),))
    assert (folder / "closed-0").exists()  # the worker was closed when the pool was


def test_a_worker_that_cannot_be_built_is_one_sentence_with_its_cause() -> None:
    def make(place: int) -> Any:
        raise FileNotFoundError("model demo/: no config.json")

    with (
        Pool(make, 2, num_cpus=CPUS) as broken,
        pytest.raises(
            SetupFailed, match=r"could not be built: FileNotFoundError: model demo/: no config.json"
        ) as caught,
    ):
        broken.run([Task("a", None), Task("b", None)])
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_worker_that_kills_its_process_while_it_is_built_is_a_failed_setup() -> None:
    def make(place: int) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    with Pool(make, 1, num_cpus=CPUS) as broken, pytest.raises(SetupFailed, match="died unexpectedly"):
        broken.run([Task("a", None)])


def test_a_pool_that_does_not_fit_says_what_it_lacks(folder: Path) -> None:
    with (
        Pool(worker_in(folder), 3, num_cpus=1) as wide,
        pytest.raises(PlacementImpossible, match=r"room for 2; .* add 1 CPUs"),
    ):
        wide.run([Task("a", 1)])


def test_another_address_is_refused_while_connected() -> None:
    with pytest.raises(ClusterError, match="connected to a private Ray already"):
        connect("127.0.0.1:6379")


def test_ray_listens_on_the_loopback_address_alone() -> None:
    import psutil

    me = psutil.Process()
    family = [me, *me.children(recursive=True)]
    addresses = Counter(
        connection.laddr.ip
        for process in family
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    )
    assert addresses
    assert set(addresses) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
