"""A Ray cluster of the tests' own, on the loopback address, whose nodes can be killed one by one."""

from __future__ import annotations

import os
import secrets
from typing import Any

import psutil

from chaos.journal import is_alive, wait_until
from cluster.launch import PRIVATE

HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
# a node that is cut off is noticed in seconds


def open_environment() -> None:
    """What every process of the cluster must agree on, before Ray is imported."""
    os.environ.update(PRIVATE)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


class Machines:
    """A head with no CPU, where drivers live, and nodes with one CPU each."""

    def __init__(self, num_nodes: int) -> None:
        open_environment()
        from ray.cluster_utils import Cluster

        system = {**HEALTH, "process_group_cleanup_enabled": True}
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": system})
        self.address = str(self._cluster.address)
        self.nodes: list[Any] = [self.add() for _ in range(num_nodes)]

    def add(self) -> Any:
        """Another node, once the cluster knows it."""
        return self._cluster.add_node(num_cpus=1)

    @staticmethod
    def raylet(node: Any) -> int:
        """The pid of a node's raylet, which is its workers' parent."""
        return int(node.all_processes["raylet"][0].process.pid)

    @staticmethod
    def kill_raylet(node: Any) -> None:
        """SIGKILL; it is reaped at once, because workers ask whether its pid exists."""
        process = node.all_processes["raylet"][0].process
        process.kill()
        process.wait()

    def replace(self, node: Any) -> None:
        """Removes what is left of a node, and adds another."""
        self.nodes.remove(node)
        if node in self._cluster.worker_nodes:
            self._cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self.add())

    def remove(self, node: Any) -> None:
        """All of a node's processes, killed at once."""
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self) -> None:
        """Ends every process of the cluster."""
        family = psutil.Process().children(recursive=True)
        self._cluster.shutdown()
        wait_until(lambda: not any(is_alive(child.pid) for child in family if "ray" in name(child)), 30, "Ray is gone")


def name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""
