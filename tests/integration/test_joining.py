"""Joining clusters of other processes: with a token, without one, and open ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.exposure import is_loopback
from cluster.launch import connect

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef0123456789abcdef"
HEAD = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
DRIVER = """
import sys
from cluster.errors import ClusterError
from cluster.launch import connect, disconnect
from cluster.pool import Pool
from cluster.task import Task
try:
    connect(sys.argv[1])
    with Pool(lambda place: lambda payload: payload, 1, num_cpus=0.1) as pool:
        print(pool.run([Task("a", 1)]).done, "done")
    disconnect()
except ClusterError as error:
    print(error)
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's without any token of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listens on the loopback address alone
        "RAY_NUM_REDIS_GET_RETRIES": "1",
        **more,
    }


@contextmanager
def cluster(home: Path, **more: str) -> Iterator[str]:
    """The address of a cluster that another process runs."""
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD],
        env=environment(home, **more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert head.stdout is not None
        yield head.stdout.readline().strip()
    finally:
        head.communicate(timeout=60)


def join(address: str, home: Path, **more: str) -> tuple[str, str]:
    """What a driver of its own says on stdout and on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, address],
        env=environment(home, **more),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.strip(), done.stderr.strip()


def test_a_cluster_with_a_token_lets_in_who_has_it_in_a_file_and_nobody_else(tmp_path: Path) -> None:
    owner, stranger = tmp_path / "owner", tmp_path / "stranger"
    for home in (owner, stranger):
        (home / ".ray").mkdir(parents=True)
    (owner / ".ray" / "auth_token").write_text(TOKEN)
    with cluster(owner, RAY_AUTH_MODE="token") as address:
        assert join(address, owner) == ("1 done", "")
        refused, _ = join(address, stranger)
        assert f"no Ray cluster answers at {address} and lets in who brings no token" in refused
        refused, _ = join(address, stranger, RAY_AUTH_MODE="token")
        assert (
            f"{address}: RAY_AUTH_MODE is token and there is none; put the cluster's token in RAY_AUTH_TOKEN" in refused
        )


def test_a_cluster_without_a_token_is_said_to_be_open_in_one_line_and_refused_to_who_asks_for_one(
    tmp_path: Path,
) -> None:
    with cluster(tmp_path, RAY_AUTH_MODE="disabled") as address:
        done, warned = join(address, tmp_path)
        assert done == "1 done"
        (line,) = warned.splitlines()
        assert line.startswith(f"warning: {address}: the Ray cluster asks for no token; without one, whoever")
        assert "RAY_AUTH_MODE=token" in line
        refused, _ = join(address, tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
        assert f"{address}: the Ray cluster asks for no token, and this process does" in refused


def test_ray_clients_address_is_refused_with_the_way_out() -> None:
    with pytest.raises(ClusterError, match=r"ray://head:10001: is Ray Client's .* with the address auto"):
        connect("ray://head:10001")


def test_a_dashboard_that_is_not_installed_is_refused_with_the_remedy() -> None:
    from ray._private.utils import get_dashboard_dependency_error

    if get_dashboard_dependency_error() is None:
        pytest.skip("ray[default] is installed")
    with pytest.raises(ClusterError, match=r'cluster.dashboard: .* run `pip install "ray\[default\]==2\.'):
        connect(num_cpus=1, dashboard_host="127.0.0.1")


@pytest.mark.parametrize(
    ("address", "only_here"),
    [("127.0.0.1:8265", True), ("[::1]:8265", True), ("localhost:8265", True), ("10.0.0.7:8265", False)],
)
def test_a_dashboard_that_others_reach_is_told_apart(address: str, only_here: bool) -> None:
    assert is_loopback(address) == only_here
