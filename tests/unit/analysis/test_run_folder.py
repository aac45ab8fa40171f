"""A finished stage is not run again; anything that changed since runs it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.run_folder import RunFolder, read_json, write_json, write_text
from harvest.errors import ConfigError, InputError

OUTPUTS = ["one.txt", "two.txt"]


class Work:
    """Writes the outputs, and counts how often."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.times = 0

    def __call__(self) -> None:
        self.times += 1
        for name in OUTPUTS:
            write_text(self.root / name, f"{name}\n")


@pytest.fixture
def finished(tmp_path: Path) -> tuple[RunFolder, Work]:
    folder, work = RunFolder(tmp_path / "run"), Work(tmp_path / "run")
    folder.prepare()
    assert folder.stage("respond", {"model": "m", "seed": 0}, OUTPUTS, work) is True
    return folder, work


def test_a_finished_stage_is_not_run_again(finished: tuple[RunFolder, Work]):
    folder, work = finished
    assert folder.stage("respond", {"seed": 0, "model": "m"}, OUTPUTS, work) is False
    assert work.times == 1


def grow(path: Path) -> None:
    path.write_text(path.read_text() + "x")


CHANGES: dict[str, Callable[[RunFolder], object]] = {
    "an output deleted": lambda folder: (folder / "two.txt").unlink(),
    "an output changed": lambda folder: grow(folder / "one.txt"),
    "an output emptied": lambda folder: (folder / "one.txt").write_bytes(b""),
    "outputs swapped": lambda folder: (
        (folder / "one.txt").rename(folder / "x"),
        (folder / "two.txt").rename(folder / "one.txt"),
        (folder / "x").rename(folder / "two.txt"),
    ),
    "the record deleted": lambda folder: (folder / ".stages/respond.json").unlink(),
    "the record of another": lambda folder: write_json(folder / ".stages/respond.json", {"inputs": "", "outputs": {}}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_folder_runs_the_stage_and_then_it_is_finished_again(name: str, finished: tuple[RunFolder, Work]):
    folder, work = finished
    CHANGES[name](folder)
    assert folder.stage("respond", {"model": "m", "seed": 0}, OUTPUTS, work) is True
    assert folder.stage("respond", {"model": "m", "seed": 0}, OUTPUTS, work) is False
    assert (folder / "one.txt").read_text() == "one.txt\n"


@pytest.mark.parametrize("inputs", [{"model": "m", "seed": 1}, {"model": "m"}, {"model": "m", "seed": "0"}, []])
def test_other_inputs_run_the_stage(inputs: object, finished: tuple[RunFolder, Work]):
    folder, work = finished
    assert folder.stage("respond", inputs, OUTPUTS, work) is True
    assert work.times == 2


def test_one_more_output_runs_the_stage(finished: tuple[RunFolder, Work]):
    folder, work = finished
    assert folder.stage("respond", {"model": "m", "seed": 0}, OUTPUTS[:1], work) is True


def test_another_stage_is_its_own(finished: tuple[RunFolder, Work]):
    folder, work = finished
    assert folder.stage("capture", {"model": "m", "seed": 0}, OUTPUTS, work) is True
    assert folder.stage("respond", {"model": "m", "seed": 0}, OUTPUTS, work) is False


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_stage_that_was_cut_off_is_run_again_even_with_its_old_inputs(
    error: type[BaseException], finished: tuple[RunFolder, Work]
):
    folder, work = finished

    def cut_off() -> None:
        work()
        raise error

    with pytest.raises(error):
        folder.stage("respond", {"model": "another"}, OUTPUTS, cut_off)
    assert folder.stage("respond", {"model": "m", "seed": 0}, OUTPUTS, work) is True


def test_a_stage_that_does_not_write_its_output_is_not_finished(tmp_path: Path):
    folder = RunFolder(tmp_path)
    with pytest.raises(InputError, match=r"one.txt: no such file"):
        folder.stage("respond", {}, OUTPUTS, lambda: None)
    assert not (folder / ".stages/respond.json").exists()


def test_a_damaged_record_is_named_with_its_remedy(finished: tuple[RunFolder, Work]):
    folder, work = finished
    for text in ("{", "[]", "\x00"):
        (folder / ".stages/respond.json").write_text(text)
        with pytest.raises(
            InputError, match=r"\.stages/respond\.json: is not .*; delete it and run `value-harvest respond"
        ):
            folder.stage("respond", {}, OUTPUTS, work)


def test_a_folder_below_a_file_is_refused_in_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            ConfigError, match=r"^out: '.*' cannot be written \((File exists|Not a directory)\); choose"
        ):
            RunFolder(root).prepare()
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_a_name_that_no_folder_can_have_is_refused(name: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"^out: .* cannot be written"):
        RunFolder(tmp_path / name).prepare()


def test_a_folder_without_permission_is_refused(tmp_path: Path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written"):
        RunFolder(tmp_path).prepare()


def test_preparing_leaves_nothing_behind_and_twice_is_once(tmp_path: Path):
    folder = RunFolder(tmp_path / "a" / "b")
    folder.prepare()
    folder.prepare()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_json_is_written_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "x.json"
    write_json(path, {"value": "和谐"})
    assert read_json(path, "report") == {"value": "和谐"}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"value": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"value": "和谐"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_names_the_stage_that_writes_it(tmp_path: Path):
    with pytest.raises(InputError, match=r"summary.json: no such file; run `value-harvest report STUDY.yaml` first"):
        read_json(tmp_path / "summary.json", "report")
