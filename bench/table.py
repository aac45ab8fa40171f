"""Rounds as a Markdown table, and the targets beside what was seen. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.lines import GENERATION, HOOKS, ONLINE, PRACTICE, PREFILL, ROWS, Line
from bench.turns import Taken
from bench.workload import Workload

HEADER = (
    "| model | work | contender | groups | calls | CPU s | CPU ÷ bare | wall s | wall ÷ bare | tokens/s |",
    "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
)


@dataclass(frozen=True, slots=True)
class Spread:
    """The least, the median and the greatest of some rounds."""

    least: float
    median: float
    greatest: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(min(values), statistics.median(values), max(values))

    def __str__(self) -> str:
        return f"{self.least:.2f} / {self.median:.2f} / {self.greatest:.2f}"

    @property
    def ratio(self) -> str:
        return f"{self.least:.3f} / {self.median:.3f} / {self.greatest:.3f}"


def table_lines(name: str, taken: Mapping[Line, Sequence[Taken]], workload: Workload) -> list[str]:
    """One model's rows of the table, prefill first; minimum / median / maximum over the rounds."""
    tokens = {PREFILL: workload.text_tokens, GENERATION: workload.answer_tokens}
    rows = []
    for line in sorted(taken, key=lambda line: line.work != PREFILL):
        cpu_s, wall_s = (Spread.of([getattr(one, clock) for one in taken[line]]) for clock in ("cpu_s", "wall_s"))
        cpu_ratio, wall_ratio = (paired(taken, line, line.bare, clock).ratio for clock in ("cpu_s", "wall_s"))
        cells = (name, line.work, line.who, line.groups, line.calls, cpu_s, cpu_ratio, wall_s, wall_ratio)
        rows.append(f"| {' | '.join(map(str, cells))} | {tokens[line.work] / wall_s.median:,.0f} |")
    return rows


def paired(taken: Mapping[Line, Sequence[Taken]], line: Line, other: Line, clock: str) -> Spread:
    """How often longer one line took than another in the same round."""
    pairs = zip(taken[line], taken[other], strict=True)
    return Spread.of([getattr(mine, clock) / getattr(theirs, clock) for mine, theirs in pairs])


def target_lines(name: str, taken: Mapping[Line, Sequence[Taken]], workload: Workload) -> list[str]:
    """What was aimed at and what was seen, by CPU and by wall time."""
    many = workload.many

    def find(work: str, who: str, groups: int) -> Line | None:
        return next((line for line in taken if (line.work, line.who, line.groups) == (work, who, groups)), None)

    rows, practice = find(PREFILL, ROWS, many), find(GENERATION, PRACTICE, many)
    online = find(GENERATION, ONLINE, many)
    asked = [
        ("≤ 1.08", rows, rows and rows.bare),
        ("≥ 2", find(PREFILL, HOOKS, many), rows),
        ("≤ 1.05", online, online and online.bare),
        ("≥ 1.3", practice, online),
        ("≥ 1.3", find(GENERATION, PRACTICE, 1), online),
    ]
    return [
        f"{name}, {line.work}: {line} ÷ {other}: target {target}, seen {paired(taken, line, other, 'cpu_s').ratio} by "
        f"CPU, {paired(taken, line, other, 'wall_s').ratio} by wall"
        for target, line, other in asked
        if line is not None and other is not None
    ]
