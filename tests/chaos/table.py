"""What was tried, how often, how often it held, in how many seconds: a line for each disaster."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

QUICK = 10
# the quick set's share of the full counts is one in so many


def is_full() -> bool:
    """Whether the full numbers were asked for."""
    return scaled(QUICK) >= QUICK


def scaled(count: int) -> int:
    """So many of the full run's disasters; CHAOS_SCALE=10 is the full run, 1 the quick set."""
    return max(1, round(count * float(os.environ.get("CHAOS_SCALE", "1")) / QUICK))


@dataclass(slots=True)
class Row:
    """One disaster."""

    tried: str
    promise: str
    times: int = 0
    held: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    state: str = "FAILED"

    def hold(self, times: int = 1) -> None:
        """Another so many were tried, and held."""
        self.times += times
        self.held += times

    def say(self, note: str) -> None:
        """Evidence that it happened."""
        self.notes.append(note)


def render(rows: list[Row], seed: int, width: int) -> str:
    """The table as text."""
    table = Table("tried", "promise", "times", "held", "seconds", "evidence", box=SIMPLE_HEAD, title=f"chaos {seed=}")
    for row in rows:
        held = str(row.held) if row.state == "held" else f"{row.held} {row.state}"
        table.add_row(row.tried, row.promise, str(row.times), held, f"{row.seconds:.0f}", "; ".join(row.notes))
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get()
