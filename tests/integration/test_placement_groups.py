"""Actors in several parts on a real Ray cluster of four nodes, whose GPUs are made up: Ray believes what it is told."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import PlacementImpossible
from cluster.launch import connect, disconnect
from cluster.placement import Node
from cluster.pool import Pool
from cluster.seats import machines
from cluster.task import Outcome, Task

TWO_PARTS: dict[str, Any] = {"num_cpus": 0.4, "num_gpus": 4, "num_parts": 2}
# of two GPUs, as many as a node has


class Nodes:
    """A head without GPUs and three nodes with two each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
        head = {"num_cpus": 1, "node_name": "head", "include_dashboard": False, "_system_config": quick}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: dict[str, Any] = {}
        for name in "abc":
            self.add(name)

    def add(self, name: str) -> None:
        self.nodes[name] = self.cluster.add_node(num_cpus=1, num_gpus=2, node_name=name, wait=False)

    def kill(self, name: str) -> None:
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    made = Nodes()
    try:
        connect(made.cluster.address)
        yield made
    finally:
        disconnect()
        made.cluster.shutdown()


def free_gpus() -> dict[str, float]:
    """The GPUs that nobody has taken, by node."""
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    return {node.name: free[node.node_id].get("GPU", 0.0) for node in machines() if node.num_gpus}


def wait_until(happened: Callable[[], bool], limit_s: float = 30) -> None:
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


def worker(folder: Path) -> Callable[[int], Callable[[str], Any]]:
    """Looks about where vLLM would: in a thread of its own, for the group of the actor that it runs in."""

    def make(place: int) -> Callable[[str], Any]:
        def look() -> tuple[list[str], str, int]:
            import ray
            from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

            group = ray.util.get_current_placement_group()
            name_of = {node["NodeID"]: node["NodeName"] for node in ray.nodes()}

            @ray.remote(num_cpus=0, num_gpus=1)
            class Rank:
                def where(self) -> str:
                    return str(ray.get_runtime_context().get_node_id())

            ranks = [
                Rank.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, index)).remote()
                for index in range(len(group.bundle_specs))
            ]
            where = [name_of[node_id] for node_id in ray.get([rank.where.remote() for rank in ranks])]
            return where, name_of[ray.get_runtime_context().get_node_id()], len(ranks)

        def work(order: str) -> Any:
            with ThreadPoolExecutor(1) as thread:
                found = thread.submit(look).result()
            if order == "hold once" and not (folder / "held").exists():
                (folder / "held").write_text(" ".join(found[0]))
                time.sleep(300)
            return found

        return work

    return make


def run(pool: Pool, *tasks: Task) -> tuple[Outcome, list[Any]]:
    values: list[Any] = []
    outcome = pool.run(tasks, lambda result: values.append(result.value))
    return outcome, values


def test_each_part_lies_on_one_node_and_ranks_find_their_group_from_any_thread(nodes: Nodes, tmp_path: Path) -> None:
    with Pool(worker(tmp_path), 1, **TWO_PARTS) as pool:
        outcome, [(where, home, num_ranks)] = run(pool, Task("a", "look"))
        assert outcome == Outcome(1, ())
        assert num_ranks == 4
        assert where[0] == where[1] == home
        assert where[2] == where[3] != home
        assert sorted(free_gpus().values()) == [0, 0, 2]
    wait_until(lambda: sorted(free_gpus().values()) == [2, 2, 2])


def test_small_engines_share_a_gpu_and_a_fifth_quarter_goes_to_the_next(nodes: Nodes, tmp_path: Path) -> None:
    quarter = {"num_cpus": 0.1, "num_gpus": 0.25}

    def make(place: int) -> Callable[[str], tuple[str, str]]:
        def where(_: str) -> tuple[str, str]:
            import ray

            time.sleep(1)
            context = ray.get_runtime_context()
            return str(context.get_node_id()), context.get_accelerator_ids()["GPU"][0]

        return where

    with Pool(make, 5, **quarter) as pool:
        _, values = run(pool, *(Task(f"t{i}", "") for i in range(15)))
    counts = [values.count(gpu) for gpu in set(values)]
    assert sum(counts) == 15
    assert 2 <= len(counts) <= 5
    with Pool(make, 25, **quarter) as pool, pytest.raises(PlacementImpossible, match=r"room for 24; ask for 1 fewer"):
        run(pool, Task("a", ""))


@pytest.mark.timeout(150)
def test_an_actor_whose_node_dies_waits_for_nodes_and_is_seated_anew_with_a_whole_group(
    nodes: Nodes, tmp_path: Path
) -> None:
    import ray

    held = tmp_path / "held"
    with ThreadPoolExecutor(1) as thread, Pool(worker(tmp_path), 1, **TWO_PARTS) as pool:
        running = thread.submit(run, pool, Task("a", "hold once"))
        try:
            wait_until(lambda: held.exists() and len(held.read_text().split()) == 4)
            part, spare = held.read_text().split()[2], ({"a", "b", "c"} - set(held.read_text().split())).pop()
            nodes.kill(part)
            nodes.kill(spare)
            wait_until(lambda: len(machines()) == 2)
            time.sleep(3)  # one node is left, which holds one part
            nodes.add(spare)
            outcome, [(where, _, _)] = running.result(60)
        finally:
            pool.drain()
        assert outcome == Outcome(1, ())
        assert where[0] == where[1] != where[2] == where[3]
        assert set(where) == {"a", "b", "c"} - {part}
        states = [group["state"] for group in ray.util.placement_group_table().values()]
        assert states.count("CREATED") == 1
        assert set(states) == {"CREATED", "REMOVED"}, "a partial group was left behind"
    nodes.add(part)
    wait_until(lambda: sorted(free_gpus().values()) == [2, 2, 2])


def test_what_does_not_fit_names_every_node(nodes: Nodes, tmp_path: Path) -> None:
    wait_until(lambda: len(free_gpus()) == 3)
    with (
        Pool(worker(tmp_path), 2, **TWO_PARTS) as pool,
        pytest.raises(PlacementImpossible, match=r"a \(1 CPUs, 2 GPUs\) holds 1 parts.*room for 1; .* add 0.2 CPUs"),
    ):
        run(pool, Task("a", "look"))


def test_the_nodes_are_known_by_their_names(nodes: Nodes) -> None:
    wait_until(lambda: len(machines()) == 4)
    assert sorted((node.name, node.num_cpus, node.num_gpus) for node in machines()) == [
        ("a", 1, 2),
        ("b", 1, 2),
        ("c", 1, 2),
        ("head", 1, 0),
    ]
    assert all(isinstance(node, Node) and node.node_id for node in machines())
