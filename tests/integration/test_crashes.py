"""A run that is killed loses nothing, and what it had committed is not computed again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from road import PROJECT, command, run
from safetensors.torch import load_file, save_file

from analysis.settings import Study
from analysis.stages import run_stage
from analysis.study import StudyRun
from harvest.config import load
from harvest.errors import InputError


def write_study(path: Path, demo: Path, out: Path, **more: object) -> Path:
    settings = {
        "out": str(out),
        "model": {"path": str(demo / "model"), "dtype": "float32"},
        "benchmarks": [{"path": "builtin:c_voice.zh"}],
        "respond": {"max_tokens": 120},
        "select": [{"top_k": 6, "threshold": 0.5}],
        "ablate": {"controls": 3},
        "cluster": {"engines": 2},
        **more,
    }
    path.write_text(yaml.safe_dump(settings, allow_unicode=True))
    return path


def commits(store: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in store.glob("commits/*.json")}


def units(store: Path) -> set[str]:
    return {name for name in commits(store) if not name.startswith("answers-")}


def walk(study: Path, *stages: str, overrides: tuple[str, ...] = ()) -> list[bool]:
    """Run stages in this process, where no engine may start; whether each had anything to do."""
    run_ = StudyRun(load(study, overrides, Study))
    run_.folder.prepare()
    with run_.fleet(debug=False) as fleet:
        done = [run_stage(stage, run_, fleet) for stage in stages]
        assert not fleet.started
    return done


def test_an_engine_that_cannot_be_trusted_ends_the_run_in_one_sentence(demo_run, tmp_path: Path):
    """The canary meets a NaN in the actor; the sentence comes through Ray to the person."""
    shutil.copytree(demo_run.out / "model", tmp_path / "model")
    weights = load_file(tmp_path / "model/model.safetensors")
    weights["model.layers.1.mlp.gate_proj.weight"][7] = float("nan")
    save_file(weights, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    model = {"path": str(tmp_path / "model"), "dtype": "float32"}
    study = write_study(tmp_path / "nan.yaml", demo_run.out, tmp_path / "nan", model=model, cluster={"engines": 1})
    stderr = run("run", study, code=1).stderr
    assert "layer 1: a NaN or Inf among the activations" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    assert not (tmp_path / "nan/responses.parquet").exists()


def test_a_capture_killed_half_way_ends_as_one_that_was_not(demo_run, tmp_path: Path, say):
    calm = write_study(tmp_path / "calm.yaml", demo_run.out, tmp_path / "calm", store=str(demo_run.out / "store"))
    walk(calm, "respond", "capture")
    expected = json.loads((tmp_path / "calm/capture.json").read_text())

    study = write_study(tmp_path / "killed.yaml", demo_run.out, tmp_path / "killed")
    store = tmp_path / "killed/store"
    run("respond", study)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    victim = subprocess.Popen(command("capture", study), cwd=PROJECT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(units(store)) < 5 and time.monotonic() < deadline:
        assert victim.poll() is None, "the capture ended before it could be killed"
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    time.sleep(3)  # the actors notice that their driver is gone
    before = commits(store)
    status = json.loads(run("status", tmp_path / "killed", "--json").stdout)
    assert status["units"]["missing"] > 0, "killed too late to show anything"
    assert status["units"]["done"] >= 5

    redone = run("capture", study).stderr
    after = commits(store)
    assert {name: after[name] for name in before} == before
    plan = json.loads((tmp_path / "killed/plan.json").read_text())["plan"]
    blocks = json.loads((store / "plans" / f"{plan}.json").read_text())["blocks"]
    missing = [block for block in blocks if not {f"{unit}.json" for unit in block["units"].values()} <= before.keys()]
    last = json.loads(redone.splitlines()[-1])
    total = last["total"]
    assert (last["stage"], last["state"]) == ("capture", "done")
    assert last["done"] == total == len(missing) < len(blocks), "a committed block was computed again"
    assert last["tokens_done"] == last["tokens"] > 0
    found = json.loads((tmp_path / "killed/capture.json").read_text())
    for name in ("merged_sha256", "rows_sha256"):
        assert found[name] == expected[name]
    done = status["units"]["done"]
    say(f"killed with {done} of {len(units(store))} units committed; {total} of {len(blocks)} blocks run again")


def test_ctrl_c_ends_a_capture_in_one_sentence_and_the_next_run_does_the_rest(demo_run, tmp_path: Path):
    shutil.copytree(demo_run.out / "store", tmp_path / "store")
    for path in (tmp_path / "store/commits").iterdir():
        if not path.name.startswith("answers-"):
            path.unlink()
            # a whole attempt would be committed without being measured
            shutil.rmtree(tmp_path / "store/attempts" / path.stem)
    study = write_study(tmp_path / "stopped.yaml", demo_run.out, tmp_path / "stopped", store=str(tmp_path / "store"))
    walk(study, "respond")
    stopped = subprocess.Popen(
        command("capture", study),
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not units(tmp_path / "store") and time.monotonic() < deadline:
        assert stopped.poll() is None, "the capture ended before it could be stopped"
        time.sleep(0.002)
    os.killpg(stopped.pid, signal.SIGINT)
    *_, told, sentence = stopped.communicate(timeout=60)[1].splitlines()
    assert stopped.returncode == 1
    last = json.loads(told)
    assert last["state"] == "draining"
    assert 0 < last["done"] < last["total"]
    assert sentence == (
        f"capture: interrupted with {last['done']} of {last['total']} tasks done; what was committed is kept, run the "
        "same command again"
    )
    before = commits(tmp_path / "store")
    redone = json.loads(run("capture", study).stderr.splitlines()[-1])
    assert redone["done"] == redone["total"] == last["total"] - last["done"]
    after = commits(tmp_path / "store")
    assert {name: after[name] for name in before} == before


def test_a_view_that_was_deleted_is_folded_again_without_an_engine(demo_run, tmp_path: Path):
    shutil.copytree(demo_run.out / "store", tmp_path / "view/store")
    study = write_study(tmp_path / "view.yaml", demo_run.out, tmp_path / "view")
    assert walk(study, "respond", "capture") == [True, True]
    before = json.loads((tmp_path / "view/capture.json").read_text())
    shutil.rmtree(before["merged"])
    assert walk(study, "capture", "select") == [True, True]
    assert json.loads((tmp_path / "view/capture.json").read_text()) == before
    assert walk(study, "capture", "select") == [False, False]


def test_a_stage_refuses_files_that_were_made_with_other_settings(demo_run, tmp_path: Path):
    study = write_study(tmp_path / "chain.yaml", demo_run.out, tmp_path / "chain", store=str(demo_run.out / "store"))
    walk(study, "respond", "capture")
    with pytest.raises(InputError, match="capture was not run with these settings"):
        walk(study, "select", overrides=("capture.phase=both",))
    with pytest.raises(InputError, match="respond was not run with these settings"):
        walk(study, "capture", overrides=("respond.max_tokens=77",))
