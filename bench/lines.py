"""The lines of the table, and what each is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

PREFILL = "prefill"
GENERATION = "generation"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that is measured: what is done, by whom, and over how many groups the same texts are spread."""

    work: str
    who: str
    groups: int = 1
    calls: int = 1
    # calls of the engine; the texts of a call are one batch

    def __str__(self) -> str:
        return f"{self.who} ({_number(self.groups, 'group')}, {_number(self.calls, 'call')})"

    @property
    def bare(self) -> Line:
        """The line that this one is a multiple of: bare vLLM in one call, for our prefill in the same calls."""
        return Line(self.work, BARE, 1, self.calls if self.who in {ROWS, HISTOGRAM} else 1)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count > 1 else ''}"


BARE = "bare vLLM"
ROWS = "ours, moments and rows"
HISTOGRAM = "ours, histogram of 1 % of the neurons"
HOOKS = "transformers with hooks"
ONLINE = "ours, online"
REPLAY = "ours, respond + replay"
PRACTICE = "reference practice"


CONTENDERS = (ROWS, HISTOGRAM, HOOKS, ONLINE, REPLAY, PRACTICE)


@dataclass(frozen=True, slots=True)
class Bench:
    """What one process offers: passes over the workload, and what it cannot do, with the reason."""

    passes: Mapping[Line, Callable[[], object]]
    remarks: tuple[str, ...] = field(default=())
