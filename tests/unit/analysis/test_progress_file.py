"""What a run says of itself can be read from another shell, and a dead run is said to be dead."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from analysis.progress_file import ProgressFile, read_progress
from analysis.run_folder import write_json
from harvest.errors import InputError, Interrupted

PROJECT = Path(__file__).parents[3]
SAID = {
    "stage": "capture", "done": 3, "total": 12, "tokens_done": 300.0, "tokens": 1200.0, "tokens_per_s": 50.0,
    "eta_s": 18.0, "engines": 2, "retries": 1, "quarantined": 0, "elapsed_s": 6.0, "state": "running",
}  # fmt: skip


def rewrite(path: Path, **changes: Any) -> None:
    write_json(path, {**json.loads(path.read_text()), **changes})


def test_a_line_is_written_at_most_once_a_second_but_a_new_state_at_once(tmp_path: Path):
    path, now = tmp_path / "progress.json", 100.0
    progress = ProgressFile(path, lambda: now)
    seen = []
    for step in range(50):
        now = 100.0 + step / 10
        progress({**SAID, "done": step})
        seen.append(json.loads(path.read_text())["sequence"])
    assert seen == sorted(seen)
    assert seen[-1] == 5
    progress({**SAID, "state": "draining"})
    progress({**SAID, "state": "done"})
    progress({**SAID, "stage": "ablate"})
    assert json.loads(path.read_text())["sequence"] == 8
    assert list(tmp_path.iterdir()) == [path], "no half-written file is left"


def test_no_file_is_no_progress_and_a_run_that_ended_is_not_alive(tmp_path: Path):
    path = tmp_path / "progress.json"
    assert read_progress(path) is None
    kept = ": what was committed is kept, run the same command again"
    ends = {None: "finished", InputError: f"stopped{kept}", Interrupted: f"interrupted{kept}"}
    for error, said in ends.items():
        progress = ProgressFile(path)
        with suppress(InputError, Interrupted), progress.road():
            progress({**SAID, "state": "failed"})
            if error is not None:
                raise error("x")
        found = read_progress(path)
        assert (found["alive"], found["done"], found["eta_s"]) == (False, 3, 18.0)
        assert found["summary"].endswith(f"0 quarantined; {said}")


def test_a_run_lives_between_the_stages_that_need_engines(tmp_path: Path):
    """While it merges, selects, scores and reports the fleet has nothing to say."""
    path = tmp_path / "progress.json"
    progress, who = ProgressFile(path), f"process {os.getpid()} on {socket.gethostname()}"
    seen = []
    with progress.road():
        with progress.stage("capture"):
            progress({**SAID, "state": "done"})
            seen.append(read_progress(path))
        with progress.stage("select"):
            seen.append(read_progress(path))
        seen.append(read_progress(path))
    assert [one["alive"] for one in seen] == [True] * 3
    assert seen[0]["summary"].endswith(f"0 quarantined; done, {who}")
    assert [one["summary"] for one in seen[1:]] == [f"select; begun, {who}", f"select; ended, {who}"]
    assert read_progress(path)["summary"] == "select; finished"


def test_a_run_that_goes_on_says_where_it_is(tmp_path: Path):
    path = tmp_path / "progress.json"
    ProgressFile(path)({**SAID, "waiting_for": "a machine with 1 GPU"})
    found = read_progress(path)
    assert found["alive"] is True
    numbers = (
        "capture 3/12 tasks, 300 of 1200 tokens, 50 tokens/s, about 18 s left, 2 engines, 1 retries, 0 quarantined"
    )
    who = f"process {os.getpid()} on {socket.gethostname()}"
    assert found["summary"] == f"{numbers}, waiting for a machine with 1 GPU; running, {who}"


def test_a_killed_run_is_said_to_be_dead_at_once(tmp_path: Path):
    """Also while its parent has not asked after it yet, and when its number is another process's."""
    path = tmp_path / "progress.json"
    code = f"""
import time
from pathlib import Path
from analysis.progress_file import ProgressFile
ProgressFile(Path({str(path)!r}))({SAID!r})
time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(PROJECT)})
    try:
        while not path.exists():
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        began = time.monotonic()
        zombie = read_progress(path)
        child.wait()
        gone = read_progress(path)
        rewrite(path, pid=os.getpid())
        reused = read_progress(path)
        rewrite(path, state="draining")
        drained = read_progress(path)
        rewrite(path, state="done")
        merging = read_progress(path)
    finally:
        child.kill()
        child.wait()
    assert time.monotonic() - began < 2
    assert "it was interrupted, process" in drained["summary"]
    for found in (zombie, gone, reused, merging):
        assert found["alive"] is False
        assert "it died, process" in found["summary"]
        assert "run the same command again" in found["summary"]


def test_a_silent_run_of_another_host_is_neither_called_alive_nor_dead(tmp_path: Path):
    path = tmp_path / "progress.json"
    ProgressFile(path)(SAID)
    # a clock that is years ahead says nothing about who is alive
    rewrite(path, host="elsewhere.example", time="2099-01-01T00:00:00+00:00")
    found = read_progress(path, watch_s=0.3)
    assert found["alive"] is None
    assert "cannot be seen from here and said nothing new within 0.3 s" in found["summary"]


def test_a_run_elsewhere_is_alive_when_its_count_moves(tmp_path: Path):
    path = tmp_path / "progress.json"
    progress = ProgressFile(path)
    progress(SAID)
    rewrite(path, host="elsewhere.example", time="1970-01-01T00:00:00+00:00")
    later = threading.Timer(0.3, lambda: rewrite(path, sequence=2))
    later.start()
    found = read_progress(path)
    later.join()
    assert (found["alive"], found["sequence"]) == (True, 2)


def test_what_cannot_be_written_does_not_stop_the_run(tmp_path: Path):
    ProgressFile(tmp_path / "no such folder/progress.json")(SAID)
