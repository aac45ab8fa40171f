"""A study file is read or refused in one sentence that starts with file:field, and executes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from analysis.settings import Study
from harvest.config import load
from harvest.errors import ConfigError
from harvest.prompts.order import OrderRule

LEAST = "out: runs/x\nmodel: {path: m}\nbenchmarks: [{path: b}]\n"


def study(tmp_path: Path, text: str | bytes, *overrides: str) -> Study:
    file = tmp_path / "study.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(file, overrides, Study)


def refusal(tmp_path: Path, text: str | bytes, *overrides: str) -> str:
    """What the user reads, after the file's name; always one line, and short."""
    with pytest.raises(ConfigError) as refused:
        study(tmp_path, text, *overrides)
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message.removeprefix(str(tmp_path / "study.yaml"))


def test_the_contract_s_example_is_a_study(tmp_path: Path):
    found = study(
        tmp_path,
        """
        out: runs/my-study
        model: {path: models/m, dtype: bfloat16, max_model_len: 2048}
        benchmarks: [{path: a.xlsx, format: c_voice, value: 和谐, language: zh}]
        respond: {max_tokens: 300, repetition_penalty: 1.1}
        capture: {mode: replay, phase: response, rows: full}
        select: [{method: probability, top_k: 2000, threshold: 0.1}]
        ablate: {prompt: role, operations: [zero], controls: 3}
        split: true
        cluster: {engines: 2}
        """,
    )
    assert found.benchmarks[0].value == "和谐"
    assert (found.ablate.controls, found.cluster.engines, found.split) == (3, 2, True)
    assert found.store_path == "runs/my-study/store"


def test_what_is_left_out_has_its_default(tmp_path: Path):
    found = study(tmp_path, LEAST)
    assert found.respond.max_tokens == 500
    assert found.respond.option_order is OrderRule.BALANCED
    assert found.split is True
    assert found.ablate.controls == 20
    assert study(tmp_path, LEAST + "store: elsewhere\n").store_path == "elsewhere"
    bucket = study(tmp_path, LEAST + "store: s3://bucket/a/b\n")
    assert (bucket.store_path, bucket.store.fsync) == ("s3://bucket/a/b", False)
    forced = study(tmp_path, LEAST + "store: {fsync: true}\n")
    assert (Path(forced.store_path), forced.store.fsync) == (forced.out / "store", True)
    with pytest.raises(ValidationError, match="frozen"):
        found.out = Path("another")


SECTIONS = ["model", "respond", "capture", "ablate", "cluster", "benchmarks.0", "select.0"]


@pytest.mark.parametrize("section", SECTIONS)
def test_an_unknown_key_is_named_with_its_place(section: str, tmp_path: Path):
    text = LEAST + "select: [{top_k: 3}]\n"
    message = refusal(tmp_path, text, f"{section}.max_token=3")
    assert message == f":{section}.max_token: unknown key; remove it or correct its spelling"


def test_an_unknown_section_is_named_with_the_known_ones(tmp_path: Path):
    message = refusal(tmp_path, LEAST + "respondd: {}\n")
    assert message.startswith(":respondd: unknown key; known there are out, store, model, benchmarks, respond, ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.max_model_len=many", ":model.max_model_len: input should be a valid integer"),
        ("model.max_model_len=15", ":model.max_model_len: input should be greater than or equal to 16, not 15"),
        ("model.dtype=int8", ":model.dtype: input should be 'bfloat16', 'float16' or 'float32', not 'int8'"),
        ("model=3", ":model: input should be a valid dictionary or instance of ModelSection, not 3"),
        ("model.path=[a]", ":model.path: input is not a valid path"),
        ("benchmarks=[]", ":benchmarks: tuple should have at least 1 item"),
        ("benchmarks=b.xlsx", ":benchmarks: input should be a valid tuple, not 'b.xlsx'"),
        ("benchmarks.0.seed=x", ":benchmarks.0.seed: input should be a valid integer"),
        ("respond.max_tokens=0", ":respond.max_tokens: input should be greater than or equal to 1, not 0"),
        ("respond.max_tokens=2.5", ":respond.max_tokens: input should be a valid integer"),
        ("respond.repetition_penalty=0", ":respond.repetition_penalty: input should be greater than 0"),
        ("respond.repetition_penalty=.inf", ":respond.repetition_penalty: input should be a finite number, not inf"),
        ("respond.repetition_penalty=.nan", ":respond.repetition_penalty: input should be a finite number, not nan"),
        ("respond.option_order=random", ":respond.option_order: input should be 'published' or 'balanced'"),
        ("capture.mode=both", ":capture.mode: input should be 'replay' or 'online', not 'both'"),
        ("capture.phase=answer", ":capture.phase: input should be 'prompt', 'response' or 'both', not 'answer'"),
        ("select.0.threshold=.inf", ":select.0.threshold: input should be a finite number"),
        ("select.0.method=entrophy", ":select.0.method: input should be 'probability', not 'entrophy'"),
        ("ablate.operations=[boost]", ":ablate.operations.0: input should be 'zero', not 'boost'"),
        ("ablate.prompt=rolle", ":ablate.prompt: input should be 'role' or 'neutral', not 'rolle'"),
        ("split=perhaps", ":split: input should be a valid boolean"),
        ("cluster.deadline_s=0", ":cluster.deadline_s: input should be greater than 0, not 0"),
        ("cluster.engines=0", ":cluster.engines: input should be greater than or equal to 1, not 0"),
        ("out=null", ":out: input is not a valid path"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(override: str, message: str, tmp_path: Path):
    assert refusal(tmp_path, LEAST + "select: [{top_k: 3}]\n", override).startswith(message)


def test_what_is_missing_is_named_and_the_other_faults_are_counted(tmp_path: Path):
    assert refusal(tmp_path, "out: x\nmodel: {path: m}\n") == ":benchmarks: is required; add it"
    message = refusal(tmp_path, "model: {dtype: float32}\n")
    assert message.endswith("is required; add it (and 2 more)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": holds no settings"),
        ("# only words\n", ": holds no settings"),
        ("- a\n- b\n", ": holds no settings"),
        ("just words", ": holds no settings"),
        ("out: a\nout: b\n", ":line 2: is not plain YAML (key 'out' stands twice)"),
        ("model: {path: a, path: b}\n", ":line 1: is not plain YAML (key 'path' stands twice)"),
        ("out: [a\n", ":line 2: is not plain YAML"),
        ("out:\n\tx: 1\n", ":line 2: is not plain YAML"),
        ("out: a\n---\nout: b\n", ":line 2: is not plain YAML"),
        ("? [a, b]\n: c\n", ":line 1: is not plain YAML (a key is not a text)"),
        ("out: &x a\nstore: *x\n", ":line 2: is not plain YAML (an alias stands for a value; write the value out)"),
        ("out: 2024-02-30\n", ": is not plain YAML (cannot be parsed)"),
        ("seed: " + "9" * 5000, ": is not plain YAML (cannot be parsed)"),
        ("[" * 5000, ": is not plain YAML (cannot be parsed)"),
        (b"out: \xff\n", ": is not UTF-8 text (byte 5); save it as UTF-8"),
        (b"out: a\x00b\n", ": is not plain YAML (cannot be parsed)"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_a_file_that_holds_no_study_is_refused_with_its_line(text: str | bytes, message: str, tmp_path: Path):
    assert refusal(tmp_path, text).startswith(message)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    for path, why in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=rf"^{path}: cannot be read \({why}\); give the path of a study file$"):
            load(path, [], Study)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {marker}']",
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]",
        "!!python/object/new:subprocess.Popen [[touch, '{marker}']]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!custom {{a: 1}}",
    ],
)
def test_a_tag_executes_nothing(tag: str, tmp_path: Path):
    marker = tmp_path / "executed"
    text = tag.format(marker=marker)
    assert "is not plain YAML (could not determine a constructor" in refusal(tmp_path, f"out: {text}\n")
    assert "is not a YAML value" in refusal(tmp_path, LEAST, f"out={text}")
    assert not marker.exists()


BOMBS = {
    "nested": "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)),
    "merged": "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40)),
    "recursive": "out: &a [*a]\n",
    "shown": "a: &a [" + "x, " * 9 + "x]\nout: *a\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_alias_bomb_does_not_go_off(name: str, tmp_path: Path):
    assert "an alias stands for a value" in refusal(tmp_path, BOMBS[name] + LEAST.replace("out: runs/x\n", ""))


def test_set_reaches_into_sections_and_lists_and_the_last_one_counts(tmp_path: Path):
    found = study(
        tmp_path,
        LEAST,
        "respond.max_tokens=7",
        "respond.max_tokens=8",
        "benchmarks.0.language=zh",
        "benchmarks.0.path=a=b.jsonl",
        "ablate={controls: 2}",
        "ablate.phase=prompt",
        "select=[{top_k: 5, threshold: null}]",
        "split=false",
    )
    assert found.respond.max_tokens == 8
    assert (found.benchmarks[0].path, found.benchmarks[0].language) == ("a=b.jsonl", "zh")
    assert (found.ablate.controls, found.ablate.phase) == (2, "prompt")
    assert (found.select[0].top_k, found.select[0].threshold) == (5, None)
    assert found.split is False


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("split", "--set split: has not the form a.b=c"),
        ("=3", "--set =3: has not the form a.b=c"),
        ("", "--set : has not the form a.b=c"),
        ("benchmarks.1.path=x", "--set benchmarks.1.path=x: there is no '1' in the study; correct the path"),
        ("benchmarks.first.path=x", "--set benchmarks.first.path=x: there is no 'first' in the study"),
        ("benchmarks.-1.path=x", "--set benchmarks.-1.path=x: there is no '-1' in the study"),
        ("benchmarks.²=x", "--set benchmarks.²=x: there is no '²' in the study"),
        ("out.a=x", "--set out.a=x: there is no 'a' in the study"),
        ("out.a.b=x", "--set out.a.b=x: there is no 'a' in the study"),
        ("out=[a", "--set out=[a: '[a' is not a YAML value; quote it"),
        ("out={a: 1, a: 2}", "--set out={a: 1, a: 2}: '{a: 1, a: 2}' is not a YAML value; quote it"),
        ("out=2024-13-01", "--set out=2024-13-01: '2024-13-01' is not a YAML value; quote it"),
    ],
)
def test_an_override_that_does_not_fit_is_refused(override: str, message: str, tmp_path: Path):
    assert refusal(tmp_path, LEAST, override).startswith(message)


def test_a_pool_cannot_grow_to_fewer_engines_than_it_starts_with(tmp_path: Path):
    told = refusal(tmp_path, LEAST, "cluster.engines=2", "cluster.max_engines=1")
    assert told.startswith(":cluster: value error, max_engines 1 is less than engines 2")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["cluster.gpus_per_engine=1.5"], r"cluster\.gpus_per_engine: .*less than or equal to 1"),
        (["cluster.gpus_per_engine=0"], r"cluster\.gpus_per_engine: .*greater than 0"),
        (["cluster.dashboard=true", "cluster.address=auto"], "the cluster at auto has a dashboard of its own or none"),
        (["cluster.address=10.0.0.1"], r"cluster\.address: .*give auto, or HOST:PORT .*, not '10\.0\.0\.1'"),
        (["cluster.address=host:abc"], r"cluster\.address: .*give auto, or HOST:PORT"),
        (["cluster.gpus_per_engine=0.5", "model.tensor_parallel=2"], "for engines on one GPU, .* cut into 2 ranks"),
    ],
)
def test_a_cluster_section_that_cannot_be_meant_is_refused(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load(Path(__file__).parents[3] / "configs" / "clusters" / "one-node-8-gpu.yaml", overrides, Study)
