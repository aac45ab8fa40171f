"""What `capture` leaves behind: the views that were asked for, each with its digest; none moves another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from captured import MadeUpEngine, run_task

from analysis.responses import read_responses, write_responses
from analysis.settings import Study
from analysis.stages import STAGES, _inputs
from analysis.status import run_status
from analysis.study import StudyRun
from harvest.capture import missing_tasks, plan_blocks
from harvest.errors import SelectionError
from harvest.store import reader
from harvest.types import Completion

NOTHING = {"rows": "none"}
EVERYTHING = {"maxima": True, "histogram": {"neurons": "", "edges": {"start": 0, "stop": 1, "num": 5}}}


@pytest.fixture
def neurons(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"layer": [2, 0], "neuron": [95, 1]}), tmp_path / "chosen.parquet")
    return tmp_path / "chosen.parquet"


def captured(tmp_path: Path, model: Path, neurons: Path, capture: dict) -> tuple[StudyRun, dict, list[str]]:
    """A study with its capture done by a made-up engine; what capture.json says; and the engine's passes."""
    section = dict(capture)
    if "histogram" in section:
        section["histogram"] = {**section["histogram"], "neurons": neurons}
    lines = [
        {
            "id": f"q{at}", "value": "Harmony", "conflict": "rivalry", "dilemma": f"Choir {at} sings late.",
            "option_a": "Ask.", "option_b": "Sing.", "language": "en"
        }
        for at in range(6)
    ]  # fmt: skip
    (tmp_path / "dilemmas.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {
        "out": tmp_path / "run",
        "model": {"path": model, "dtype": "float32", "max_model_len": 1024},
        "benchmarks": [{"path": str(tmp_path / "dilemmas.jsonl")}],
        "capture": section,
    }
    run = StudyRun(Study.model_validate(settings))
    run.folder.prepare()
    run.store.prepare()
    completions = [Completion((1, 2, 3), "", "stop") for _ in run.items]
    write_responses(run.folder / "responses.parquet", run.items, run.role_prompts, completions)
    engine = MadeUpEngine((3, 96), (0, 1, 2))
    for task in missing_tasks(plan_blocks(read_responses(run.folder / "responses.parquet"), run.capturing), run.store):
        run_task(task, engine)
    with run.fleet(debug=False) as fleet:
        STAGES["capture"].work(run, fleet)
        assert not fleet.started
    return run, json.loads((run.folder / "capture.json").read_text()), engine.passes


def test_each_kind_is_captured_when_it_is_asked_for_and_moves_no_other_view(tmp_path, tiny_llama, neurons):
    _, bare, _ = captured(tmp_path, tiny_llama, neurons, NOTHING)
    assert (bare["rows"], bare["rows_sha256"], bare["histogram"], bare["histogram_sha256"]) == (None,) * 4
    _, plain, passes = captured(tmp_path, tiny_llama, neurons, {})
    assert set(passes) == {"rows"}
    run, full, passes = captured(tmp_path, tiny_llama, neurons, EVERYTHING)
    assert set(passes) == {"rows", "histogram"}
    assert len({each["merged"] for each in (bare, plain, full)}) == 1
    assert len({each["merged_sha256"] for each in (bare, plain, full)}) == 1
    with reader.open_rows(Path(full["rows"])) as rows, reader.open_rows(Path(plain["rows"])) as without:
        xr.testing.assert_equal(rows[["row_mean", "row_positive_count"]].load(), without.load())
        assert (rows["row_argmax"] == 1).all()
    with reader.open_histogram(Path(full["histogram"])) as histogram:
        sites = np.stack([histogram["layer"], histogram["neuron"]], axis=1)
        assert sites.tolist() == [[0, 1], [2, 95]]
        assert histogram["histogram"].sum("bin").values.tolist() == [[12, 12], [12, 12]]
        assert {"model_fingerprint", "activation", "phase", "mode", "versions"} <= set(histogram.attrs)
    assert full["histogram_sha256"] == reader.digest(Path(full["histogram"]))
    assert run_status(run.folder.root)["histogram"] == full["histogram"]
    _, only, passes = captured(tmp_path, tiny_llama, neurons, {**NOTHING, "maxima": True})
    assert passes == []
    with reader.open_rows(Path(only["rows"])) as rows:
        assert set(rows.data_vars) == {"row_max", "row_argmax"}


def test_a_deleted_plan_is_written_again(tmp_path, tiny_llama, neurons):
    run, found, _ = captured(tmp_path, tiny_llama, neurons, {})
    assert STAGES["capture"].is_intact(run)
    for lost in (run.folder / "plan.json", Path(run.store.root) / "plans" / f"{found['plan']}.json"):
        lost.unlink()
        assert not STAGES["capture"].is_intact(run)
        _, again, passes = captured(tmp_path, tiny_llama, neurons, {})
        assert lost.is_file()
        assert (again["merged"], passes) == (found["merged"], [])


def test_a_deleted_histogram_is_folded_again(tmp_path, tiny_llama, neurons):
    run, found, _ = captured(tmp_path, tiny_llama, neurons, EVERYTHING)
    assert STAGES["capture"].is_intact(run)
    shutil.rmtree(found["histogram"])
    assert not STAGES["capture"].is_intact(run)


def test_other_neurons_are_another_capture_and_wrong_ones_are_refused_first(tmp_path, tiny_llama, neurons):
    run, _, _ = captured(tmp_path, tiny_llama, neurons, EVERYTHING)
    before = _inputs("capture", run)
    pq.write_table(pa.table({"layer": [0, 2], "neuron": [1, 95]}), neurons)
    assert _inputs("capture", StudyRun(run.study)) == before
    pq.write_table(pa.table({"layer": [0, 2], "neuron": [1, 94]}), neurons)
    assert _inputs("capture", StudyRun(run.study)) != before
    pq.write_table(pa.table({"layer": [0, 2], "neuron": [1, 96]}), neurons)
    with pytest.raises(SelectionError, match=r"neuron 96 is not in .* 3 layers with 96 neurons each"):
        StudyRun(run.study)
