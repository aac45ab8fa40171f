"""Lines of JSON objects, with the row each one stands in."""

from __future__ import annotations

import json
import re

from harvest.benchmarks.fields import read_text
from harvest.benchmarks.source import BenchmarkSource, Faults

Lines = list[tuple[int, dict[str, object]]]

_LANGUAGE = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*")


def read_lines(data: bytes, faults: Faults) -> Lines:
    """(row, object) of every line that is one; blank lines are skipped, any other is a fault."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        faults.add("is not UTF-8", "save the file as UTF-8", data.count(b"\n", 0, error.start) + 1)
        return []
    lines: Lines = []
    # not splitlines(): JSON strings may hold U+2028
    for row, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            faults.add(f"is not JSON ({error})", "write one JSON object a line", row)
            continue
        except RecursionError:
            faults.add("is nested too deeply", "write one flat JSON object a line", row)
            continue
        if isinstance(record, dict):
            lines.append((row, record))
        else:
            faults.add(f"is a JSON {type(record).__name__}, not an object", "write one JSON object a line", row)
    if not lines and not faults.found:
        faults.add("holds no questions", "write one JSON object a line")
    return lines


def file_language(lines: Lines, source: BenchmarkSource, faults: Faults, default: str | None) -> str:
    """The one language of the file: the entry's, or what its lines say, or the default; "" once its fault is noted."""
    language = source.language
    if not lines:
        # a fault already
        return ""
    for row, record in lines:
        if "language" not in record:
            continue
        here = read_text(record, "language", faults, row)
        language = language or here or None
        if here and here != language:
            faults.add(
                f"language is {here!r} in an entry of {language!r}", "split the file: one entry, one language", row
            )
    return checked_language(language or default, faults)


def checked_language(language: str | None, faults: Faults) -> str:
    """The language if it is a tag such as "zh" or "pt-BR"; "" once its fault is noted."""
    if language is None:
        faults.add("names no language", "give `language` in the benchmark's entry or in every line")
        return ""
    if not _LANGUAGE.fullmatch(language):
        faults.add(f"language {language!r} is no language tag", "write it like 'zh' or 'pt-BR'")
        return ""
    return language
