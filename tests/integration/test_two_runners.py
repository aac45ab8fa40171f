"""On real engines, every step's tokens are told with the positions that the runner itself forwards."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
LENGTHS = [20, 70, 33, 60]
# longer than a step of 48 tokens, and with their answers more than the eight blocks of 32 hold


@cache
def watched(checkpoint: Path, runner: str, scheduling: str) -> Any:
    """What an engine of that kind was seen doing in each round; fails if a position is not the runner's own."""
    if runner == "v2" and importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed, and the V2 runner's kernels are Triton's")
    paths = [str(PROJECT), str(PROJECT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, PROJECT / "tests" / "watched.py", checkpoint, runner, scheduling, json.dumps(LENGTHS)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "VLLM_LOGGING_LEVEL": "ERROR"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rounds = json.loads(done.stdout.splitlines()[-1])
    assert {found["runner"] for found in rounds.values()} == {runner}
    return rounds


def positions(found: Any, key: int) -> list[int]:
    """All positions that a request was forwarded at, in order."""
    return [
        position
        for step in found["steps"]
        for owner, start, length in step
        if owner == key
        for position in range(start, start + length)
    ]


kinds = pytest.mark.parametrize(
    ("runner", "scheduling"), [("v1", "sync"), ("v1", "async"), ("v2", "sync"), ("v2", "async")]
)


@kinds
def test_each_position_is_told_once_and_dummy_runs_are_not(tiny_llama: Path, runner: str, scheduling: str):
    found = watched(tiny_llama, runner, scheduling)["prefilled"]
    assert [positions(found, key) for key in range(4)] == [list(range(length)) for length in LENGTHS]
    assert found["after"] == len(found["steps"])
    assert max(sum(length for _, _, length in step) for step in found["steps"]) <= 48


@kinds
def test_a_preempted_request_is_told_from_its_start_again(tiny_llama: Path, runner: str, scheduling: str):
    found = watched(tiny_llama, runner, scheduling)["answered"]
    assert found["preempted"]
    for key, length in enumerate(LENGTHS):
        seen = positions(found, key)
        # the last sampled token is never forwarded: the scheduler foresees the end
        assert sorted(set(seen)) == list(range(length + 40 - 1))
        assert (seen.count(0) > 1) == (key in found["preempted"])


@kinds
def test_async_scheduling_forwards_the_last_token_of_an_answer_that_stopped(
    tiny_llama: Path, runner: str, scheduling: str
):
    rounds = watched(tiny_llama, runner, scheduling)
    free, answer = rounds["answered"]["answers"][0], rounds["stopped"]["answers"][0]
    assert answer == free[: len(answer)]
    assert len(answer) <= 4
    surplus = 1 if scheduling == "async" else 0
    seen = positions(rounds["stopped"], 0)
    assert seen == list(range(LENGTHS[0] + len(answer) - 1 + surplus))
