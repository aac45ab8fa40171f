"""Fields of one row, from any kind of file: text that is really there, names that fit a group, ids."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from hashlib import blake2b

from harvest.benchmarks.source import Faults

_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
# what spreadsheets and web pages leave around a text, and str.strip does not take for white space
_EDGES = re.compile(rf"^[\s{_INVISIBLE}]+|[\s{_INVISIBLE}]+$")
_SHEET_ERRORS = frozenset({"#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#GETTING_DATA"})


def clean(text: str) -> str:
    """The text without white space and invisible characters at its ends; inside, it stays as published."""
    return _EDGES.sub("", text)


def is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not clean(value))


def read_text(record: Mapping[str, object], field: str, faults: Faults, row: int, sheet: str = "") -> str:
    """The field's text, cleaned; "" once its fault is noted."""
    value = record.get(field)
    if is_blank(value):
        faults.add(
            f"{field} is {'blank' if field in record else 'missing'}", "fill it in or delete the row", row, sheet
        )
        return ""
    if not isinstance(value, str):
        faults.add(f"{field} is {value!r:.40}, a {type(value).__name__}", "write it as text", row, sheet)
        return ""
    text = clean(value)
    if text in _SHEET_ERRORS:
        faults.add(f"{field} is the spreadsheet's error {text}", "write the text itself", row, sheet)
        return ""
    if any("\ud800" <= character <= "\udfff" for character in text):
        faults.add(f"{field} holds half a surrogate pair", "write the whole character", row, sheet)
        return ""
    return text


def read_name(record: Mapping[str, object], field: str, faults: Faults, row: int, sheet: str = "") -> str:
    """A text that may become part of a group: "/" separates a group's parts, and "|" a set's group from its method."""
    name = read_text(record, field, faults, row, sheet)
    for separator in "/|":
        if separator in name:
            faults.add(f"{field} {name!r} contains '{separator}'", "write it without", row, sheet)
            return ""
    return name


def normalised(text: str) -> str:
    """One spelling for texts that differ in character width or spacing only."""
    return " ".join(unicodedata.normalize("NFKC", clean(text)).split())


class QuestionIds:
    """The ids of one file, unique within a value."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()

    def read(
        self, record: Mapping[str, object], value: str, contents: tuple[str, ...], faults: Faults, row: int
    ) -> str:
        """The record's own `id`; without one, an id of its contents. "" once its fault is noted."""
        if "id" not in record:
            return self.of_contents(value, contents)
        question_id = read_text(record, "id", faults, row)
        if (value, question_id) in self._taken:
            faults.add(f"id {question_id!r} is used twice for {value}", "give every row its own id", row)
            return ""
        self._taken.add((value, question_id))
        return question_id

    def of_contents(self, value: str, contents: tuple[str, ...]) -> str:
        """`q-` and 12 hex digits that move with the contents only; the same contents again get ~2, ~3."""
        joined = "\x1f".join(normalised(part) for part in (value, *contents))
        first = question_id = "q-" + blake2b(joined.encode(), digest_size=6).hexdigest()
        occurrence = 1
        while (value, question_id) in self._taken:
            occurrence += 1
            question_id = f"{first}~{occurrence}"
        self._taken.add((value, question_id))
        return question_id
