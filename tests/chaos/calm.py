"""The job undisturbed: one process, one unit after the other, no Ray."""

from __future__ import annotations

from pathlib import Path

from chaos.job import LENGTHS, measure, unit_of, writer
from harvest.store.commit import Store
from harvest.store.merge import merge_moments
from harvest.store.reader import digest


class Calm:
    """What a job's merged view must be."""

    def __init__(self, root: Path) -> None:
        self._store = Store(root).prepare()
        self._digests: dict[int, str] = {}

    def sha256(self, num_units: int) -> str:
        """Of the view of units 0 … num_units − 1."""
        if num_units not in self._digests:
            units = [unit_of(number) for number in range(num_units)]
            committed = self._store.committed(units)
            for number, unit in enumerate(units):
                if unit not in committed:
                    self._store.commit(unit, ".zarr", writer(measure(number)), {"pid": 0})
            self._digests[num_units] = digest(merge_moments(self._store, units, {"job": "chaos"}))
        return self._digests[num_units]

    @staticmethod
    def tokens(num_units: int) -> int:
        """Counted in all of them."""
        return num_units * sum(LENGTHS)
