"""Machines that join a cluster and die, on a real Ray of several nodes."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pooled import worker_in
from rich.console import Console

from cluster import pool as pool_module
from cluster.launch import connect, disconnect
from cluster.policy import Policy
from cluster.pool import Pool
from cluster.progress import Progress
from cluster.task import Result, Task

NOBODY_MAY_FAIL = Policy(max_attempts=1, max_actor_restarts=0)
MANY = 5000


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head with one CPU, to which nodes may be added."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    connect(made.address)
    yield made
    disconnect()
    made.shutdown()


def test_machines_that_die_cost_no_task_an_attempt_and_those_that_join_are_used(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One dies, the other goes on alone and says what is waited for; then a larger one joins, and the pool grows."""
    monkeypatch.setattr(pool_module, "_PATIENCE_S", 1.0)
    victim = cluster.add_node(num_cpus=1)
    heard: list[dict[str, Any]] = []
    done: set[str] = set()
    by_actor: dict[int, int] = {}
    since_death = at_death = 0
    waited: list[str] = []
    steps = ["both work"]

    def keep(result: Result) -> None:
        nonlocal since_death, at_death
        assert result.task_id not in done, "delivered twice"
        done.add(result.task_id)
        by_actor[result.actor_id] = by_actor.get(result.actor_id, 0) + 1
        if steps[-1] == "both work" and len(by_actor) == 2:
            cluster.remove_node(victim, allow_graceful=False)
            steps.append("one died")
            at_death = len(heard)
        elif steps[-1] == "one died":
            since_death += 1
            waited.extend(line["waiting_for"] for line in heard[at_death:] if "waiting_for" in line)
            if waited:
                cluster.add_node(num_cpus=2)
                steps.append("another joined")
        elif steps[-1] == "another joined" and heard[-1]["engines"] == 3 and len(by_actor) >= 4:
            steps.append("three work")
            pool.drain()

    progress = Progress("x", Console(file=StringIO()), every_s=0.2, listener=heard.append)
    with Pool(worker_in(tmp_path), 2, max_actors=3, num_cpus=1, policy=NOBODY_MAY_FAIL) as pool:
        began = time.monotonic()
        outcome = pool.run([Task(f"t{i}", ("sleep", 0.05)) for i in range(MANY)], keep, progress)
        assert time.monotonic() - began < 120
    assert steps == ["both work", "one died", "another joined", "three work"]
    assert since_death > 0, "the living machine stood still"
    assert waited[0] == "room for 1 actor(s) of 1 CPUs and 0 GPUs each"
    assert outcome.failures == ()
    assert outcome.done == len(done)
    assert outcome.done + outcome.left == MANY
    assert heard[-1]["retries"] == 0
