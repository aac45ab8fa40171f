"""A study whose activations are captured while it answers: one pass, the same files, nothing replayed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
from road import run
from test_crashes import units, walk, write_study


def views(out: Path) -> dict[str, str]:
    return json.loads((out / "capture.json").read_text())


@pytest.fixture(scope="module")
def online(demo_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's Chinese dilemmas, answered and counted at once; the study's file."""
    folder = tmp_path_factory.mktemp("online")
    capture = {"mode": "online"}
    study = write_study(folder / "study.yaml", demo_run.out, folder / "run", capture=capture, cluster={"engines": 1})
    run("respond", study)
    return study


def test_online_answers_bring_their_statistics_and_replay_adds_what_is_asked_later(online: Path):
    out = online.parent / "run"
    made = units(out / "store")
    assert made
    assert {name.split("-")[0] for name in made} == {"moments", "rows"}
    assert walk(online, "respond", "capture") == [False, True]  # and no engine started
    assert units(out / "store") == made

    answers = pq.read_table(out / "responses.parquet").to_pylist()
    with xr.open_zarr(views(out)["merged"]) as merged:
        assert merged.attrs["mode"] == "online"
        assert merged.attrs["num_units"] == {"online": len(made) // 2}
        for group, found in zip(merged["group"].values, merged["token_count"].values, strict=True):
            expected = sum(len(row["response_token_ids"]) - 1 for row in answers if row["group"] == group)
            assert found == expected
        highest = merged["max"].max(dim="group").values

    run("capture", online, "--set", "capture.maxima=true")
    with xr.open_zarr(views(out)["rows"]) as rows:
        assert rows.attrs["num_units"] == {"online": len(made) // 2, "replay": len(made) // 2}
        # another pass over the same tokens, in batches of another size
        np.testing.assert_allclose(rows["row_max"].max(dim="question").values, highest, rtol=1e-4, atol=1e-5)
        assert (rows["row_argmax"].values < rows["num_tokens"].values[:, None, None]).all()


def test_online_finds_the_neurons_that_replay_finds(online: Path, demo_run):
    """Replay's sets are the demo's own."""
    walk(online, "capture", "select")

    def sets(folder: Path) -> dict[str, set[tuple[int, int]]]:
        found: dict[str, set[tuple[int, int]]] = {}
        for row in pq.read_table(folder / "neurons.parquet").to_pylist():
            if row["method"] == "probability" and row["group"].startswith("c_voice.zh/"):
                found.setdefault(row["group"], set()).add((row["layer"], row["neuron"]))
        return found

    found = sets(online.parent / "run")
    assert found == sets(demo_run.out)
    assert len(found) == 8
