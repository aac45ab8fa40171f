"""The formats, and the way from a source to its items."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from harvest.benchmarks.c_voice import is_workbook, read_c_voice
from harvest.benchmarks.conflicts import spelling_key
from harvest.benchmarks.packaged import PREFIX, builtin_contents, builtin_names
from harvest.benchmarks.source import BenchmarkSource, Fault, Faults, Reader
from harvest.benchmarks.value_insight import read_value_insight
from harvest.errors import BenchmarkError
from harvest.types import Item

FORMATS: dict[str, Reader] = {"c_voice": read_c_voice, "value_insight": read_value_insight}

NUM_FAULTS_SHOWN = 3


def read_benchmark(source: BenchmarkSource) -> list[Item]:
    """All items of the source, both aspects of every question, in the file's order.

    Raises BenchmarkError with the first faults and their number if there is any.
    """
    items, found = _read(source)
    if not found:
        return items
    message = "; also ".join(str(fault) for fault in found[:NUM_FAULTS_SHOWN])
    if len(found) > NUM_FAULTS_SHOWN:
        message += f"; {len(found)} faults in all: `value-harvest benchmark validate {source.path}` lists them"
    raise BenchmarkError(message)


def faults(source: BenchmarkSource) -> list[Fault]:
    """Everything that is wrong with the source, in the order of its rows as far as each check goes; empty: nothing."""
    return _read(source)[1]


def groups(items: Iterable[Item]) -> dict[str, int]:
    """Number of questions per group, in order of appearance."""
    return dict(Counter(group for group, _ in dict.fromkeys((item.group, item.question_id) for item in items)))


def _read(source: BenchmarkSource) -> tuple[list[Item], list[Fault]]:
    noted = Faults(source.path)
    data = _contents(source, noted)
    if source.name is not None and ("/" in source.name or not source.name.strip()):
        noted.add(f"name {source.name!r} is blank or contains '/'", "give another `name`")
    format_name = _format(source, data, noted)
    if noted.found:
        return [], noted.found
    items = FORMATS[format_name](source, data, noted)
    if source.value is not None and not noted.found:
        items = _of_value(items, source.value, noted)
    return items, noted.found


def _contents(source: BenchmarkSource, noted: Faults) -> bytes:
    if source.path.startswith(PREFIX):
        name = source.path.removeprefix(PREFIX)
        if name in builtin_names():
            return builtin_contents(name)
        noted.add("is not built in", "there are " + ", ".join(PREFIX + known for known in builtin_names()))
        return b""
    path = Path(source.path)
    try:
        if not path.is_file():
            noted.add("is not a file" if path.exists() else "does not exist", "check the path")
            return b""
        data = path.read_bytes()
    except OSError as error:
        noted.add(f"cannot be read ({error.strerror})", "check the path and its permissions")
        return b""
    if not data.strip():
        noted.add("is empty", "check the path, or write the file anew")
    return data


def _format(source: BenchmarkSource, data: bytes, noted: Faults) -> str:
    """The format's name; "" once its fault is noted."""
    known = ", ".join(FORMATS)
    if source.format is not None:
        if source.format in FORMATS:
            return source.format
        noted.add(f"format {source.format!r} is unknown", f"give one of {known}")
        return ""
    if is_workbook(source, data):
        return "c_voice"
    try:
        first = json.loads(data.strip().split(b"\n")[0])
    except (ValueError, RecursionError):
        first = None
    if isinstance(first, dict) and "kind" in first:
        return "value_insight"
    if isinstance(first, dict) and "dilemma" in first:
        return "c_voice"
    if not noted.found:
        noted.add("does not show its format", f"give `format`: one of {known}")
    return ""


def _of_value(items: list[Item], value: str, noted: Faults) -> list[Item]:
    chosen = [item for item in items if spelling_key(item.value) == spelling_key(value)]
    if not chosen:
        present = ", ".join(dict.fromkeys(item.value for item in items))
        noted.add(f"has no questions on {value!r}", f"give `value` as one of {present}")
    return chosen
