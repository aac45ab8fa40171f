import os

import pytest

from harvest.benchmarks.packaged import builtin_names, lexicon
from harvest.benchmarks.registry import FORMATS, faults, groups, read_benchmark
from harvest.benchmarks.source import BenchmarkSource
from harvest.errors import BenchmarkError


def only_fault(path, **entry):
    (fault,) = faults(BenchmarkSource(str(path), **entry))
    return str(fault)


@pytest.mark.parametrize("name", ["c_voice.zh", "c_voice.en", "value_insight.en"])
def test_built_in_benchmarks_are_read_without_being_told_their_format(name):
    items = read_benchmark(BenchmarkSource(f"builtin:{name}"))
    assert {item.benchmark for item in items} == {name}
    assert items == read_benchmark(BenchmarkSource(f"builtin:{name}", format=name.split(".")[0]))


@pytest.mark.parametrize("name", ["", "c_voice", "../builtin/c_voice.zh", "c_voice.zh.jsonl", "lexicon"])
def test_only_the_built_in_names_reach_the_packages_folder(name):
    message = only_fault(f"builtin:{name}")
    assert "is not built in; there are builtin:c_voice.en, builtin:c_voice.zh, builtin:value_insight.en" in message


def test_missing_and_empty_files_and_folders_are_named(tmp_path):
    assert only_fault(tmp_path / "none.jsonl").endswith("none.jsonl: does not exist; check the path")
    assert "is not a file" in only_fault(tmp_path)
    assert "cannot be read (File name too long)" in only_fault("x" * 5000)
    (tmp_path / "empty.jsonl").write_text(" \n")
    assert "is empty" in only_fault(tmp_path / "empty.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_named(tmp_path):
    path = tmp_path / "closed.jsonl"
    path.write_text("{}")
    path.chmod(0)
    assert "cannot be read (Permission denied)" in only_fault(path)


def test_an_unknown_or_undecidable_format_lists_the_known_ones(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("hello")
    assert "format 'csv' is unknown; give one of c_voice, value_insight" in only_fault(path, format="csv")
    assert "does not show its format; give `format`: one of c_voice, value_insight" in only_fault(path)


@pytest.mark.parametrize("name", ["", " ", "a/b"])
def test_a_name_that_would_break_a_group_is_refused(name):
    with pytest.raises(BenchmarkError, match="is blank or contains '/'"):
        read_benchmark(BenchmarkSource("builtin:c_voice.en", name=name))


def test_groups_of_nothing_are_none():
    assert groups([]) == {}


def test_every_built_in_benchmark_has_a_format_and_words():
    assert {name.split(".")[0] for name in builtin_names()} == set(FORMATS) == set(lexicon())
