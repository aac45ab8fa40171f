"""Files of a run: what is written is read back, and how far a run is can be seen from them."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from stored import finished_store

from analysis import demo, doctor
from analysis.ablate import plan_trials, write_completions
from analysis.interventions import conditions_for, fingerprint
from analysis.neurons.neuron_set import NeuronSet
from analysis.planned import planning
from analysis.responses import read_responses, write_responses
from analysis.run_folder import RunFolder, write_json
from analysis.status import lines, run_status
from harvest.errors import DamagedStore, InputError, Interrupted, SelectionError, StoreError, UnitsFailed
from harvest.store.commit import Store
from harvest.store.key import unit_name
from harvest.types import Completion, EditPhase, Item, OptionOrder, Prompt

ITEMS = [
    Item(f"q{number}", "c_voice.zh", "和谐", aspect, "zh", "…", prized="和谐", options=("甲", "乙"), description_id="d")
    for number in range(2)
    for aspect in ("support", "conflict")
]
PROMPTS = [
    Prompt(item.item_id, item.group, item.question_id, OptionOrder(("published", "swapped")[at % 2]), (1, at))
    for at, item in enumerate(ITEMS)
]
COMPLETIONS = [Completion(tuple(range(at)), f"答 {at}\x00", ("stop", "length")[at % 2]) for at in range(len(ITEMS))]


def test_responses_come_back_as_they_were_written(tmp_path: Path):
    path = tmp_path / "responses.parquet"
    write_responses(path, ITEMS, PROMPTS, COMPLETIONS)
    found = read_responses(path)
    assert [one.prompt for one in found] == PROMPTS
    assert [one.completion for one in found] == COMPLETIONS
    assert {one.description_id for one in found} == {"d"}
    contract = {"item_id", "group", "value", "aspect", "language", "prompt_token_ids", "response_token_ids", "text"}
    assert contract | {"finish_reason"} <= set(pq.read_schema(path).names)


def test_an_answer_for_every_item_or_none_is_written(tmp_path: Path):
    with pytest.raises(ValueError, match="zip"):
        write_responses(tmp_path / "responses.parquet", ITEMS, PROMPTS, COMPLETIONS[1:])
    assert list(tmp_path.iterdir()) == []


def test_missing_or_damaged_responses_name_their_stage(tmp_path: Path):
    path = tmp_path / "responses.parquet"
    with pytest.raises(SelectionError, match=r"no such file; run `value-harvest respond STUDY.yaml`"):
        read_responses(path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(SelectionError, match="not a readable Parquet file"):
        read_responses(path)


def one_set(aspect: str, draw: int = -1) -> NeuronSet:
    group = f"c_voice.zh/和谐/{aspect}"
    ones = np.ones(2)
    return NeuronSet(
        set_id=f"{group}|probability" + (f"|control-{draw}" if draw >= 0 else ""),
        group=group,
        method="probability" if draw < 0 else "control",
        layer=np.array([0, 1], np.int32),
        neuron=np.array([3 + draw, 4], np.int32),
        score=ones,
        delta=ones,
        rate=ones,
        control_draw=draw,
        control_of=f"{group}|probability" if draw >= 0 else "",
    )


def test_every_prompt_meets_every_condition_of_its_own_group_and_the_baseline_edits_nothing(tmp_path: Path):
    sets, controls = [one_set("support"), one_set("conflict")], [one_set("support", draw) for draw in range(2)]
    conditions = conditions_for(sets, controls, ["zero"], EditPhase.BOTH)
    trials = plan_trials(list(zip(ITEMS, PROMPTS, strict=True)), conditions)
    assert len(trials) == 2 * 4 + 2 * 2
    assert all(trial.condition.group == trial.item.group for trial in trials)
    for trial in trials:
        assert trial.request.prompt_token_ids == trial.prompt.token_ids
        if trial.condition.operation == "none":
            assert trial.request.edit is None
        else:
            assert trial.request.edit is not None
            assert trial.request.edit.fingerprint == fingerprint(trial.condition)
            assert len(trial.request.edit.row) == 2
    write_completions(tmp_path / "completions.parquet", trials, [COMPLETIONS[0]] * len(trials))
    rows = pq.read_table(tmp_path / "completions.parquet").to_pylist()
    assert [row["condition_id"] for row in rows] == [trial.condition.condition_id for trial in trials]
    assert {row["option_order"] for row in rows} == {"published", "swapped"}


def started(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    return folder


def test_status_counts_what_is_committed_of_the_plan(tmp_path: Path):
    store, folder = finished_store(tmp_path / "store"), started(tmp_path)
    done = [path.stem for path in Path(store.root).glob("commits/moments-*.json")]
    lost = unit_name("moments", {"x": 1})
    plan = {"blocks": [{"group": "g", "units": {"moments": unit}} for unit in [*done, lost]]}
    # one that was given up was committed since, by another study
    given_up = {lost: "NaN", done[0]: "NaN"}
    write_json(folder / "plan.json", {"store": store.root, "plan": store.write_plan(plan), "quarantined": given_up})
    status = run_status(folder.root)
    assert status == {
        "stages": [],
        "units": {"done": 2, "missing": 1, "quarantined": [lost], "reasons": {lost: "g: NaN"}},
        "store": store.root,
        "merged": None,
        "rows": None,
        "histogram": None,
        "answers": None,
        "progress": None,
    }
    assert f"  {lost}: g: NaN" in lines(status)
    views = {"merged": "m.zarr", "rows": None, "histogram": None}
    write_json(folder / "capture.json", {"plan": "f" * 40, **views})
    assert run_status(folder.root) == status, "the views of other settings"
    key = json.loads((folder / "plan.json").read_text())["plan"]
    write_json(folder / "capture.json", {"plan": key, **views})
    (folder / ".stages").mkdir()
    write_json(folder / ".stages/respond.json", {})
    assert run_status(folder.root) == {**status, "merged": "m.zarr", "stages": ["respond"]}
    for path in Path(store.root).glob("plans/*.json"):
        path.unlink()
    with pytest.raises(DamagedStore, match="is missing"):
        run_status(folder.root)


@pytest.mark.parametrize("ending", [UnitsFailed, Interrupted, StoreError, KeyboardInterrupt])
def test_status_counts_the_answers_of_each_stage_and_names_those_given_up_however_it_ended(
    tmp_path: Path, ending: type[BaseException]
):
    store, folder = finished_store(tmp_path / "store"), started(tmp_path)
    failed: dict[str, str] = {}

    def work() -> None:
        with planning(folder, store, "ablate", {"answers": ["a", "b", "c"]}, failed):
            failed["answers-1"] = "OutOfMemory: 3"
            raise ending("ablate: it ends")

    with pytest.raises(ending):
        work()
    with planning(folder, store, "respond", {"answers": ["b"]}, {}):
        pass
    assert run_status(folder.root)["answers"] == {
        "respond": {"done": 1, "missing": 0, "quarantined": [], "reasons": {}},
        "ablate": {"done": 2, "missing": 1, "quarantined": ["answers-1"], "reasons": {"answers-1": "OutOfMemory: 3"}},
    }
    said = lines(run_status(folder.root))
    assert "answers of ablate: 2 done, 1 missing, quarantined 1" in said
    assert "  answers-1: OutOfMemory: 3" in said


def test_status_looks_into_the_store_of_the_newest_plan_alone(tmp_path: Path):
    old, new, folder = Store(tmp_path / "old").prepare(), finished_store(tmp_path / "store"), started(tmp_path)
    for store, stage in ((old, "capture"), (old, "ablate"), (new, "respond")):
        with planning(folder, store, stage, {"blocks": [], "answers": ["b"]}, {}):
            pass
    shutil.rmtree(old.root)
    status = run_status(folder.root)
    assert (status["store"], status["units"], [*status["answers"]]) == (new.root, None, ["respond"])


WHOLE = {
    "plan.json": {"store": "/s", "plan": "0" * 40, "quarantined": {}},
    "capture.json": {"plan": "0" * 40, "merged": "/m.zarr", "rows": None, "histogram": None},
    "progress.json": {
        "stage": "capture", "state": "finished", "host": "h", "time": "t", "pid": 1, "process": None, "sequence": 1,
        "done": 1, "total": 2, "engines": 1, "retries": 0, "quarantined": 0,
        "tokens_done": 1.0, "tokens": 2, "elapsed_s": 1, "tokens_per_s": None, "eta_s": None,
    },
}  # fmt: skip
RUBBISH = [
    None,
    7,
    -1,
    1e300,
    10**400,
    float("nan"),
    True,
    "",
    "\0",
    "\ud800",
    "../..",
    "/",
    [],
    {},
    {"a": 1},
    {"\0": ""},
]


@pytest.mark.parametrize("name", WHOLE)
def test_rubbish_in_a_file_of_the_run_is_one_sentence_or_harmless(tmp_path: Path, name: str):
    """Every field of every file, with values of every type; where a value passes it can be printed as JSON."""
    folder = started(tmp_path)
    (folder / ".stages").mkdir()
    refused = []
    for field, wrong in itertools.product(WHOLE[name], RUBBISH):
        (folder / name).write_text(json.dumps({**WHOLE[name], field: wrong}))
        try:
            status = run_status(folder.root)
        except (InputError, StoreError) as error:
            refused.append(str(error))
        else:
            json.dumps(status, allow_nan=False, ensure_ascii=False).encode()
            "\n".join(lines(status)).encode()
    assert len(refused) >= 2 * len(WHOLE[name])
    for sentence in refused:
        sentence.encode()
        assert "\n" not in sentence
        assert str(folder / name) in sentence or "plans/" in sentence
    for text in ("", "[]", "null", "{", "7", "[" * 100_000, "\xff"):
        (folder / name).write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=f"{name}: is not"):
            run_status(folder.root)


def test_a_plan_of_something_else_is_refused(tmp_path: Path):
    store, folder = finished_store(tmp_path / "store"), started(tmp_path)
    with planning(folder, store, "respond", {"answers": ["a"]}, {}) as planned:
        write_json(folder / "plan.json", {**planned, "quarantined": {}})
    with pytest.raises(InputError, match=r"plan.json: names a plan without blocks; run `value-harvest capture"):
        run_status(folder.root)


def test_status_works_from_the_first_stage_s_first_moment(tmp_path: Path):
    folder = started(tmp_path)
    seen = []

    def work() -> None:
        seen.append(run_status(folder.root))
        (folder / "x").touch()

    folder.stage("respond", {}, ["x"], work)
    assert seen[0]["stages"] == []
    assert run_status(folder.root)["stages"] == ["respond"]


def test_status_of_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="is not the folder of a run; give the `out` of a study"):
            run_status(root)


@pytest.mark.parametrize("name", ["2024", "null", "a: b", "[x]", "w=1", "和谐 😀", '"', "true"])
def test_the_demo_runs_in_a_folder_of_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    study = demo.study(Path(name))
    assert study.out == Path(name)
    assert study.model.path == Path(name) / "model"
    assert (tmp_path / name / "model" / "config.json").is_file()


def test_doctor_names_everything_it_looked_at_and_this_installation_is_whole():
    found = {name: (what, good) for name, what, good in doctor.findings()}
    assert {"python", "torch", "ray", "vllm", "package cluster", "package harvest", "package analysis"} <= found.keys()
    assert all(good for _, good in found.values()), found
    assert all("\n" not in what for what, _ in found.values())


def test_doctor_sees_another_package_in_our_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "cluster_of_another").mkdir()
    (tmp_path / "cluster_of_another" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    text, good = doctor._origin("cluster_of_another")
    assert not good
    assert "which is another package of that name than ours" in text
    assert doctor._origin("no_such_package") == ("not importable; install value-harvest again", False)
    assert doctor._installed("no-such-distribution") == ("not installed; run `pip install no-such-distribution`", False)
