"""What a person sees of a run: a bar on a terminal, a line of JSON now and then where stderr is piped."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from cluster.task import Counts

Listener = Callable[[dict[str, Any]], None]


class Rate:
    """Cost done a second over a sliding window, long enough for a number of results to lie in it."""

    def __init__(self, window_s: float = 60.0, num_results: int = 20) -> None:
        self._window_s, self._num_results = window_s, num_results
        self._seen: deque[tuple[float, float]] = deque()  # when, and the cost done by then; the first is the origin

    def restart(self, now: float) -> None:
        """Nothing was done before now."""
        self._seen = deque([(now, 0.0)])

    def add(self, cost_done: float, now: float) -> None:
        """So much is done by now."""
        if cost_done > self._seen[-1][1]:
            self._seen.append((now, cost_done))
        while len(self._seen) > self._num_results and now - self._seen[1][0] > self._window_s:
            self._seen.popleft()

    def per_second(self, now: float) -> float:
        """0 before the first result."""
        (began, before), (_, done) = self._seen[0], self._seen[-1]
        return (done - before) / (now - began) if now > began else 0.0


class Progress:
    """Shows a run under a label such as "capture", at most every few seconds where it is not a terminal; the last line
    always stands. A listener gets what the JSON says, as often.

    A task's cost is counted in tokens here. Of a run that was drained the last state is "draining".
    """

    def __init__(
        self,
        label: str,
        console: Console | None = None,
        every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        listener: Listener | None = None,
    ) -> None:
        self._label = label
        self._console = console or Console(file=sys.stderr, soft_wrap=True, highlight=False)
        self._every_s = every_s
        # between two lines
        self._clock = clock
        self._listener = listener
        self._began = self._told = 0.0
        self._rate = Rate()
        self._bar: Bar | None = None

    def begin(self, total: int) -> None:
        """A run of so many tasks starts."""
        self._began = self._told = self._clock()
        self._rate.restart(self._began)
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn())
            self._bar = Bar(*columns, console=self._console, transient=True)
            self._bar.add_task(_plain(self._label), total=total)
            self._bar.start()

    def update(self, counts: Counts, waiting_for: str = "") -> None:
        """Shows where the run is, and what keeps it waiting; cheap enough to be called after every event."""
        now = self._clock()
        if counts.actors == 0 and counts.done == 0:
            self._rate.restart(now)  # engines that are still being built have no speed
        self._rate.add(counts.cost_done, now)
        fields = self._fields(counts, now, "draining" if counts.draining else "running", waiting_for)
        if self._bar is not None:
            ended = counts.done + counts.quarantined
            self._bar.update(self._bar.task_ids[0], completed=ended, description=_sentence(fields))
        if now - self._told >= self._every_s:
            self._told = now
            self._tell(fields)

    def end(self, counts: Counts, failed: bool = False) -> None:
        """The run is over, well or not."""
        now = self._clock()
        self._rate.add(counts.cost_done, now)
        state = "failed" if failed or counts.quarantined else "draining" if counts.draining else "done"
        fields = self._fields(counts, now, state, "")
        self._tell(fields)
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._console.print(_sentence(fields), markup=False, soft_wrap=True)

    def _tell(self, fields: dict[str, Any]) -> None:
        if self._listener is not None:
            self._listener(fields)
        if self._bar is None:
            self._console.print(json.dumps(fields), markup=False, soft_wrap=True)

    def _fields(self, counts: Counts, now: float, state: str, waiting_for: str) -> dict[str, Any]:
        rate = self._rate.per_second(now)
        return {
            "stage": self._label,
            "done": counts.done,
            "total": counts.total,
            "tokens_done": round(counts.cost_done),
            "tokens": round(counts.cost),
            "tokens_per_s": round(rate, 1),
            "eta_s": round(counts.cost_open / rate) if rate > 0 else None,
            "engines": counts.actors,
            "retries": counts.retries,
            "quarantined": counts.quarantined,
            "elapsed_s": round(now - self._began, 1),
            "state": state,
            **({"waiting_for": waiting_for} if waiting_for else {}),
        }


def _sentence(fields: dict[str, Any]) -> str:
    eta_s = fields["eta_s"]
    parts = [
        f"{_plain(fields['stage'])} {fields['done']}/{fields['total']} tasks",
        f"{fields['tokens_per_s']:,.0f} tokens/s",
        *([f"{eta_s // 3600}:{eta_s // 60 % 60:02}:{eta_s % 60:02} left"] if eta_s else []),
        f"{fields['engines']} engines",
        f"{fields['retries']} retries",
        f"{fields['quarantined']} quarantined",
        f"{fields['elapsed_s']} s",
        *([f"waiting for {fields['waiting_for']}"] if "waiting_for" in fields else []),
        *(["ending in order, once more to end at once"] if fields["state"] == "draining" else []),
    ]
    return ", ".join(parts)


def _plain(label: str) -> str:
    """A label without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in label)
