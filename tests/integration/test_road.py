"""The demo's whole road: what it finds, what cutting does, and that a second time costs nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import mean

import pyarrow.parquet as pq
import pytest
import xarray as xr
from road import run

from analysis.demo import study as demo_study
from analysis.settings import StoreSection
from analysis.stages import STAGES, run_stage
from analysis.study import StudyRun

CONTRACT_COLUMNS = {
    "responses": "item_id group value aspect language prompt_token_ids response_token_ids text finish_reason",
    "neurons": "set_id group method layer neuron score delta rate",
    "conditions": "condition_id set_id direction operation strength phase control_draw",
    "completions": "condition_id item_id group aspect option_order token_ids text finish_reason",
    "scores": "condition_id item_id group option_order sample scorer score unscored",
}


@pytest.fixture(scope="module")
def headline(demo_run) -> list[dict]:
    return json.loads((demo_run.out / "summary.json").read_text())["headline"]


def test_planted_neurons_are_found(headline):
    assert len(headline) == 24
    for entry in headline:
        assert entry["k"] == entry["planted"]
        assert entry["precision"] >= 0.95, entry["group"]
        assert entry["recall"] >= 0.95, entry["group"]


def test_cutting_moves_the_answer_and_controls_do_not(headline):
    tried = [entry for entry in headline if entry["group"].startswith("c_voice")]
    assert len(tried) == 16
    for entry in tried:
        assert entry["baseline_support"] >= 90, entry
        assert entry["shift"] >= 35, entry
        assert len(entry["controls"]) == 3
        assert entry["largest_control"] <= 5, entry
        assert entry["num_items_left_out"] == 0
    assert mean(entry["shift"] for entry in tried) >= 45


def test_the_table_ends_with_the_path_of_the_report(demo_run):
    lines = demo_run.stdout.strip().splitlines()
    assert lines[-1] == str(demo_run.out / "report.html")
    assert sum("6 of 6" in line for line in lines) == 24


@pytest.mark.parametrize("name", CONTRACT_COLUMNS)
def test_files_have_the_columns_of_the_contract(demo_run, name):
    columns = pq.read_schema(demo_run.out / f"{name}.parquet").names
    assert set(CONTRACT_COLUMNS[name].split()) <= set(columns)


def test_merged_view_and_rows_open_in_xarray(demo_run):
    status = json.loads(run("status", demo_run.out, "--json").stdout)
    merged, rows = xr.open_zarr(status["merged"]), xr.open_zarr(status["rows"])
    assert merged.sizes == {"group": 24, "layer": 3, "neuron": 640}
    for name in ("mean", "m2", "min", "max", "question_mean", "question_m2", "question_rate_mean", "question_rate_m2"):
        assert merged[name].dims == ("group", "layer", "neuron")
    assert merged["positive_count"].dtype == "int64"
    assert merged["token_count"].dtype == "int64"
    assert merged["question_count"].values.tolist() == [40] * 24
    assert rows["row_mean"].dims == ("question", "layer", "neuron")
    assert rows["row_mean"].dtype == "float32"
    assert rows["row_positive_count"].dtype == "uint16"
    assert rows.sizes["question"] == 24 * 40
    for group in merged["group"].values:
        of_group = rows.isel(question=rows["group"].values == group)
        assert int(of_group["num_tokens"].sum()) == int(merged["token_count"].sel(group=group))
        total = of_group["row_positive_count"].values.astype("int64").sum(axis=0)
        assert (total == merged["positive_count"].sel(group=group).values).all()


def test_answers_are_in_the_language_and_words_of_the_aspect(demo_run):
    table = pq.read_table(demo_run.out / "responses.parquet").to_pylist()
    words = {
        "和谐/support": "和睦",
        "和谐/conflict": "对抗",
        "Justice/support": "fairness",
        "Justice/conflict": "nepotism",
    }
    for group, word in words.items():
        texts = [row["text"] for row in table if row["group"].endswith(group)]
        assert len(texts) == 40
        assert mean(word in text for text in texts) > 0.9, group
    assert {row["finish_reason"] for row in table} == {"stop"}


def test_a_second_run_starts_no_engine(demo_run, tmp_path: Path):
    """Neither where every stage is finished, nor where another study finds all it needs in the store."""
    again = demo_study(demo_run.out)
    elsewhere = again.model_copy(
        update={"out": tmp_path / "other", "store": StoreSection(path=str(demo_run.out / "store"))}
    )
    for settings, expected in ((again, set()), (elsewhere, set(STAGES))):
        study = StudyRun(settings)
        study.folder.prepare()
        with study.fleet(debug=False) as fleet:
            assert {name for name in STAGES if run_stage(name, study, fleet)} == expected
            assert not fleet.started
    for name in ("summary.json", "scores.parquet", "neurons.parquet"):
        ours, theirs = demo_run.out / name, tmp_path / "other" / name
        if name == "summary.json":
            assert json.loads(ours.read_text())["headline"] == json.loads(theirs.read_text())["headline"]
        else:
            assert pq.read_table(ours).equals(pq.read_table(theirs))


def test_a_store_is_verified_byte_by_byte(demo_run, tmp_path: Path):
    assert "damaged files: 0" in run("verify", demo_run.out / "store").stdout
    shutil.copytree(demo_run.out / "store", tmp_path / "store")
    victim = next(
        path for path in (tmp_path / "store/merged").rglob("*") if path.is_file() and path.stat().st_size > 999
    )
    data = bytearray(victim.read_bytes())
    data[500] ^= 1
    victim.write_bytes(data)
    assert str(victim) in run("verify", tmp_path / "store", code=1).stdout


def test_the_report_needs_nothing_from_outside(demo_run):
    page = (demo_run.out / "report.html").read_text()
    assert "<script" not in page
    assert "和谐" in page
    for outside in ("src=", "@import", "url("):
        assert outside not in page
