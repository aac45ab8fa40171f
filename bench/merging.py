"""What merging many units and opening the view cost, beside plain copies of the same bytes."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import xarray as xr

from bench.memory import forget_peak, peak
from bench.paced import KINDS, Model, labels_of, random_rows
from bench.results import table
from bench.table import Spread
from harvest.store.arrays import write_group
from harvest.store.commit import Store
from harvest.store.key import unit_name
from harvest.store.merge import merge_moments, merge_rows
from harvest.store.reader import open_merged, open_rows
from harvest.store.tree import listing

MERGES = {"moments": (merge_moments, open_merged), "rows": (merge_rows, open_rows)}
GROUPS = 24
MERGE, OPEN = "merge", "open and read one group"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call took."""

    cpu_s: float
    wall_s: float
    peak_bytes: int
    # beyond what was resident before
    num_bytes: int
    # that it had to read or copy


@dataclass(frozen=True, slots=True)
class Asked:
    """How many units of which kind are merged."""

    kind: str
    num_units: int
    num_questions: int


def merge_costs(model: Model, asked: Asked, rounds: int, folder: Path) -> dict[str, list[Cost]]:
    """What merging so many units and the copies beside it cost, round by round."""
    store = Store(folder / "units").prepare()
    units = _filled(store, model, asked)
    # in a process of its own, whose memory is what the merge takes
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        taken = process.submit(_taken, store, asked.kind, units, rounds, folder).result()
    shutil.rmtree(folder / "units")
    return taken


def merging_lines(model: Model, asked: Asked, rounds: int, folder: Path) -> str:
    """The costs as a table."""
    taken = merge_costs(model, asked, rounds, folder)
    copies = {MERGE: "copy of the units", OPEN: "copy of the view"}
    lines = []
    for name, costs in taken.items():
        beside = taken[copies[name]] if name in copies else costs
        wall, cpu = (Spread.of([getattr(one, clock) for one in costs]) for clock in ("wall_s", "cpu_s"))
        ratios = [
            Spread.of([getattr(one, clock) / getattr(other, clock) for one, other in zip(costs, beside, strict=True)])
            for clock in ("wall_s", "cpu_s")
        ]
        peak_mb = max(one.peak_bytes for one in costs) / 1e6
        size = costs[0].num_bytes
        cells = (f"{size / 1e6:,.0f}", wall, f"{size / 1e6 / wall.median:,.0f}", ratios[0], cpu, ratios[1])
        lines.append((f"{asked.kind}, {asked.num_units} units: {name}", *cells, f"{peak_mb:,.0f}"))
    return table(("", "MB", "wall s", "MB/s", "wall ÷ copy", "CPU s", "CPU ÷ copy", "peak MB"), lines)


def _filled(store: Store, model: Model, asked: Asked) -> list[str]:
    """The names of the units, the groups one after the other."""
    rows, labels = random_rows(model, asked.num_questions), labels_of(model, "g", asked.num_questions)
    arrays, attributes = KINDS[asked.kind](labels, rows)
    del rows
    names = []
    for at in range(asked.num_units):
        group = f"g{at * GROUPS // asked.num_units}"
        names.append(unit_name(asked.kind, {"name": at}))
        write = partial(write_group, arrays=arrays, attributes={**attributes, "group": group})
        store.commit(names[-1], ".zarr", write, {"by": "bench"})
    return names


def _taken(store: Store, kind: str, units: Sequence[str], rounds: int, folder: Path) -> dict[str, list[Cost]]:
    merge, open_view = MERGES[kind]
    root = Path(store.root)
    parts = [root / "attempts" / one.unit / one.attempt for one in store.find_all(units) if one is not None]
    taken: dict[str, list[Cost]] = defaultdict(list)
    for number in range(rounds):
        copied = _copied(parts, folder / "copies")
        view, merged = _timed(lambda number=number: merge(store, units, {"round": number}), copied.num_bytes)
        copied_view = _copied([Path(view)], folder / "copies")
        _, opened = _timed(lambda view=view: _read_one_group(open_view(view)), copied_view.num_bytes)
        shutil.rmtree(root / "merged")
        costs = (copied, merged, copied_view, opened)
        for name, cost in zip(("copy of the units", MERGE, "copy of the view", OPEN), costs, strict=True):
            taken[name].append(cost)
    return taken


def _read_one_group(dataset: xr.Dataset) -> None:
    """All variables of the view's first group."""
    if "question" in dataset.dims:
        dataset.isel(question=slice(0, int((dataset["group"] == dataset["group"][0]).sum()))).load()
    else:
        dataset.isel(group=0).load()


def _copied(folders: Sequence[Path], to: Path) -> Cost:
    """What shutil.copyfile takes for every file of some folders."""
    files = [folder / one.name for folder in folders for one in listing(folder)]
    to.mkdir()

    def copy() -> None:
        for at, file in enumerate(files):
            shutil.copyfile(file, to / f"{at}")

    _, cost = _timed(copy, sum(file.stat().st_size for file in files))
    shutil.rmtree(to)
    return cost


def _timed(call: Callable[[], T], num_bytes: int) -> tuple[T, Cost]:
    before = forget_peak()
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    value = call()
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    return value, Cost(cpu_s, wall_s, peak() - before, num_bytes)
