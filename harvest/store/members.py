"""The units of one merged view: which group each belongs to, and what all of them must say alike."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from harvest.errors import StoreError
from harvest.store.arrays import read_attributes


def agreed(units: Sequence[Path], names: Collection[str]) -> dict[str, Any]:
    """The named attributes, such as the layers, which every unit must have alike.

    Raises StoreError, naming the first unit that differs.
    """
    first: dict[str, Any] = {}
    for unit in units:
        attributes = read_attributes(unit)
        found = {name: attributes[name] for name in names}
        first = first or found
        for name in names:
            if found[name] != first[name]:
                raise StoreError(
                    f"{unit.parent.name}: its {name} is not that of {units[0].parent.name}; merge only units of one "
                    "model and one capture"
                )
    return first


def by_group(units: Sequence[Path]) -> dict[str, list[Path]]:
    """The units of each group in their order, groups in the order of their first unit."""
    members: dict[str, list[Path]] = {}
    for unit in units:
        members.setdefault(read_attributes(unit)["group"], []).append(unit)
    return members
