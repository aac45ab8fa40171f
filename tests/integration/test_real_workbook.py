"""The published workbook, which is not in the project, through the whole road."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
from road import run
from test_crashes import write_study

from harvest.types import Half, half_of


def test_a_study_of_the_published_workbook_finishes(demo_run, shared_data: Path, tmp_path: Path):
    entry = {
        "path": str(shared_data / "c_voice/和谐-final.xlsx"),
        "format": "c_voice",
        "value": "和谐",
        "language": "zh",
    }
    study = write_study(tmp_path / "real.yaml", demo_run.out, tmp_path / "real", benchmarks=[entry])
    run("run", study)
    responses = pq.read_table(tmp_path / "real/responses.parquet")
    assert responses.num_rows == 2 * 237
    assert all(ids for ids in responses["response_token_ids"].to_pylist())
    evaluated = {name for name in responses["question_id"].to_pylist() if half_of(name) is Half.EVALUATE}
    summary = json.loads((tmp_path / "real/summary.json").read_text())
    assert {entry["group"] for entry in summary["headline"]} == {"c_voice.zh/和谐/support", "c_voice.zh/和谐/conflict"}
    for entry in summary["headline"]:
        assert entry["num_items"] + entry["num_items_left_out"] == len(evaluated)
        assert len(entry["controls"]) == 3
