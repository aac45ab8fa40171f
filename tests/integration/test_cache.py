"""The same activation is never paid for twice: what engines did is counted from what the store's commits say.

The store is a copy of the demo's. One real engine serves all studies of this file, so that what it costs to start one
is paid once as well; two further processes share a store at the same time, one of them with a clock that jumped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from road import PROJECT, command, run

from analysis.forecast import forecast
from analysis.settings import Study
from analysis.stages import run_stage
from analysis.study import StudyRun
from harvest.benchmarks.packaged import builtin_contents
from harvest.errors import ModelError
from harvest.fleet import Fleet
from harvest.store.commit import Store
from harvest.store.verify import verify_store
from harvest.types import Half, half_of

DEMO = [json.loads(line) for line in builtin_contents("c_voice.zh").splitlines()]
HARMONY = [line for line in DEMO if line["value"] == "和谐"]


def new_value(name: str, number: int = 4) -> list[dict[str, str]]:
    """A value that the demo has not, with questions of its own."""
    return [
        {**line, "id": f"{name}-{at}", "value": name, "dilemma": f"{line['dilemma']}（{name}）"}
        for at, line in enumerate(HARMONY[:number])
    ]


@dataclass
class Paid:
    """What a store says engines did."""

    answers: set[str] = field(default_factory=set)
    units: set[str] = field(default_factory=set)
    passes: dict[str, Any] = field(default_factory=dict)
    # by id

    def tokens(self, *modes: str) -> tuple[int, int]:
        """Prefilled and generated in passes of these modes, each pass once."""
        some = [said["tokens"] for said in self.passes.values() if said["mode"] in modes]
        return sum(one["prefilled"] for one in some), sum(one["generated"] for one in some)


def paid(store: Store, before: set[str]) -> Paid:
    """What came into the store since it held no more than the commits of these units."""
    found = Paid()
    for kind in ("answers", "moments", "rows", "maxima", "histogram"):
        for commit in store.commits(kind):
            if commit.unit not in before:
                found.answers.update(commit.members)
                found.passes[commit.provenance["pass"]] = commit.provenance
                if kind != "answers":
                    found.units.add(commit.unit)
    return found


def commits(store: Store) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in Path(store.root).glob("commits/*.json")}


def attempts(store: Store) -> set[str]:
    return {str(path) for path in Path(store.root).glob("attempts/*/*")}


@dataclass
class Desk:
    """Studies on one store, and one engine for all of them."""

    root: Path
    model: Path
    fleet: Fleet | None = None
    said: list[dict[str, Any]] = field(default_factory=list)
    # by the fleet, of the last study

    @property
    def store(self) -> Store:
        return Store(self.root / "store")

    def file(self, name: str, lines: list[dict[str, str]], **more: Any) -> Path:
        """A study of these dilemmas in the demo's groups."""
        dilemmas = self.root / f"{name}.jsonl"
        dilemmas.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        settings = {
            "out": str(self.root / name),
            "store": str(self.root / "store"),
            "model": {"path": str(self.model), "dtype": "float32"},
            "benchmarks": [{"path": str(dilemmas), "name": "c_voice"}],
            "respond": {"max_tokens": 120},
            "select": [{"top_k": 6, "threshold": 0.5}],
            "ablate": {"controls": 1},
            "cluster": {"engines": 1},
            **more,
        }
        path = self.root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings, allow_unicode=True))
        return path

    def study(self, name: str, lines: list[dict[str, str]], **more: Any) -> StudyRun:
        return StudyRun(Study.model_validate(yaml.safe_load(self.file(name, lines, **more).read_text())))

    def walk(self, study: StudyRun, *stages: str) -> Paid:
        """Do the stages; what was paid for them."""
        before = set(commits(self.store))
        study.folder.prepare()
        study.store.prepare()
        assert self.fleet is not None
        self.said.clear()
        self.fleet.on_progress = self.said.append
        for stage in stages:
            run_stage(stage, study, self.fleet)
        return paid(self.store, before)

    def progress(self, stage: str) -> dict[str, Any]:
        """The last that was said of a stage."""
        return [said for said in self.said if said["stage"] == stage][-1]


@pytest.fixture(scope="module")
def desk(demo_run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    root = tmp_path_factory.mktemp("cache")
    shutil.copytree(demo_run.out / "store", root / "store")
    desk = Desk(root, demo_run.out / "model")
    with desk.study("first", HARMONY).fleet(debug=False) as fleet:
        desk.fleet = fleet
        yield desk


def known(study: StudyRun, *stages: str) -> dict[str, Any]:
    return {one.stage: one for one in forecast(study, stages or ("respond", "capture"))}


def prompts(study: StudyRun, of: Callable[[Any], bool]) -> list[Any]:
    """The role prompts of the items that a test is about."""
    return [prompt for item, prompt in zip(study.items, study.role_prompts, strict=True) if of(item)]


def test_a_second_study_pays_for_its_new_value_alone_and_exactly_what_was_foretold(desk: Desk):
    study = desk.study("second", [*DEMO, *new_value("勤俭")])
    new = prompts(study, lambda item: item.value == "勤俭")
    foretold = known(study)
    assert foretold["respond"].kinds["answers"] == {"cached": 2 * len(DEMO), "missing": 8}
    assert foretold["respond"].prefill == sum(len(prompt.token_ids) for prompt in new)
    assert not desk.fleet.started
    assert not (desk.root / "second").exists(), "a forecast writes nothing"

    answered = desk.walk(study, "respond")
    assert len(answered.answers) == 8
    prefilled, generated = answered.tokens("generate")
    assert prefilled == foretold["respond"].prefill
    assert set(answered.passes) == {id_ for id_, said in answered.passes.items() if said["mode"] == "generate"}

    foretold = known(study)
    assert foretold["respond"].passes == ()
    capture = foretold["capture"]
    assert {one.tokens_from for one in capture.passes} == {"known"}
    assert "tokens/s per engine in" in capture.estimate
    assert capture.seconds > 0
    captured = desk.walk(study, "capture")
    assert captured.tokens("replay") == (capture.prefill, 0)
    # the last token of an answer is never forwarded
    assert capture.prefill == prefilled + generated - 8
    progress = desk.progress("capture")
    assert (progress["tokens_done"], progress["tokens"]) == (capture.prefill, capture.prefill)
    assert (progress["state"], progress["done"], progress["retries"]) == ("done", capture.passes[0].number, 0)
    assert len(captured.units) == sum(number["missing"] for number in capture.kinds.values())
    # every later forecast finds nothing to do, and so does every later run
    assert [one.passes for one in known(study).values()] == [(), ()]
    again = desk.study("again", [*DEMO, *new_value("勤俭")])
    assert desk.walk(again, "respond", "capture") == Paid()
    assert (desk.root / "again/capture.json").read_bytes() == (desk.root / "second/capture.json").read_bytes()


def test_every_commit_says_what_made_it_and_what_it_cost(desk: Desk):
    desk.walk(desk.study("said", new_value("勤俭")), "respond", "capture")
    commits_ = [one for kind in ("answers", "moments", "rows") for one in desk.store.commits(kind)]
    study, revisions = desk.study("said", HARMONY), set()
    for commit in commits_:
        said = commit.provenance
        assert said["model_fingerprint"] == study.checkpoint.fingerprint
        assert said["engine"]["tokenizer"] == study.checkpoint.tokenizer
        assert said["mode"] == ("generate" if commit.unit.startswith("answers") else "replay")
        assert said["wall_s"] > 0
        assert said["tokens"]["prefilled"] > 0
        assert said["host"]
        assert said["versions"]["python"]
        assert (said["revision"] is not None) == (PROJECT / ".git").exists()
        revisions.add(json.dumps(said["revision"] and said["revision"]["commit"]))
    for revision in map(json.loads, revisions):
        if revision is not None:
            subprocess.run(["git", "cat-file", "-e", f"{revision}^{{commit}}"], cwd=PROJECT, check=True)


def test_a_new_question_pays_for_one_block_and_one_answer_under_each_aspect(desk: Desk):
    newcomer = {**HARMONY[0], "id": "harmony-new", "dilemma": "邻居想借我家的梯子，可我正要用它修屋顶。"}
    study = desk.study("question", [*HARMONY, newcomer])
    made = desk.walk(study, "respond", "capture")
    assert len(made.answers) == 2
    assert sorted(unit.split("-")[0] for unit in made.units) == ["moments"] * 2 + ["rows"] * 2
    # each block is one pass, over the new answer and its neighbours in the block
    assert sorted(said["mode"] for said in made.passes.values()) == ["generate", "replay", "replay"]


def test_another_kind_pays_for_itself_and_touches_no_other(desk: Desk):
    lines = new_value("勤俭")
    desk.walk(desk.study("kinds", lines), "respond", "capture", "select")
    before, attempts_before = commits(desk.store), attempts(desk.store)
    views = json.loads((desk.root / "kinds/capture.json").read_text())
    for kind, capture in (
        ("maxima", {"maxima": True}),
        ("histogram", {"maxima": True, "histogram": {"neurons": str(desk.root / "kinds/neurons.parquet")}}),
    ):
        study = desk.study("kinds", lines, capture=capture)
        (foretold,) = known(study, "capture").values()
        made = desk.walk(study, "respond", "capture")
        assert {unit.split("-")[0] for unit in made.units} == {kind}
        assert made.answers == set()
        assert made.tokens("replay") == (foretold.prefill, 0)
    after = commits(desk.store)
    assert {name: after[name] for name in before} == before
    new = attempts(desk.store) - attempts_before
    assert {Path(path).parent.name.split("-")[0] for path in new} == {"maxima", "histogram"}
    now = json.loads((desk.root / "kinds/capture.json").read_text())
    assert (now["merged"], now["merged_sha256"]) == (views["merged"], views["merged_sha256"])


def test_another_phase_answers_nothing_again_and_another_option_order_only_what_is_shown_otherwise(desk: Desk):
    lines = new_value("勤俭")
    desk.walk(desk.study("phase", lines), "respond")
    phase = desk.study("phase", lines, capture={"phase": "both", "rows": "none"})
    foretold = known(phase)
    made = desk.walk(phase, "respond", "capture")
    assert made.answers == set()
    assert made.tokens("generate", "replay") == (foretold["capture"].prefill, 0)

    lines = [*lines, *HARMONY[:6]]
    plain = desk.study("plain", lines)
    order = desk.study("order", lines, respond={"max_tokens": 120, "option_order": "published"})
    other = [
        (item, new)
        for item, old, new in zip(plain.items, plain.role_prompts, order.role_prompts, strict=True)
        if old.token_ids != new.token_ids
    ]
    # the demo's ablation asked its evaluate half in both orders, and an answer is an answer whoever asked
    fresh = [new for item, new in other if item.value == "勤俭" or half_of(item.question_id) is Half.IDENTIFY]
    assert 0 < len(fresh) < len(other) < len(plain.items)
    foretold = known(order)
    assert foretold["respond"].kinds["answers"]["missing"] == len(fresh)
    made = desk.walk(order, "respond")
    assert len(made.answers) == len(fresh)
    assert made.tokens("generate")[0] == foretold["respond"].prefill == sum(len(one.token_ids) for one in fresh)


def test_another_template_or_model_pays_for_all_of_it_and_another_ablation_prompt_for_nothing(desk: Desk):
    lines = new_value("勤俭")
    desk.walk(desk.study("p", lines), "respond", "capture")
    assert [one.passes for one in known(desk.study("p", lines, ablate={"prompt": "neutral"})).values()] == [(), ()]
    copy = shutil.copytree(desk.model, desk.root / "template")
    template = copy / "tokenizer_config.json"
    template.write_text(template.read_text().replace("<|user|>", "<|user|> "))
    weights = shutil.copytree(desk.model, desk.root / "weights")
    flip(weights)
    for model in (copy, weights):
        study = desk.study("other", lines, model={"path": str(model), "dtype": "float32"})
        found = known(study)
        assert found["respond"].kinds["answers"] == {"cached": 0, "missing": len(study.items)}
        assert found["respond"].passes[0].tokens_from == "respond.max_tokens, an upper bound"
        assert {kind: number["cached"] for kind, number in found["capture"].kinds.items()} == {"moments": 0, "rows": 0}
    assert found["capture"].estimate.startswith("no estimate: no commit of this model says how fast")


def flip(model: Path) -> None:
    """Another model of the same shape: one bit of its last weight."""
    file = model / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_selecting_otherwise_imports_no_ray(desk: Desk):
    """Contrast, threshold, top_k and the controls' seed, each in a folder of its own, all in one fresh process."""
    changes = {
        "seed": {"ablate": {"controls": 2, "seed": 7}},
        "top": {"select": [{"top_k": 3, "threshold": 0.5}]},
        "threshold": {"select": [{"top_k": 0, "threshold": 0.2}]},
        "split": {"split": False},
    }
    files = [str(desk.file(name, HARMONY, **change)) for name, change in changes.items()]
    code = """
import sys
from pathlib import Path
from analysis.settings import Study
from analysis.stages import run_stage
from analysis.study import StudyRun
from harvest.config import load
for file in sys.argv[1:]:
    study = StudyRun(load(Path(file), [], Study))
    study.folder.prepare()
    with study.fleet(debug=False) as fleet:
        for stage in ("respond", "capture", "select"):
            assert run_stage(stage, study, fleet)
        assert not fleet.started
for name in ("ray", "vllm"):
    assert name not in sys.modules, name
"""
    before = commits(desk.store), attempts(desk.store)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-c", code, *files], env=environment, check=True)
    assert (commits(desk.store), attempts(desk.store)) == before


CLOCK = """
import time
_now = time.time_ns
time.time_ns = lambda: _now() + {years} * 365 * 86400 * 10**9
"""


def jumped(folder: Path, years: int) -> dict[str, str]:
    """The environment of processes, and of all that they start, whose clock is years off."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(CLOCK.format(years=years))
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(PROJECT)])}


def test_two_studies_at_once_share_a_store_even_when_a_clock_jumps(desk: Desk, say):
    """They overlap in a value. Whichever comes first makes what both need, and the views are those of a lone run."""
    together = Desk(desk.root / "together", desk.model)
    together.root.mkdir()
    a, b, c = (new_value(name, 3) for name in ("甲", "乙", "丙"))
    files = [together.file("one", [*a, *b]), together.file("other", [*b, *c])]
    clocks = [jumped(together.root / "late", 9), jumped(together.root / "early", -9)]
    running = [
        subprocess.Popen(
            command(*words, file), cwd=PROJECT, env=clock, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for words, file, clock in zip([["run"], ["run"]], files, clocks, strict=True)
    ]
    said = [process.communicate(timeout=500)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert verify_store(together.store.root) == []
    stamps = [one.created_ns for one in together.store.commits("moments")]
    assert max(stamps) - min(stamps) > 17 * 365 * 86400 * 10**9, "the clocks were not far apart"

    # everything is found again, by right clocks and wrong ones, in any folder
    before, attempts_before = commits(together.store), attempts(together.store)
    for name, lines in (("one", [*a, *b]), ("other", [*b, *c])):
        study = together.study(f"{name}-again", lines)
        study.folder.prepare()
        with study.fleet(debug=False) as fleet:
            for stage in ("respond", "capture"):
                assert run_stage(stage, study, fleet)
            assert not fleet.started
        ours, theirs = (
            json.loads((together.root / folder / "capture.json").read_text()) for folder in (name, f"{name}-again")
        )
        assert ours == theirs
    done = subprocess.run(
        command("run", files[0], "--set", f"out={together.root / 'jumped'}"),
        cwd=PROJECT, env=clocks[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (commits(together.store), attempts(together.store)) == (before, attempts_before)
    status = json.loads(run("status", together.root / "other", "--json").stdout)
    assert status["units"]["missing"] == status["answers"]["ablate"]["missing"] == 0
    assert (status["progress"]["state"], status["progress"]["alive"]) == ("finished", False)

    # alone, on a store of its own
    lone = Desk(desk.root / "lone", desk.model, desk.fleet)
    lone.root.mkdir()
    lone.walk(lone.study("one", [*a, *b]), "respond", "capture")
    alone, shared = (json.loads((each.root / "one/capture.json").read_text()) for each in (lone, together))
    for name in ("merged_sha256", "rows_sha256"):
        assert alone[name] == shared[name]
    overlap = paid(together.store, set())
    say(f"two studies at once made {len(overlap.answers)} answers in {len(overlap.passes)} passes")


def test_a_model_changed_during_a_run_is_refused_by_the_engine(desk: Desk):
    """After the study was read, before its engine is there: nothing of another model gets the first one's name."""
    model = shutil.copytree(desk.model, desk.root / "changing")
    study = desk.study("changing-run", new_value("节制"), model={"path": str(model), "dtype": "float32"})
    flip(model)
    before = commits(desk.store)
    study.folder.prepare()
    # one process has one fleet at a time
    desk.fleet.close()
    with study.fleet(debug=False) as fleet, pytest.raises(ModelError, match="is not the model that was planned with"):
        run_stage("respond", study, fleet)
    assert commits(desk.store) == before
