"""How long an engine waits for the store: commits of one unit overlap the forward of the next."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from bench.paced import Model, PacedEngine, capture_task, labels_of, random_rows
from bench.results import table
from bench.table import Spread
from harvest.engine.seat import EngineTask, SeatedEngine
from harvest.stats.rows import RequestRows
from harvest.stats.unit import fold_unit
from harvest.store.arrays import write_group
from harvest.store.commit import Store
from harvest.store.tree import listing
from harvest.store.units import moments_unit, rows_unit

CONTENDERS: dict[str, tuple[str, ...]] = {
    "nothing kept": (),
    "moments": ("moments",),
    "moments and rows": ("moments", "rows"),
}
_IN_FLIGHT = 2
_PIECE = 8 << 20


@dataclass(frozen=True, slots=True)
class Pace:
    """The units that an engine measures one after the other, as often as there are rounds."""

    num_questions: int
    # of a unit
    forward_s: float
    num_units: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Waited:
    """What one pass over some units took."""

    idle: float
    # share of the time
    cpu_s: float
    # of the whole process, per unit
    keep_s: float
    # wall time of keeping a unit, mean


def overlap_lines(model: Model, pace: Pace, folder: Path) -> tuple[str, list[str]]:
    """A table of all contenders over some rounds, and what the target says."""
    rows = random_rows(model, pace.num_questions)
    taken: dict[str, list[Waited]] = {name: [] for name in CONTENDERS}
    names = list(CONTENDERS)
    for name in names:
        # memory that was never touched costs more the first time
        _run(model, rows, name, replace(pace, num_units=_IN_FLIGHT), folder / "store")
    for number in range(pace.rounds):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            taken[name].append(_run(model, rows, name, pace, folder / "store"))
    header = ("kept of each unit", "engine idle", "because of it", "by CPU time", "CPU s a unit", "s to commit")
    lines, below = [], []
    for name, waits in taken.items():
        because = Spread.of([one.idle - none.idle for one, none in zip(waits, taken["nothing kept"], strict=True)])
        due = Spread.of([idle_at_least(pace.forward_s, one.cpu_s) for one in waits])
        spreads = (Spread.of([one.idle for one in waits]).ratio, because.ratio, due.ratio)
        seconds = (Spread.of([getattr(one, clock) for one in waits]) for clock in ("cpu_s", "keep_s"))
        lines.append((name, *spreads, *seconds))
        if CONTENDERS[name]:
            below.append(
                f"engine idle because of the store, {name}: target ≤ 0.02, seen {because.ratio}, {due.ratio} by CPU"
            )
    return table(header, lines), below


def idle_at_least(forward_s: float, keep_s: float) -> float:
    """The share of its time that an engine must wait, where two units take turns and keeping one takes so long."""
    return max(0.0, (keep_s - forward_s) / (keep_s + forward_s))


def _run(model: Model, rows: RequestRows, contender: str, pace: Pace, folder: Path) -> Waited:
    engine, store, labels = (
        PacedEngine(rows, pace.forward_s),
        Store(folder).prepare(),
        labels_of(model, "g", pace.num_questions),
    )
    tasks = [capture_task(f"{at}", labels, CONTENDERS[contender], store) for at in range(pace.num_units)]
    began = time.process_time()
    with ThreadPoolExecutor(1) as thread, ThreadPoolExecutor(_IN_FLIGHT) as callers:
        seat = SeatedEngine(engine, thread)

        def ended_at(task: EngineTask) -> float:
            seat(task)
            return time.perf_counter()

        ended = list(callers.map(ended_at, tasks))
    cpu_s = time.process_time() - began
    shutil.rmtree(folder, ignore_errors=True)
    # summed, so it does not matter which forward was whose
    keep_s = sum(ended) - sum(measured for _, measured in engine.passes)
    return Waited(engine.idle(), cpu_s / pace.num_units, keep_s / pace.num_units)


def step_lines(model: Model, num_questions: int, rounds: int, folder: Path) -> str:
    """What each step of keeping a unit takes alone, in a process that does nothing else."""
    rows, labels = random_rows(model, num_questions), labels_of(model, "g", num_questions)
    units = {"moments": moments_unit(labels, rows), "rows": rows_unit(labels, rows)}
    steps: dict[str, Callable[[], object]] = {"fold_unit": lambda: fold_unit(rows)}
    steps["rows as stored"] = lambda: rows_unit(labels, rows)
    for kind, (arrays, attributes) in units.items():
        at = folder / kind
        steps[f"write {kind}"] = lambda at=at, arrays=arrays, attributes=attributes: write_group(at, arrays, attributes)
        steps[f"sha256 of {kind}"] = lambda at=at: listing(at)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            began = time.process_time()
            step()
            # the first round warms up
            taken[name] += [time.process_time() - began] if number else []
        sizes = {kind: sum(file.size_bytes for file in listing(folder / kind)) for kind in units}
        files = {kind: len(listing(folder / kind)) for kind in units}
        for kind in units:
            shutil.rmtree(folder / kind)
    lines = [
        (name, Spread.of(seconds), f"{sizes[name.split()[-1]] / 1e6:.0f}" if name.split()[-1] in sizes else "")
        for name, seconds in taken.items()
    ]
    counted = ", ".join(f"{kind} {size / 1e6:.1f} MB in {files[kind]} files" for kind, size in sizes.items())
    return f"{table(('step of keeping a unit', 'CPU s', 'MB'), lines)}\n\nA unit: {counted}, and its commit record."


def disk_line(folder: Path, num_bytes: int = 1 << 29) -> str:
    """How fast the disk takes a file, into the page cache and down to the disk."""
    file, piece = folder / "disk", os.urandom(_PIECE)
    began = time.perf_counter()
    with file.open("wb") as stream:
        for _ in range(num_bytes // _PIECE):
            stream.write(piece)
        written_s = time.perf_counter() - began
        os.fsync(stream.fileno())
    synced_s = time.perf_counter() - began
    file.unlink()
    speeds = (num_bytes / 1e6 / seconds for seconds in (written_s, synced_s))
    return "disk: a file of {} MiB at {:,.0f} MB/s into the page cache, {:,.0f} MB/s with fsync".format(
        num_bytes >> 20, *speeds
    )
