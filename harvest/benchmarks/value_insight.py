"""Format `value_insight`: open questions put to a described person, one description per aspect of a value dimension.

Lines: {"kind": "description", "id", "dimension", "aspect": "positive" | "opposing", "text"}
   and {"kind": "question", "id", "dimension", "text"}; `language` in the lines or the entry, "en" if in neither.
"""

from __future__ import annotations

from collections import defaultdict

from harvest.benchmarks.fields import QuestionIds, read_name, read_text
from harvest.benchmarks.jsonl import Lines, file_language, read_lines
from harvest.benchmarks.source import BenchmarkSource, Faults
from harvest.types import Item, question_bits

ASPECTS = ("positive", "opposing")

# (id, text)
Entry = tuple[str, str]


def description_index(question_id: str, seed: int, num_descriptions: int) -> int:
    """Which description a question gets, under both aspects. The seed stands first in what is hashed, so that the
    choice has nothing to do with the question's half or block."""
    return question_bits(f"{seed}:{question_id}") % num_descriptions


def read_value_insight(source: BenchmarkSource, data: bytes, faults: Faults) -> list[Item]:
    """Two items a question, `positive` and `opposing`, in the file's order."""
    lines = read_lines(data, faults)
    language = file_language(lines, source, faults, default="en")
    descriptions, questions = _collect(lines, faults)
    _check_dimensions(descriptions, questions, faults)
    if faults.found:
        return []
    benchmark = source.benchmark("value_insight", language)
    items = []
    for dimension, entries in questions.items():
        for question_id, question in entries:
            for aspect in ASPECTS:
                choice = descriptions[dimension, aspect]
                description_id, text = choice[description_index(question_id, source.seed, len(choice))]
                items.append(
                    Item(
                        question_id=question_id,
                        benchmark=benchmark,
                        value=dimension,
                        aspect=aspect,
                        language=language,
                        question=question,
                        description=text,
                        description_id=description_id,
                    )
                )
    return items


def _collect(lines: Lines, faults: Faults) -> tuple[dict[tuple[str, str], list[Entry]], dict[str, list[Entry]]]:
    """Descriptions by (dimension, aspect) and questions by dimension, both in the file's order."""
    descriptions: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    questions: dict[str, list[Entry]] = defaultdict(list)
    ids = {"description": QuestionIds(), "question": QuestionIds()}
    for row, record in lines:
        kind = read_text(record, "kind", faults, row)
        if kind and kind not in ids:
            faults.add(f"kind is {kind!r}", "write 'description' or 'question'", row)
        if kind not in ids:
            continue
        dimension, text = read_name(record, "dimension", faults, row), read_text(record, "text", faults, row)
        entry = ids[kind].read(record, dimension, (text,), faults, row), text
        if kind == "question":
            questions[dimension].append(entry)
            continue
        aspect = read_text(record, "aspect", faults, row)
        if aspect and aspect not in ASPECTS:
            faults.add(f"aspect is {aspect!r}", "write 'positive' or 'opposing'", row)
        descriptions[dimension, aspect].append(entry)
    return descriptions, questions


def _check_dimensions(
    descriptions: dict[tuple[str, str], list[Entry]], questions: dict[str, list[Entry]], faults: Faults
) -> None:
    """Every dimension needs questions and equally many descriptions of both aspects: they share an index."""
    dimensions = dict.fromkeys([*(dimension for dimension, _ in descriptions), *questions])
    for dimension in (dimension for dimension in dimensions if dimension):
        num_positive, num_opposing = (len(descriptions.get((dimension, aspect), ())) for aspect in ASPECTS)
        if num_positive != num_opposing or not num_positive:
            what = f"{dimension} has {num_positive} positive and {num_opposing} opposing descriptions"
            faults.add(what, "write equally many of both, at least one")
        if not questions.get(dimension):
            faults.add(f"{dimension} has no questions", "write some, or delete its descriptions")
