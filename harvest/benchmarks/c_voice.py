"""Format `c_voice`: dilemmas between a social value and a conflicting one, as JSONL or as published workbooks.

A line: {"id" (optional), "value", "conflict", "dilemma", "option_a", "option_b", "language"}.
"""

from __future__ import annotations

from harvest.benchmarks.c_voice_workbook import read_workbook
from harvest.benchmarks.dilemmas import Dilemma
from harvest.benchmarks.fields import QuestionIds, read_name, read_text
from harvest.benchmarks.jsonl import file_language, read_lines
from harvest.benchmarks.source import BenchmarkSource, Faults
from harvest.benchmarks.workbook import OLE_MAGIC, ZIP_MAGIC
from harvest.types import Item


def is_workbook(source: BenchmarkSource, data: bytes) -> bool:
    return source.path.lower().endswith(".xlsx") or data.startswith((ZIP_MAGIC, OLE_MAGIC))


def read_c_voice(source: BenchmarkSource, data: bytes, faults: Faults) -> list[Item]:
    """Two items a dilemma, `support` and `conflict`, in the file's order."""
    if is_workbook(source, data):
        return read_workbook(source, data, faults)
    lines = read_lines(data, faults)
    language = file_language(lines, source, faults, default=None)
    benchmark = source.benchmark("c_voice", language)
    ids = QuestionIds()
    items: list[Item] = []
    for row, record in lines:
        value = read_name(record, "value", faults, row)
        conflict, question, option_a, option_b = (
            read_text(record, field, faults, row) for field in ("conflict", "dilemma", "option_a", "option_b")
        )
        dilemma = Dilemma(value, conflict, question, option_a, option_b)
        question_id = ids.read(record, value, dilemma.contents, faults, row)
        if dilemma.is_whole and question_id:
            items += dilemma.items(benchmark, language, question_id)
    return items
