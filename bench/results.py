"""RESULTS.md: one section for each bench, which replaces its own and leaves the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_RESULTS = Path(__file__).with_name("RESULTS.md")


def write_section(section: str, path: Path = _RESULTS) -> None:
    """Puts a section, which starts with "# Title", in the place of the one of that title, or at the end."""
    title = section.partition("\n")[0]
    there = re.split(r"^(?=# )", path.read_text(encoding="utf-8"), flags=re.MULTILINE) if path.exists() else []
    kept = [one.strip() + "\n" for one in there if one.strip()]
    at = next((index for index, one in enumerate(kept) if one.partition("\n")[0] == title), len(kept))
    kept[at : at + 1] = [section.strip() + "\n"]
    path.write_text("\n".join(kept), encoding="utf-8")


def listed(lines: Sequence[str]) -> str:
    """Lines as a Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    marks = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (header, marks, *rows))
