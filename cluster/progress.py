"""What a person sees of a run: a bar on a terminal, a plain line now and then where stderr is piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from cluster.task import Counts


class Progress:
    """Shows a run on stderr under a label such as "capture"; the last line always stands."""

    def __init__(
        self,
        label: str,
        console: Console | None = None,
        every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        listener: Callable[[dict[str, object]], None] | None = None,
    ) -> None:
        self._listener = listener
        self._label = label
        self._console = console or Console(file=sys.stderr, soft_wrap=True, highlight=False)
        self._every_s = every_s
        # between two plain lines
        self._clock = clock
        self._began = self._shown = 0.0
        self._bar: Bar | None = None

    def begin(self, total: int) -> None:
        """A run of so many tasks starts."""
        self._began = self._shown = self._clock()
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn())
            self._bar = Bar(*columns, console=self._console, transient=True)
            self._bar.add_task(self._label, total=total)
            self._bar.start()

    def update(self, counts: Counts) -> None:
        """Shows where the run is; cheap enough to be called after every event."""
        now = self._clock()
        self._tell(counts, now, "running")
        if self._bar is not None:
            ended = counts.done + counts.quarantined
            self._bar.update(self._bar.task_ids[0], completed=ended, description=self._line(counts, now))
        elif now - self._shown >= self._every_s:
            self._shown = now
            self._print(self._line(counts, now))

    def end(self, counts: Counts) -> None:
        """The run is over, well or not."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        now = self._clock()
        self._tell(counts, now, "done" if counts.done == counts.total else "failed")
        self._print(self._line(counts, now))

    def _tell(self, counts: Counts, now: float, state: str) -> None:
        if self._listener is None:
            return
        elapsed_s = now - self._began
        rate = counts.cost_done / elapsed_s if elapsed_s > 0 else 0.0
        said: dict[str, object] = {
            "stage": self._label,
            "done": counts.done,
            "total": counts.total,
            "tokens_done": counts.cost_done,
            "tokens": counts.cost,
            "tokens_per_s": rate,
            "eta_s": (counts.cost - counts.cost_done) / rate if rate > 0 else None,
            "engines": counts.actors,
            "retries": counts.retries,
            "quarantined": counts.quarantined,
            "elapsed_s": elapsed_s,
            "state": state,
        }
        self._listener(said)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False)

    def _line(self, counts: Counts, now: float) -> str:
        return (
            f"{self._label} {counts.done}/{counts.total} tasks, {counts.actors} actors, {counts.retries} retries, "
            f"{counts.quarantined} quarantined, {now - self._began:.1f} s"
        )
