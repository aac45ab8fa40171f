"""A forecast is the plan itself, counted: exact where answers are there, said to be a guess where they are not."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from captured import MadeUpEngine, run_task

from analysis.forecast import Forecast, forecast, sentences
from analysis.interventions import Condition, _baseline
from analysis.settings import Study
from analysis.study import StudyRun
from harvest.capture import Answered, missing_tasks, plan_blocks
from harvest.generate import Answers, GenerationTask
from harvest.types import Completion, EditPhase, Request

LENGTHS = random.Random(3)
NUM = 40
# questions, under two aspects


class Answering(MadeUpEngine):
    """Also answers, at any length."""

    def answer(self, requests, sampling):
        return [Completion((5,) * LENGTHS.randint(2, sampling.max_tokens), "", "stop") for _ in requests]


@pytest.fixture
def run(tmp_path: Path, tiny_llama: Path) -> StudyRun:
    return study(tmp_path, tiny_llama)


def study(tmp_path: Path, model: Path, **capture: object) -> StudyRun:
    lines = [
        {
            "id": f"q{at}", "value": "Harmony", "conflict": "rivalry", "dilemma": f"Choir {at} sings late.",
            "option_a": "Ask.", "option_b": "Sing.", "language": "en"
        }
        for at in range(NUM)
    ]  # fmt: skip
    (tmp_path / "dilemmas.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {
        "out": tmp_path / "run",
        "model": {"path": model, "dtype": "float32", "max_model_len": 1024},
        "benchmarks": [{"path": str(tmp_path / "dilemmas.jsonl")}],
        "respond": {"max_tokens": 20},
        "capture": capture,
        "cluster": {"engines": 2},
    }
    return StudyRun(Study.model_validate(settings))


def engine(run: StudyRun) -> Answering:
    options = run.fleet(debug=False).options
    return Answering((3, 96), (0, 1, 2), options)


def answer(run: StudyRun, numbers: range) -> None:
    requests = [Request(run.role_prompts[number].token_ids) for number in numbers]
    keys = tuple(run.responding.key(request) for request in requests)
    run_task(GenerationTask(keys, tuple(requests), run.responding.sampling, run.store.prepare()), engine(run))


def answered(run: StudyRun) -> list[Answered]:
    answers = Answers(run.store)
    keys = [run.responding.key(Request(prompt.token_ids)) for prompt in run.role_prompts]
    found = answers.read(keys)
    return [
        Answered(prompt, found[key], item.description_id)
        for item, prompt, key in zip(run.items, run.role_prompts, keys, strict=True)
    ]


def of(run: StudyRun, *stages: str) -> dict[str, Forecast]:
    return {one.stage: one for one in forecast(run, stages or ("respond", "capture", "select", "ablate", "report"))}


def test_nothing_is_there_at_first_and_the_longest_answers_are_feared(run: StudyRun, tmp_path: Path):
    found = of(run)
    assert list(found) == ["respond", "capture", "ablate"], "the stages that need engines, in the order of the road"
    respond, capture, ablate = found.values()
    prompts = sum(len(prompt.token_ids) for prompt in run.role_prompts)
    assert respond.kinds == {"answers": {"cached": 0, "missing": 2 * NUM}}
    assert (respond.prefill, respond.generate) == (prompts, 2 * NUM * 20)
    assert {one.tokens_from for one in (*respond.passes, *capture.passes)} == {"respond.max_tokens, an upper bound"}
    assert capture.prefill == prompts + 2 * NUM * 19
    assert all(number["cached"] == 0 for number in capture.kinds.values())
    assert "an upper bound, of which some may be cached" in ablate.note
    for one in found.values():
        assert one.seconds is None
        assert one.estimate.startswith("no estimate: no commit of this model says how fast")
    assert not (tmp_path / "run").exists(), "a forecast writes nothing"
    json.dumps([one.as_json() for one in found.values()])
    assert len(sentences(list(found.values()))) >= 6


def test_an_answer_that_comes_meanwhile_is_counted_once(run: StudyRun, monkeypatch: pytest.MonkeyPatch):
    """Cached or missing: the store is looked at once for both."""
    run.store.prepare()
    requests = [Request(prompt.token_ids) for _, prompt in run.trial_prompts]
    trials = list({run.generation.key(request): request for request in requests}.items())

    def answer_trials(number: int) -> None:
        keys, some = zip(*trials[:number], strict=True)
        run_task(GenerationTask(keys, some, run.generation.sampling, run.store), engine(run))

    def conditions(run: StudyRun) -> list[Condition]:
        answer_trials(4)
        return [_baseline(group, EditPhase.BOTH) for group in dict.fromkeys(item.group for item in run.items)]

    monkeypatch.setattr("analysis.forecast.is_finished", lambda stage, run: stage == "select")
    monkeypatch.setattr("analysis.forecast.conditions_of", conditions)
    answer_trials(2)
    (found,) = forecast(run, ["ablate"])
    assert found.kinds["answers"] == {"cached": 2, "missing": len(trials) - 2}


def test_what_is_foretold_of_known_answers_is_what_is_paid(run: StudyRun):
    answer(run, range(2 * NUM))
    assert of(run)["respond"].passes == ()
    capture = of(run)["capture"]
    assert {one.tokens_from for one in capture.passes} == {"known"}
    blocks = plan_blocks(answered(run), run.capturing)
    assert capture.kinds == {kind: {"cached": 0, "missing": len(blocks)} for kind in ("moments", "rows")}
    tasks, paid = missing_tasks(blocks, run.store), 0
    for done, task in enumerate(tasks):
        left = of(run, "capture")["capture"]
        assert left.prefill == capture.prefill - paid
        assert left.kinds["rows"] == {"cached": done, "missing": len(blocks) - done}
        paid += run_task(task, engine(run))
    assert paid == capture.prefill
    ended = of(run)["capture"]
    assert (ended.passes, ended.seconds, ended.estimate) == ((), 0.0, "nothing to run")


def test_a_kind_asked_for_later_is_foretold_alone(run: StudyRun, tmp_path: Path, tiny_llama: Path):
    answer(run, range(2 * NUM))
    for task in missing_tasks(plan_blocks(answered(run), run.capturing), run.store):
        run_task(task, engine(run))
    (one,) = of(study(tmp_path, tiny_llama, maxima=True), "capture")["capture"].passes
    assert one.kinds == ("maxima",)
    assert one.tokens_from == "known"


def test_blocks_without_all_answers_take_the_mean_of_those_that_are_there(run: StudyRun):
    answer(run, range(60))
    found = of(run)
    assert found["respond"].kinds["answers"] == {"cached": 60, "missing": 20}
    assert found["respond"].passes[0].tokens_from.startswith("the mean length of 60 cached answers, ")
    assert {one.tokens_from[:8] for one in found["capture"].passes} <= {"known", "the mean"}
    before = found["capture"].prefill
    answer(run, range(60, 2 * NUM))
    # within what twenty answers of 2 … 20 tokens can differ from their mean
    assert abs(of(run)["capture"].prefill - before) <= 20 * 18


def test_time_is_what_passes_of_the_same_model_took_shared_by_the_engines(run: StudyRun):
    answer(run, range(60))
    first, second = missing_tasks_of_half(run)
    run_task(first, engine(run))
    run_task(second, engine(run))
    said = [commit.provenance for commit in run.store.commits("moments")]
    passes = {one["pass"]: one for one in said}
    rate = sum(one["tokens"]["prefilled"] for one in passes.values()) / sum(one["wall_s"] for one in passes.values())
    found = of(run, "capture")["capture"]
    assert found.seconds == pytest.approx(found.prefill / rate / 2)
    assert f"{rate:.0f} tokens/s per engine in 2 replay passes for moments, 2 engines" in found.estimate


def missing_tasks_of_half(run: StudyRun):
    """Two blocks that the study itself has not: their commits are another study's of the same model."""
    some = [
        Answered(prompt, Completion((1, 2, 3), "", "stop"), item.description_id)
        for item, prompt in zip(run.items, run.role_prompts, strict=True)
        if item.aspect == "support"
    ]
    return missing_tasks(plan_blocks(some, run.capturing), run.store)[:2]


def test_online_blocks_are_counted_while_they_are_answered(tmp_path: Path, tiny_llama: Path):
    found = of(study(tmp_path, tiny_llama, mode="online"))
    (one,) = found["respond"].passes
    assert (one.mode, one.kinds, one.number) == ("online", ("moments", "rows", "answers"), 2 * NUM)
    assert found["capture"].passes == ()
    assert found["capture"].kinds["moments"]["cached"] == 0
