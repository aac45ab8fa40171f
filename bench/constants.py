"""The constants that docs/SCALE.md multiplies, each measured on this machine in some seconds."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from bench.merging import MERGE, Asked, merge_costs
from bench.paced import MODELS, Model, labels_of, random_rows
from bench.payloads import weigh
from bench.results import table
from harvest.stats.unit import fold_unit
from harvest.store.arrays import write_group
from harvest.store.commit import Store
from harvest.store.key import unit_name
from harvest.store.units import moments_unit, rows_unit

_MODEL = Model("8 layers of 8B", 8, MODELS["8B"].num_neurons)
_QUESTIONS, _REPEATS = 32, 3
_COMMITS = 100
_SEND_S = 2e-3
# the target that bench.scale measures


@dataclass(frozen=True, slots=True)
class Constants:
    """Seconds of CPU time, and bytes."""

    fold_s: float
    # per question and neuron
    write_s: float
    # per byte of a unit: written and hashed
    find_s: float
    # per commit: listed, read and checked
    held_bytes: float
    # per token of a text, in the driver
    pickled_bytes: float
    # per token of a text, sent
    send_s: float
    # per task
    merge_moments_s: float
    # per byte of the units
    merge_rows_s: float

    def table(self) -> str:
        """What each is, and what measures it."""
        said = {
            "fold_s": ("fold rows into moments", f"{1e9 * self.fold_s:.1f} ns per question and neuron"),
            "write_s": ("write and hash a unit", f"{1e-6 / self.write_s:,.0f} MB/s"),
            "find_s": ("find and read a commit, local disk", f"{1e6 * self.find_s:,.0f} µs"),
            "held_bytes": ("texts in the driver", f"{self.held_bytes:.1f} B per token"),
            "pickled_bytes": ("a task on its way", f"{self.pickled_bytes:.2f} B per token"),
            "send_s": ("driver's CPU, the target of `bench.scale`", f"{1e3 * self.send_s:.1f} ms per task"),
            "merge_moments_s": ("merge moments", f"{1e-6 / self.merge_moments_s:,.0f} MB/s"),
            "merge_rows_s": ("merge rows", f"{1e-6 / self.merge_rows_s:,.0f} MB/s"),
        }
        assert said.keys() == {field.name for field in fields(self)}
        title = "**Measured: CPU time of one thread, by `python -m bench.sizes`**"
        return f"{title}\n\n{table(('', 'seen'), list(said.values()))}"


def measure() -> Constants:
    """All of them, the least of some repeats."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, labels = random_rows(_MODEL, _QUESTIONS), labels_of(_MODEL, "g", _QUESTIONS)
        fold_s = _least(lambda: fold_unit(rows)) / (_QUESTIONS * _MODEL.neurons)
        arrays, attributes = rows_unit(labels, rows)
        write = partial(write_group, arrays=arrays, attributes=attributes)
        size = sum(values.nbytes for _, values in arrays.values())
        write_s = _least(lambda: _commit_anew(Store(folder / "one").prepare(), write)) / size
        find_s = _find_s(Store(folder / "many").prepare())
        weight = weigh(2)
        merges = {
            kind: min(
                cost.cpu_s / cost.num_bytes
                for cost in merge_costs(MODELS["8B"], Asked(kind, number, questions), 1, folder)[MERGE]
            )
            for kind, number, questions in (("moments", 48, 2), ("rows", 8, 16))
        }
    return Constants(
        fold_s, write_s, find_s, weight.held_bytes, weight.pickled_bytes, _SEND_S, merges["moments"], merges["rows"]
    )


def _commit_anew(store: Store, write: Callable[[Path], None]) -> None:
    store.commit(unit_name("rows", {}), ".zarr", write, {})
    shutil.rmtree(store.root)


def _find_s(store: Store) -> float:
    model = MODELS["tiny"]
    arrays, attributes = moments_unit(labels_of(model, "g", 2), random_rows(model, 2))
    write = partial(write_group, arrays=arrays, attributes=attributes)
    names = [unit_name("moments", {"name": at}) for at in range(_COMMITS)]
    for name in names:
        store.commit(name, ".zarr", write, {"by": "bench"})
    return _least(lambda: store.find_all(sorted(store.committed(names)))) / _COMMITS


def _least(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(_REPEATS):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return min(taken)
