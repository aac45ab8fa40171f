"""The road of a study, its stages' work replaced by writing a word: which are done again, and what is said of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import value_harvest
from analysis.progress_file import NAME
from analysis.run_folder import write_json
from analysis.settings import Study
from analysis.stages import STAGES
from analysis.status import run_status
from harvest.errors import InputError


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each stage was done; all files hold the same."""
    times: Counter[str] = Counter()

    def writing(name: str):
        def work(run, fleet) -> None:
            times[name] += 1
            for output in STAGES[name].outputs:
                write_json(run.folder / output, {"plan": "0" * 40, "merged": "m.zarr"})

        return work

    for name, stage in STAGES.items():
        monkeypatch.setitem(STAGES, name, replace(stage, work=writing(name), is_intact=lambda run: True))
    return times


def study(tmp_path: Path, model: Path, **changes: object) -> Study:
    lines = [
        {
            "id": f"q{at}", "value": "Harmony", "conflict": "rivalry", "dilemma": f"Choir {at} sings late.",
            "option_a": "Ask.", "option_b": "Sing.", "language": "en"
        }
        for at in range(12)
    ]  # fmt: skip
    (tmp_path / "dilemmas.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {
        "out": tmp_path / "run",
        "model": {"path": model, "dtype": "float32", "max_model_len": 1024},
        "benchmarks": [{"path": str(tmp_path / "dilemmas.jsonl")}],
        "select": [{"top_k": 6, "threshold": 0.5}],
        **changes,
    }
    return Study.model_validate(settings)


ROAD = [name for name in STAGES if name != "report"]
# whose page would be shown


def test_a_run_that_found_everything_done_says_finished_whatever_was_said_before(tmp_path, tiny_llama, worked):
    settings = study(tmp_path, tiny_llama)
    value_harvest._run(settings, ROAD)
    file = tmp_path / "run" / NAME
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    write_json(file, {**json.loads(file.read_text()), "state": "draining", "pid": int(dead.stdout), "process": 1})
    assert "it was interrupted" in run_status(tmp_path / "run")["progress"]["summary"]
    value_harvest._run(settings, ROAD)
    assert set(worked.values()) == {1}
    said = run_status(tmp_path / "run")["progress"]
    assert (said["alive"], said["summary"], said["pid"]) == (False, "score; finished", os.getpid())


@pytest.mark.parametrize("end", [(InputError, "stopped"), (KeyboardInterrupt, "interrupted")])
def test_a_run_that_was_broken_off_says_so(end, tmp_path, tiny_llama, worked, monkeypatch):
    error, state = end

    def work(run, fleet) -> None:
        assert run_status(run.folder.root)["progress"]["alive"] is True
        raise error

    monkeypatch.setitem(STAGES, "capture", replace(STAGES["capture"], work=work))
    with pytest.raises(error):
        value_harvest._run(study(tmp_path, tiny_llama), ROAD)
    said = run_status(tmp_path / "run")["progress"]
    assert (said["stage"], said["state"], said["alive"]) == ("capture", state, False)


def test_what_other_settings_left_is_not_looked_for(tmp_path, tiny_llama, worked, monkeypatch):
    """A study that moves to another store must not wait for the one that it leaves."""
    road, asked = ["respond", "capture"], []
    value_harvest._run(study(tmp_path, tiny_llama), road)

    def is_intact(run) -> bool:
        asked.append(run.store.root)
        return True

    monkeypatch.setitem(STAGES, "capture", replace(STAGES["capture"], is_intact=is_intact))
    moved = study(tmp_path, tiny_llama, store=str(tmp_path / "elsewhere"))
    value_harvest._run(moved, road)
    assert (asked, worked["capture"]) == ([], 2)
    value_harvest._run(moved, road)
    assert (asked, worked["capture"]) == ([str(tmp_path / "elsewhere")], 2)
    monkeypatch.setitem(STAGES, "capture", replace(STAGES["capture"], is_intact=lambda run: False))
    value_harvest._run(moved, road)
    assert worked == {"respond": 1, "capture": 3}, "what is gone is mended"


def test_what_rests_on_a_stage_that_is_done_again_is_not_called_finished(tmp_path, tiny_llama, worked, monkeypatch):
    settings, seen = study(tmp_path, tiny_llama), []
    value_harvest._run(settings, ROAD)
    merged = "m.zarr"

    def work(run, fleet) -> None:
        seen.append(set(run_status(run.folder.root)["stages"]))
        write_json(run.folder / "capture.json", {"plan": "0" * 40, "merged": merged})

    capture = replace(STAGES["capture"], work=work, is_intact=lambda run: False)
    monkeypatch.setitem(STAGES, "capture", capture)
    value_harvest._run(settings, ["capture"])
    assert seen == [set(ROAD) - {"capture"}], "it is mended for what rests on it"
    assert run_status(tmp_path / "run")["stages"] == sorted(ROAD)
    merged = "other.zarr"
    value_harvest._run(settings, ["capture"])
    assert run_status(tmp_path / "run")["stages"] == ["capture", "respond"], "other files"
    monkeypatch.setitem(STAGES, "capture", replace(capture, is_intact=lambda run: True))
    value_harvest._run(settings, ROAD)
    value_harvest._run(study(tmp_path, tiny_llama, capture={"phase": "both"}), ["capture"])
    assert seen[2:] == [{"respond"}], "other settings, while it is done"
    assert run_status(tmp_path / "run")["stages"] == ["capture", "respond"]
