"""A real study whose units go to a bucket, through real engines, and a copy of them that needs none."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from places import S3, new_prefix
from road import PROJECT, run
from test_crashes import walk

from harvest.store.reader import open_merged, open_rows


def _study(path: Path, model: Path, out: Path, store: str) -> Path:
    settings = {
        "out": str(out),
        "store": store,
        "model": {"path": str(model), "dtype": "float32"},
        "benchmarks": [{"path": str(path.with_name("dilemmas.jsonl")), "name": "c_voice"}],
        "respond": {"max_tokens": 120},
        "select": [{"top_k": 6, "threshold": 0.5}],
        "ablate": {"controls": 3},
        "cluster": {"engines": 1},
    }
    path.write_text(yaml.safe_dump(settings, allow_unicode=True))
    return path


def test_a_study_in_a_bucket_finds_the_planted_neurons_and_its_copy_in_a_folder_the_same(tmp_path: Path, s3: S3):
    model, url = tmp_path / "model", new_prefix(s3).root
    run("demo-model", model)
    # one value of the built-in ones: requests to a bucket are what takes the time
    lines = (PROJECT / "harvest/benchmarks/builtin/c_voice.zh.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "dilemmas.jsonl").write_text("".join(line for line in lines if json.loads(line)["value"] == "和谐"))
    study = _study(tmp_path / "study.yaml", model, tmp_path / "run", url)
    for stage in ("respond", "capture", "select"):
        assert f"{stage}: done" in run(stage, study).stdout
    assert walk(study, "respond", "capture", "select") == [False] * 3
    status = json.loads(run("status", tmp_path / "run", "--json").stdout)
    assert status["store"] == url
    assert status["merged"].startswith(f"{url}/merged/")
    assert (status["units"]["missing"], status["units"]["quarantined"]) == (0, [])
    assert "damaged files: 0; harmless leftovers of unfinished attempts: 0" in run("verify", url).stdout
    with open_merged(status["merged"]) as merged, open_rows(status["rows"]) as rows:
        assert int(merged["token_count"].sum()) == int(rows["num_tokens"].sum()) > 0
    found = pq.read_table(tmp_path / "run/neurons.parquet")
    planted = {(one["group"], one["layer"], one["neuron"]) for one in json.loads((model / "planted.json").read_text())}
    chosen = {(row["group"], row["layer"], row["neuron"]) for row in found.to_pylist() if row["method"] != "control"}
    assert len(chosen & planted) >= 0.9 * len(chosen) > 0

    run("export", url, tmp_path / "copy")
    assert "damaged files: 0" in run("verify", tmp_path / "copy").stdout
    again = _study(tmp_path / "again.yaml", model, tmp_path / "again", str(tmp_path / "copy"))
    assert walk(again, "respond", "capture", "select") == [True] * 3
    assert pq.read_table(tmp_path / "again/neurons.parquet").equals(found)
    digests = [json.loads((tmp_path / out / "capture.json").read_text())["merged_sha256"] for out in ("run", "again")]
    assert len(set(digests)) == 1
