"""C-voice's published workbooks: one value's identification sheet, or an evaluation sheet per value."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

from harvest.benchmarks.conflicts import simplified, spelling_key, split_conflict
from harvest.benchmarks.dilemmas import Dilemma
from harvest.benchmarks.fields import QuestionIds, clean, is_blank, normalised, read_text
from harvest.benchmarks.jsonl import checked_language
from harvest.benchmarks.source import BenchmarkSource, Faults
from harvest.benchmarks.workbook import Row, Sheet, read_sheets
from harvest.types import Item

IDENTIFICATION = ("冲突类型", "决策困境", "选择A", "选择B")
EVALUATION = ("Type", "Context", "Action1", "Action2")
# each: conflict type, dilemma, the value's option, the other's

_LABEL = re.compile(r"(?:选择|选项|Option\s*)?[(（]?([ABＡＢ])\s*[)）.．:：、]+\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A whole row; its dilemma's value is the left side of "vs", as spelled there."""

    sheet: str
    row: int
    is_evaluation: bool
    dilemma: Dilemma


def read_workbook(source: BenchmarkSource, data: bytes, faults: Faults) -> list[Item]:
    """Two items a row. Chinese unless the source says otherwise: nothing else was published as a workbook."""
    language = checked_language(source.language or "zh", faults)
    entries = [entry for sheet in read_sheets(data, faults) for entry in _entries(sheet, faults)]
    if not entries and not faults.found:
        faults.add("holds no questions", f"give it the columns {', '.join(IDENTIFICATION)} and a row a question")
    ids = QuestionIds()
    items: list[Item] = []
    for dilemma in _named(entries, source, faults):
        question_id = ids.of_contents(dilemma.value, dilemma.contents)
        items += dilemma.items(source.benchmark("c_voice", language), language, question_id)
    return items


def _entries(sheet: Sheet, faults: Faults) -> list[_Entry]:
    title, ((header_row, header), *rows) = sheet
    columns = _columns(header)
    if columns is None:
        what = f"has the columns {', '.join(str(cell) for cell in header if not is_blank(cell))!r:.200}"
        remedy = f"name them {', '.join(IDENTIFICATION)} or {', '.join(EVALUATION)}, each once"
        faults.add(what, remedy, header_row, title)
        return []
    entries = []
    for row, cells in rows:
        record = {name: cells[column] for name, column in columns.items()}
        # what stands beside the table only, such as a note, is no question
        if all(is_blank(cell) for cell in record.values()):
            continue
        dilemma = _dilemma(record, faults, row, title)
        if dilemma.is_whole:
            entries.append(_Entry(title, row, "Type" in columns, dilemma))
    return entries


def _columns(header: Row) -> dict[str, int] | None:
    """Column index by its published name; None unless all of one layout's columns are there, once each."""
    keys = ["" if is_blank(cell) else spelling_key(str(cell)) for cell in header]
    for layout in (IDENTIFICATION, EVALUATION):
        if all(keys.count(spelling_key(name)) == 1 for name in layout):
            return {name: keys.index(spelling_key(name)) for name in layout}
    return None


def _dilemma(record: dict[str, object], faults: Faults, row: int, sheet: str) -> Dilemma:
    """The row's dilemma, its value as spelled; fields whose fault is noted are ""."""
    type_field, question_field, field_a, field_b = record
    conflict_type = read_text(record, type_field, faults, row, sheet)
    sides = split_conflict(conflict_type)
    if conflict_type and sides is None:
        faults.add(f"{type_field} {conflict_type!r} has no 'vs' between two values", "write 'X vs Y'", row, sheet)
    value, conflict = sides or ("", "")
    question = read_text(record, question_field, faults, row, sheet)
    options = []
    for field, letter in ((field_a, "A"), (field_b, "B")):
        text = read_text(record, field, faults, row, sheet)
        label = _LABEL.match(text)
        if label and normalised(label[1]).upper() != letter:
            faults.add(f"{field} is labelled {label[0].strip()!r}", "put the value's option first", row, sheet)
            text = ""
        elif label:
            text = clean(text[label.end() :])
            if not text:
                faults.add(f"{field} is only its label", "fill it in or delete the row", row, sheet)
        options.append(text)
    return Dilemma(value, conflict, question, options[0], options[1])


def _named(entries: list[_Entry], source: BenchmarkSource, faults: Faults) -> list[Dilemma]:
    """The dilemmas under their value's one name; a row about another value is a fault.

    The name is an evaluation sheet's title, else the source's `value`, else what most rows say; the first and the last
    in simplified characters.
    """
    lefts = Counter(simplified(entry.dilemma.value) for entry in entries if not entry.is_evaluation)
    common = source.value or (lefts.most_common(1)[0][0] if lefts else "")
    dilemmas = []
    for entry in entries:
        name = simplified(clean(entry.sheet)) if entry.is_evaluation else common
        if spelling_key(entry.dilemma.value) == spelling_key(name):
            dilemmas.append(replace(entry.dilemma, value=name))
        else:
            remedy = (
                "name the sheet by its value, or mend the row"
                if entry.is_evaluation
                else "give the `value` the workbook is about, mend the row, or move it to its own workbook"
            )
            faults.add(f"is about {entry.dilemma.value!r} among rows of {name!r}", remedy, entry.row, entry.sheet)
    if any("/" in dilemma.value for dilemma in dilemmas):
        faults.add("a value's name contains '/'", "write it without")
        return []
    return dilemmas
