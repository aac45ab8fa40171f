"""Bad input is refused in one sentence on stderr, with the right exit code, before anything is written."""

from __future__ import annotations

import json
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from openpyxl import Workbook
from stored import finished_store

import value_harvest

DILEMMA = {
    "value": "Harmony",
    "conflict": "rivalry",
    "dilemma": "Two bakeries want one stall.",
    "option_a": "Share it.",
    "option_b": "Race for it.",
    "language": "en",
}


@dataclass
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a command in this process."""

    def run(*arguments: object) -> Said:
        with pytest.raises(SystemExit) as ended:
            value_harvest.main([str(one) for one in arguments])
        captured = capsys.readouterr()
        return Said(int(ended.value.code or 0), captured.out, captured.err)

    return run


@dataclass
class Desk:
    """A study that is right in everything but what a test changes."""

    root: Path
    model: Path
    extra: str = ""
    benchmark: str = "dilemmas.jsonl"

    @property
    def out(self) -> Path:
        return self.root / "run"

    def write_lines(self, *lines: object) -> None:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (self.root / "dilemmas.jsonl").write_text(text, encoding="utf-8")

    @property
    def study(self) -> Path:
        file = self.root / "study.yaml"
        file.write_text(
            f"out: {self.out}\nmodel: {{path: {self.model}, dtype: float32, max_model_len: 1024}}\n"
            f"benchmarks: [{{path: {self.root / self.benchmark}}}]\nrespond: {{max_tokens: 20}}\n{self.extra}"
        )
        return file

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def desk(tmp_path: Path, tiny_llama: Path) -> Desk:
    desk = Desk(tmp_path, tiny_llama)
    desk.write_lines(DILEMMA)
    return desk


def refused(said: Said, *, code: int = 2) -> str:
    """The one sentence of a refusal."""
    assert said.code == code, said
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err
    assert len(said.err) < 1000
    return said.err.strip()


def own_model(desk: Desk) -> Path:
    desk.model = shutil.copytree(desk.model, desk.root / "model")
    return desk.model


def truncated_weights(desk: Desk) -> None:
    file = own_model(desk) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])


def huge_header(desk: Desk) -> None:
    file = own_model(desk) / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 2**40) + file.read_bytes()[8:])


def no_template(desk: Desk) -> None:
    (own_model(desk) / "chat_template.jinja").unlink()


def no_tokenizer(desk: Desk) -> None:
    for file in own_model(desk).glob("*token*"):
        file.unlink()


def lines(*changes: dict[str, object]) -> Callable[[Desk], None]:
    return lambda desk: desk.write_lines(*({**DILEMMA, **change} for change in changes))


def workbook(*rows: list[object]) -> Callable[[Desk], None]:
    def write(desk: Desk) -> None:
        book = Workbook()
        for row in rows:
            book.active.append(row)
        book.save(desk.root / "和谐.xlsx")
        desk.benchmark = "和谐.xlsx"

    return write


def lonely_aspect(desk: Desk) -> None:
    desk.write_lines(
        {"kind": "description", "id": "d", "dimension": "C", "aspect": "positive", "text": "T.", "language": "en"},
        {"kind": "question", "id": "q", "dimension": "C", "question": "Q?", "language": "en"},
    )


def setting(**changes: str) -> Callable[[Desk], None]:
    def change(desk: Desk) -> None:
        for name, value in changes.items():
            setattr(desk, name, Path(value) if name == "model" else value)

    return change


BAD_INPUT: dict[str, tuple[Callable[[Desk], None], str]] = {
    "unknown key": (setting(extra="ablatee: {}\n"), "study.yaml:ablatee: unknown key; known there are out, "),
    "malformed YAML": (setting(extra="ablate: [\n"), "study.yaml:line 6: is not plain YAML"),
    "a tag": (setting(extra="store: !!python/object/apply:os.getcwd []\n"), "is not plain YAML"),
    "no model folder": (setting(model="/nowhere/model"), "/nowhere/model: no such model folder; give the path"),
    "truncated weights": (truncated_weights, "bytes of weights where its header names"),
    "a huge header": (huge_header, "model.safetensors: is not a safetensors file, or was cut short"),
    "no chat template": (no_template, "has no chat template; use an instruction-tuned checkpoint"),
    "no tokenizer": (no_tokenizer, "its tokenizer cannot be read"),
    "no benchmark": (setting(benchmark="none.jsonl"), "none.jsonl: does not exist; check the path"),
    "a blank cell": (lines({}, {"option_b": "  "}), "dilemmas.jsonl:2: option_b is blank"),
    "a missing field": (lambda desk: desk.write_lines({"dilemma": "x", "language": "en"}), "value is missing"),
    "no columns": (workbook(["a", "b"], ["c", "d"]), "和谐.xlsx"),
    "an aspect without its opposite": (lonely_aspect, "opposing"),
    "a prompt too long": (
        lines({"dilemma": "x" * 3000}),
        "tokens and the answer may have 20, more than the context of",
    ),
    "more positions than the model": (
        lambda desk: setting(extra="cluster: {}\n")(desk) or own_config(desk, 512),
        "model.max_model_len: 1024 is more than the 512 positions",
    ),
    "a language without a prompt": (lines({"language": "sw"}), "no role prompt for language 'sw'; known are en, zh"),
}


def own_config(desk: Desk, positions: int) -> None:
    file = own_model(desk) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_position_embeddings": positions}))


@pytest.mark.parametrize("command", ["run", "respond"])
@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_refused_and_nothing_is_written(name: str, command: str, desk: Desk, say: Callable[..., Said]):
    damage, sentence = BAD_INPUT[name]
    damage(desk)
    study, before = desk.study, desk.files()
    assert sentence in refused(say(command, study))
    assert desk.files() == before
    assert not desk.out.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nosuch"], "No such command 'nosuch'; see `value-harvest --help`"),
        (["run"], "Missing parameter: study; see `value-harvest --help`"),
        (["run", "none.yaml", "--sett", "a=b"], "No such option"),
        (["run", "/nowhere/study.yaml"], "/nowhere/study.yaml: cannot be read (No such file or directory)"),
        (["benchmark", "nosuch"], "No such command 'nosuch'"),
        (["benchmark", "show", "/nowhere.jsonl"], "/nowhere.jsonl: does not exist"),
        (
            ["benchmark", "show", "builtin:c_voice.zh", "--format", "csv"],
            "format 'csv' is unknown; give one of c_voice",
        ),
        (["benchmark", "show", "builtin:../x"], "builtin:../x: is not built in"),
        (["status", "/nowhere"], "/nowhere: is not the folder of a run"),
        (["verify", "/nowhere"], "there is no store at /nowhere; name the folder"),
        (["verify", "s3:/bucket"], "a URL that was taken for a path; write s3://BUCKET/PREFIX"),
        (["verify", "gs://bucket/x"], "is neither a path nor s3://BUCKET/PREFIX"),
        (["gc", "."], "there is no store at "),
        (["export", ".", "out"], "there is no store at "),
        (["demo-model", "/dev/null/model"], "out: '/dev/null/model' cannot be written (Not a directory)"),
        (["demo", "--out", "/dev/null/run"], "out: '/dev/null/run' cannot be written (Not a directory)"),
    ],
    ids=" ".join,
)
def test_bad_usage_is_refused(
    arguments: list[str], sentence: str, say: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(say(*arguments))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["capture", "select", "ablate", "score", "report"])
def test_a_stage_before_its_time_names_the_first_one_that_lacks(command: str, desk: Desk, say: Callable[..., Said]):
    desk.extra = "select: [{top_k: 5}]\nsplit: false\n"
    study, before = desk.study, desk.files()
    assert "respond was not run with these settings; run `value-harvest respond` first" in refused(say(command, study))
    store = {path: data for path, data in desk.files().items() if path not in before}
    assert [Path(path).name for path in store] == ["store.json"]


def test_more_neurons_than_the_model_has_are_refused_before_anything_runs(desk: Desk, say: Callable[..., Said]):
    before = {**desk.files(), str(desk.study): desk.study.read_bytes()}
    assert "select.top_k: 2000 is more than the 288 neurons of the model" in refused(say("run", desk.study))
    assert desk.files() == before


@pytest.mark.parametrize("command", ["respond", "capture", "select", "ablate", "score", "report", "run"])
def test_answers_with_nothing_to_count_are_refused_by_every_stage(command: str, desk: Desk, say: Callable[..., Said]):
    study, before = desk.study, desk.files()
    one = ["--set", "respond.max_tokens=1"]
    assert "respond.max_tokens: 1 leaves nothing to count" in refused(say(command, study, *one))
    if command == "respond":
        # a prompt's tokens can be counted
        assert say(command, study, *one, "--set", "capture.phase=prompt", "--dry-run").code == 0
    assert desk.files() == before


@pytest.mark.parametrize("command", ["respond", "capture", "ablate", "run"])
def test_a_dry_run_writes_nothing_and_says_what_would_be_done(command: str, desk: Desk, say: Callable[..., Said]):
    desk.extra = "select: [{top_k: 5}]\nsplit: false\n"
    study, before = desk.study, desk.files()
    said = say(command, study, "--dry-run")
    assert (said.code, said.err) == (0, "")
    assert "tokens to prefill" in said.out
    assert "no estimate: no commit of this model" in said.out
    found = json.loads(say(command, study, "--dry-run", "--json").out)["stages"]
    assert [one["stage"] for one in found] == (["respond", "capture", "ablate"] if command == "run" else [command])
    assert all(one["prefill"] > 0 and one["seconds"] is None for one in found)
    assert "--json: goes with --dry-run" in refused(say(command, study, "--json"))
    assert desk.files() == before


def test_a_folder_that_cannot_be_written_is_refused(desk: Desk, say: Callable[..., Said]):
    (desk.root / "file").write_text("")
    before = {**desk.files(), str(desk.study): desk.study.read_bytes()}
    for out in (desk.root / "file", desk.root / "file" / "run"):
        sentence = refused(say("respond", desk.study, "--set", f"out={out}"))
        assert sentence.startswith(f"out: '{out}' cannot be written (")
    assert desk.files() == before


def test_two_entries_with_the_same_items_are_refused(desk: Desk, say: Callable[..., Said]):
    path = desk.root / desk.benchmark
    sentence = refused(say("respond", desk.study, "--set", f"benchmarks=[{{path: {path}}}, {{path: {path}}}]"))
    assert sentence.startswith("benchmarks: 2 items are called c_voice.en/Harmony/")


@pytest.mark.parametrize("where", ["first", "last"])
def test_debug_shows_the_traceback_and_keeps_the_exit_code(where: str, say: Callable[..., Said]):
    words = ["status", "/nowhere"]
    said = say("--debug", *words) if where == "first" else say(*words, "--debug")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Traceback")
    assert "harvest.errors.InputError: /nowhere: is not the folder of a run" in said.err.splitlines()[-1]
    assert "Traceback" not in say(*words).err


def commands() -> list[list[str]]:
    def below(command: object, words: list[str]) -> list[list[str]]:
        inner = getattr(command, "commands", {})
        return [words, *(found for name in inner for found in below(inner[name], [*words, name]))]

    return below(typer.main.get_command(value_harvest.app), [])


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_helps_with_an_example(words: list[str], say: Callable[..., Said]):
    said = say(*words, "--help")
    assert (said.code, said.err) == (0, "")
    if words != ["benchmark"]:
        assert f"Example: value-harvest {' '.join(words)}" in said.out


def test_the_contract_s_commands_are_there():
    names = {words[0] for words in commands() if words}
    stages = {"respond", "capture", "select", "ablate", "score", "report"}
    assert {"demo", "demo-model", "run", "benchmark", "status", "verify", "doctor"} | stages <= names


def test_benchmarks_are_listed_shown_and_validated(desk: Desk, say: Callable[..., Said]):
    listed = say("benchmark", "list")
    assert (listed.code, listed.err) == (0, "")
    assert "builtin:c_voice.zh" in listed.out.splitlines()
    shown = say("benchmark", "show", "--json", desk.root / desk.benchmark)
    groups = {"c_voice.en/Harmony/support": 1, "c_voice.en/Harmony/conflict": 1}
    assert json.loads(shown.out) == {"groups": groups}
    assert say("benchmark", "show", desk.root / desk.benchmark).out.split() == [
        "1", "c_voice.en/Harmony/support", "1", "c_voice.en/Harmony/conflict"
    ]  # fmt: skip
    assert say("benchmark", "validate", desk.root / desk.benchmark).code == 0
    desk.write_lines(DILEMMA, {**DILEMMA, "option_a": ""}, {**DILEMMA, "value": "a/b"})
    said = say("benchmark", "validate", desk.root / desk.benchmark)
    assert said.code == 2
    assert [line.split(": ")[0].rsplit(":", 1)[1] for line in said.out.splitlines()] == ["2", "3"]
    assert said.err.count("\n") == 1
    assert "faults: 2" in said.err


def test_verify_counts_what_is_damaged_and_exits_1(tmp_path: Path, say: Callable[..., Said]):
    store = finished_store(tmp_path / "store")
    good = say("verify", store.root)
    assert (good.code, good.out) == (0, "damaged files: 0; harmless leftovers of unfinished attempts: 0\n")
    victim = next(
        path for path in Path(store.root).glob("attempts/*/*.zarr/mean/**/*") if path.is_file() and path.suffix == ""
    )
    victim.write_bytes(victim.read_bytes()[:-1])
    bad = say("verify", store.root)
    assert bad.code == 1
    assert str(victim) in bad.out
    assert bad.out.endswith("damaged files: 1; harmless leftovers of unfinished attempts: 0\n")


def test_gc_lists_and_deletes_and_export_copies(tmp_path: Path, say: Callable[..., Said]):
    store = finished_store(tmp_path / "store")
    unit = next(Path(store.root).glob("attempts/rows-*"))
    half = unit / ("0" * 32 + ".zarr") / "zarr.json"
    half.parent.mkdir()
    half.write_bytes(b"half")
    looked = say("gc", store.root)
    assert looked.code == 0
    assert f"           4  {unit}/{'0' * 32}: another attempt was committed" in looked.out
    assert looked.out.endswith("removed or committed: 0 (0 bytes freed); left alone because they are young: 1\n")
    assert say("gc", store.root, "--delete").out == looked.out
    assert half.exists()
    deleted = say("gc", store.root, "--delete", "--older-than", "0")
    assert "leftovers: 1; removed or committed: 1 (4 bytes freed);" in deleted.out
    assert not half.exists()
    out = tmp_path / "copy"
    assert "units and views copied: 7 (" in say("export", store.root, out).out
    assert "units and views copied: 0 (0 bytes); there before: 7" in say("export", store.root, out).out
    assert say("verify", out).code == 0


def test_status_is_for_people_and_for_programs(tmp_path: Path, say: Callable[..., Said]):
    (tmp_path / ".stages").mkdir()
    assert json.loads(say("status", tmp_path, "--json").out) == {
        "stages": [], "units": None, "store": None, "merged": None, "rows": None, "histogram": None,
        "answers": None, "progress": None,
    }  # fmt: skip
    assert "merged: not yet" in say("status", tmp_path).out


def test_the_demo_model_is_written_and_its_path_said(tmp_path: Path, say: Callable[..., Said]):
    said = say("demo-model", tmp_path / "m")
    assert (said.code, said.out, said.err) == (0, f"{tmp_path / 'm'}\n", "")
    planted = json.loads((tmp_path / "m" / "planted.json").read_text())
    assert planted
    assert all(one.keys() == {"group", "layer", "neuron"} for one in planted)


def test_a_disk_that_takes_nothing_more_is_said_in_one_sentence(tmp_path: Path, say: Callable[..., Said]):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        said = say("demo-model", tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in refused(said, code=1)


def test_doctor_finds_this_installation_whole(say: Callable[..., Said]):
    said = say("doctor")
    assert (said.code, said.err) == (0, "")
    assert all(line.startswith("ok ") for line in said.out.splitlines())


def test_the_program_itself_exits_with_the_code_and_a_clean_stdout():
    program = Path(value_harvest.__file__)
    ended = subprocess.run(
        [sys.executable, program, "status", "/nowhere"], capture_output=True, text=True, check=False, cwd=program.parent
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "/nowhere: is not the folder of a run; give the `out` of a study that was started\n"
