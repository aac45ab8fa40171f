"""The headline table's cells, in words: for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

MISSING = "–"
Entry = Mapping[str, Any]
# one element of summary["headline"]


def headline_table(summary: Mapping[str, Any]) -> Table:
    """Found vs planted, and what cutting did, one row a set; the planted columns only where the truth is known."""
    entries = summary["headline"]
    columns = ["set", "neurons"]
    columns += ["planted", "precision", "recall"] if has_planted(summary) else []
    columns += ["support", "after cut", "lost", "95 % interval", "controls moved at most", "unscored"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="left" if name == "set" else "right", no_wrap=True)
    for entry in entries:
        # Text, because a value's name is not markup
        table.add_row(*(Text(cells(entry)[name]) for name in columns))
    return table


def format_table(summary: Mapping[str, Any]) -> str:
    """The same table as plain lines, for a pipe."""
    stream = StringIO()
    widest = max((cell_len(entry["group"]) for entry in summary["headline"]), default=0)
    Console(file=stream, width=widest + 160, color_system=None).print(headline_table(summary))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def has_planted(summary: Mapping[str, Any]) -> bool:
    """Whether the true neurons of any set are known."""
    return any(entry["planted"] is not None for entry in summary["headline"])


def cells(entry: Entry) -> dict[str, str]:
    """What each column of a row says; a dash where there is no number."""
    interval, unscored = entry["interval"], entry["unscored"]
    return {
        "set": entry["group"],
        "neurons": str(entry["k"]),
        "planted": MISSING if entry["planted"] is None else f"{entry['hits']} of {entry['planted']}",
        "precision": number(entry["precision"], ".2f"),
        "recall": number(entry["recall"], ".2f"),
        "support": number(entry["baseline_support"], ".1f"),
        "after cut": number(entry["support_after"], ".1f"),
        "lost": number(entry["shift"], "+.1f"),
        "95 % interval": MISSING
        if interval is None
        else f"{number(interval[0], '+.1f')} to {number(interval[1], '+.1f')}",
        "controls moved at most": number(entry["largest_control"], ".1f"),
        "unscored": MISSING if unscored is None else f"{unscored['cut']} of {unscored['answers']}",
    }


def number(value: float | None, form: str) -> str:
    """A number with a real minus sign, or a dash where there is none."""
    return MISSING if value is None else format(value, form).replace("-", "−")
