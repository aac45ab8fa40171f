"""What Prometheus is told: a real node's metrics port, scraped as Prometheus would."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from cluster.launch import connect, disconnect
from cluster.metrics import Metrics
from cluster.pool import Pool
from cluster.task import Task

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("aiohttp_cors", "opencensus"))),
    reason='Ray serves metrics only with its extras: pip install "ray[default]"; `make test-extras` brings them',
)


@pytest.fixture
def ray_here() -> Iterator[None]:
    connect(num_cpus=1)
    yield
    disconnect()


def scrape() -> dict[tuple[str, str], float]:
    """Value by metric and stage, of our own."""
    import ray

    port = ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = re.findall(r'^ray_(value_harvest_\w+)\{[^}]*stage="(\w+)"[^}]*\} (\S+)$', text, re.MULTILINE)
    return {(name, stage): float(value) for name, stage, value in found}


def test_a_nodes_metrics_port_shows_what_two_stages_did(ray_here: None) -> None:
    def work(payload: str) -> None:
        if payload == "bad":
            raise ValueError(payload)

    with Pool(lambda place: work, 1, num_cpus=1) as pool:
        pool.run([Task("a", "good", 10), Task("b", "good", 20)], metrics=Metrics("value_harvest", "respond"))
        pool.run([Task("a", "good", 30), Task("b", "bad", 40)], metrics=Metrics("value_harvest", "capture"))
        wanted = {
            ("value_harvest_tasks_done_total", "respond"): 2,
            ("value_harvest_tokens_done_total", "respond"): 30,
            ("value_harvest_tasks_done_total", "capture"): 1,
            ("value_harvest_tokens_done_total", "capture"): 30,
            ("value_harvest_retries_total", "capture"): 2,
            ("value_harvest_quarantined_total", "capture"): 1,
            ("value_harvest_engines_alive", "respond"): 0,
            ("value_harvest_engines_alive", "capture"): 0,
        }
        end = time.monotonic() + 40
        found: dict[tuple[str, str], float] = {}
        while not wanted.items() <= found.items() and time.monotonic() < end:
            time.sleep(1)
            found = scrape()
        assert found.items() >= wanted.items()
