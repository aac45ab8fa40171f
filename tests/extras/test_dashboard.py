"""Ray's dashboard, where somebody asks for it: open to this machine alone."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from importlib.util import find_spec

import psutil
import pytest

from cluster.launch import connect, disconnect

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("aiohttp_cors", "opencensus"))),
    reason='the dashboard needs Ray\'s extras: pip install "ray[default]"; `make test-extras` brings them',
)


def listeners(port: int) -> set[str]:
    family = psutil.Process().children(recursive=True)
    found = [each for process in family for each in process.net_connections("inet")]
    return {each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN and each.laddr.port == port}


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError:
        return 0


def test_a_dashboard_listens_on_the_loopback_address_and_its_api_asks_for_the_token() -> None:
    import ray

    connect(num_cpus=1, dashboard_host="127.0.0.1")
    try:
        address = ray._private.worker.global_worker.node.address_info["webui_url"]
        host, _, port = address.rpartition(":")
        end = time.monotonic() + 60
        while status_of(f"http://{address}/") == 0 and time.monotonic() < end:
            time.sleep(0.5)
        assert host == "127.0.0.1"
        assert status_of(f"http://{address}/") == 200
        assert status_of(f"http://{address}/api/jobs/") == 401
        assert listeners(int(port)) == {"127.0.0.1"}
    finally:
        disconnect()
