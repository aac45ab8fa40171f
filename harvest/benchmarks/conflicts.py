"""Conflict types, "value vs conflicting value", in the spellings found in published workbooks."""

from __future__ import annotations

import re

from harvest.benchmarks.fields import clean, normalised

# Letters of either width, dots and spaces at will; next to a Latin letter it is part of a word.
# After a dot the conflicting value may follow at once.
_VS = re.compile(
    r"(?<![A-Za-z])(?:versus(?![A-Za-z])|[vｖ]\s*[.．]?\s*[sｓ](?:\s*[.．。]|(?![A-Za-z])))", re.IGNORECASE
)

# The characters that differ in the twelve values and in the workbooks' column titles.
_SIMPLIFIED = str.maketrans("強諧愛國業誠衝類決選擇", "强谐爱国业诚冲类决选择")


def split_conflict(text: str) -> tuple[str, str] | None:
    """(value, conflicting value) around the first "vs"; None if there is none, or nothing on one side of it."""
    match = _VS.search(text)
    if match is None:
        return None
    value, conflict = clean(text[: match.start()]), clean(text[match.end() :])
    return (value, conflict) if value and conflict else None


def simplified(text: str) -> str:
    """The text with traditional characters of the twelve values replaced."""
    return text.translate(_SIMPLIFIED)


def spelling_key(text: str) -> str:
    """The same for two spellings of one value's name or column title."""
    return simplified(normalised(text)).casefold().replace(" ", "")
