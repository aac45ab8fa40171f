"""What a study refuses before hours of work, and what its stages depend on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from analysis.settings import Study
from analysis.stages import _inputs
from analysis.study import StudyRun
from harvest.benchmarks.registry import read_benchmark
from harvest.benchmarks.source import BenchmarkSource
from harvest.errors import BenchmarkError, ConfigError
from harvest.types import Half, half_of


def write_dilemmas(path: Path, number: int) -> Path:
    lines = [
        {
            "id": f"q{at}",
            "value": "Harmony",
            "conflict": "rivalry",
            "dilemma": f"The choir of house {at} sings late.",
            "option_a": "Ask for peace.",
            "option_b": "Sing louder.",
            "language": "en",
        }
        for at in range(number)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def study_run(tmp_path: Path, model: Path, number: int = 12, **sections: object) -> StudyRun:
    settings = {
        "out": tmp_path / "run",
        "model": {"path": model, "dtype": "float32", "max_model_len": 1024},
        "benchmarks": [{"path": str(write_dilemmas(tmp_path / "dilemmas.jsonl", number))}],
        "respond": {"max_tokens": 20},
        "select": [{"top_k": 5}],
        **sections,
    }
    return StudyRun(Study.model_validate(settings))


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"select": [{"top_k": 289}]}, "select.top_k: 289 is more than the 288 neurons"),
        ({"respond": {"max_tokens": 1}}, "respond.max_tokens: 1 leaves nothing to count"),
        ({"capture": {"rows": "none"}}, "capture.rows: split needs per-question rows"),
    ],
)
def test_what_select_would_lack_is_said_before_anything_runs(sections, sentence, tmp_path: Path, tiny_llama: Path):
    with pytest.raises(ConfigError, match=sentence):
        study_run(tmp_path, tiny_llama, **sections).check_selection()


def test_a_value_with_questions_in_one_half_only_is_refused_and_named(tmp_path: Path, tiny_llama: Path):
    with pytest.raises(BenchmarkError, match=r"c_voice.en/Harmony: all its questions \(1\) lie in the \w+ half"):
        study_run(tmp_path, tiny_llama, number=1).check_selection()
    study_run(tmp_path, tiny_llama, number=1, split=False).check_selection()
    study_run(tmp_path, tiny_llama).check_selection()


def test_a_question_that_stands_twice_stays_in_one_half():
    ids = [f"q-{at:012x}" for at in range(50)]
    assert all(half_of(f"{one}~{again}") is half_of(one) for one in ids for again in (2, 3))
    assert {half_of(one) for one in ids} == {Half.IDENTIFY, Half.EVALUATE}


def test_another_chat_template_or_end_token_makes_other_answers(tmp_path: Path, tiny_llama: Path):
    plain = study_run(tmp_path, tiny_llama)
    polite = shutil.copytree(tiny_llama, tmp_path / "polite")
    template = (polite / "chat_template.jinja").read_text()
    (polite / "chat_template.jinja").write_text("PLEASE " + template)
    ending = shutil.copytree(tiny_llama, tmp_path / "ending")
    config = json.loads((ending / "tokenizer_config.json").read_text())
    (ending / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<|user|>"}))
    asked, ended = study_run(tmp_path, polite), study_run(tmp_path, ending)
    assert asked.checkpoint.fingerprint == plain.checkpoint.fingerprint == ended.checkpoint.fingerprint
    assert asked.role_prompts != plain.role_prompts
    assert _inputs("respond", asked) != _inputs("respond", plain)
    assert ended.role_prompts == plain.role_prompts
    assert _inputs("respond", ended) != _inputs("respond", plain)
    assert ended.generation != plain.generation


def test_the_published_workbook_with_repeated_rows_keeps_them_in_one_half(shared_data: Path):
    source = BenchmarkSource(str(shared_data / "c_voice/公正-final.xlsx"), "c_voice", "公正", "zh")
    ids = {item.question_id for item in read_benchmark(source)}
    repeats = [one for one in ids if "~" in one]
    assert len(ids) == 203
    assert len(repeats) == 3
    assert all(half_of(one) is half_of(one.partition("~")[0]) for one in repeats)
