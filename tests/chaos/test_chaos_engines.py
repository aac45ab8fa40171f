"""The same disasters with real vLLM engines, through the command line."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from chaos.drives import check_kept, environment
from chaos.journal import is_alive, wait_until
from chaos.table import Row, is_full, scaled

OPEN_S = 1200.0
# for an engine on a machine that others use too

pytestmark = pytest.mark.skipif(not is_full(), reason="engines take minutes to open and die; `make chaos` kills them")


def value_harvest(*words: object) -> list[str]:
    return [sys.executable, "-m", "value_harvest", *map(str, words)]


def run(*words: object) -> str:
    """A command to its end; what it said on stderr."""
    done = subprocess.run(value_harvest(*words), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr


class Capture:
    """A study of the demo checkpoint whose answers are there, and whose capture is to be disturbed."""

    def __init__(self, folder: Path, model: Path, answers: Path | None) -> None:
        self.out, self.study = folder / "run", folder / "study.yaml"
        if answers is not None:
            shutil.copytree(answers, self.out / "store")
        settings = {
            "out": str(self.out),
            "model": {"path": str(model), "dtype": "float32"},
            "benchmarks": [{"path": "builtin:c_voice.zh"}],
            "respond": {"max_tokens": 60},
            "cluster": {"engines": 2},
        }
        folder.mkdir(exist_ok=True)
        self.study.write_text(yaml.safe_dump(settings))
        run("respond", self.study)

    def commits(self) -> dict[str, bytes]:
        """Of what is captured, not of the answers."""
        paths = (self.out / "store").glob("commits/*.json")
        return {path.name: path.read_bytes() for path in paths if not path.name.startswith("answers-")}

    def hashes(self) -> dict[str, Any]:
        told = json.loads((self.out / "capture.json").read_text())
        return {name: told[name] for name in ("merged_sha256", "rows_sha256")}

    def begin(self) -> subprocess.Popen[bytes]:
        """The capture as a process of its own; its stderr goes to a file."""
        with (self.out / "capture.log").open("w") as stderr:
            return subprocess.Popen(value_harvest("capture", self.study), env=environment(), stderr=stderr)

    def progress(self, process: subprocess.Popen[bytes], before: dict[str, bytes]) -> dict[str, bytes]:
        """The commits, as soon as there are more of them and an engine is at work."""

        def moved() -> bool:
            assert process.poll() is None, "the capture ended before it could be disturbed"
            return len(self.commits()) > len(before) and bool(engines_of(process.pid))

        wait_until(moved, OPEN_S, "progress", 0.002)
        return self.commits()

    def missing_blocks(self, committed: dict[str, bytes]) -> int:
        plan = json.loads((self.out / "plan.json").read_text())["plan"]
        blocks = json.loads((self.out / "store/plans" / f"{plan}.json").read_text())["blocks"]
        return sum(not {f"{unit}.json" for unit in block["units"].values()} <= committed.keys() for block in blocks)


def engines_of(driver: int) -> list[int]:
    """The pids of a driver's actors."""
    actors = []
    for child in psutil.Process(driver).children(recursive=True):
        try:
            words = child.cmdline()
        except psutil.NoSuchProcess:
            continue
        if words and words[0].startswith("ray::Runner"):
            actors.append(child.pid)
    return actors


def wait_gone(pids: list[int]) -> None:
    assert pids
    wait_until(lambda: not any(map(is_alive, pids)), 60, "the engines are gone")


def num_tasks(stderr: str) -> int:
    """Of the capture that told of itself, as JSON or as a line."""
    told = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    totals = [one["total"] for one in told if one.get("stage") == "capture"]
    totals += [int(total) for total in re.findall(r"capture \d+/(\d+) tasks", stderr)]
    return int(totals[-1])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """The model, a store that holds nothing but answers, and the hashes of a capture that nobody disturbs."""
    folder = tmp_path_factory.mktemp("engines")
    run("demo-model", folder / "model")
    calm = Capture(folder / "calm", folder / "model", None)
    shutil.copytree(calm.out / "store", folder / "answers")
    run("capture", calm.study)
    return folder / "model", folder / "answers", calm.hashes()


def test_killed_engines_change_no_number(
    row: Callable[[str, str], Row], dice: random.Random, undisturbed: Any, tmp_path: Path
) -> None:
    line = row("SIGKILL vLLM engines in a capture", "identical, nothing lost")
    model, answers, hashes = undisturbed
    capture = Capture(tmp_path / "engines", model, answers)
    victims: list[int] = []
    process, before = capture.begin(), capture.commits()
    try:
        for _ in range(scaled(3)):
            before = capture.progress(process, before)
            victims.append(dice.choice(engines_of(process.pid)))
            os.kill(victims[-1], signal.SIGKILL)
            assert capture.missing_blocks(capture.commits()) > 0, "killed too late to show anything"
        assert process.wait(OPEN_S) == 0, (capture.out / "capture.log").read_text()[-2000:]
    finally:
        process.kill()
        process.wait()
    assert not any(map(is_alive, victims))
    check_kept(before, capture.commits())
    assert capture.hashes() == hashes
    line.hold(len(victims))
    line.say(f"{len(before)} of {len(capture.commits())} units committed at the last kill")


def test_killed_captures_pay_for_no_block_twice(
    row: Callable[[str, str], Row], dice: random.Random, undisturbed: Any, tmp_path: Path
) -> None:
    line = row("SIGKILL a capture with vLLM, run again", "identical, no committed block computed twice")
    model, answers, hashes = undisturbed
    capture = Capture(tmp_path / "driver", model, answers)
    before: dict[str, bytes] = {}
    for _ in range(scaled(2)):
        process = capture.begin()
        try:
            capture.progress(process, before)
            time.sleep(dice.uniform(0, 0.1))
            engines = engines_of(process.pid)
        finally:
            process.kill()
            process.wait()
        wait_gone(engines)
        check_kept(before, capture.commits())
        before = capture.commits()
        line.hold()
    missing = capture.missing_blocks(before)
    assert missing > 0, "killed too late to show anything"
    assert num_tasks(run("capture", capture.study)) == missing
    check_kept(before, capture.commits())
    assert capture.hashes() == hashes
    line.say(f"{len(before)} of {len(capture.commits())} units came from killed runs")
