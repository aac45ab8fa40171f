"""The units of one merged view: which group each belongs to, and what all of them must say alike."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from harvest.errors import StoreError
from harvest.store.arrays import read_attributes
from harvest.store.verified import Tree


def agreed(units: Sequence[Tree], names: Collection[str]) -> dict[str, Any]:
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
                    f"{unit.unit}: its {name} is not that of {units[0].unit}; merge only units of one "
                    "model and one capture"
                )
    return first


def by_group(units: Sequence[Tree]) -> dict[str, list[Tree]]:
    """The units of each group in their order, groups in the order of their first unit."""
    members: dict[str, list[Tree]] = {}
    for unit in units:
        members.setdefault(read_attributes(unit)["group"], []).append(unit)
    return members
