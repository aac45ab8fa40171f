"""A set of neurons and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class NeuronSet:
    """Neurons in the order they were chosen; all arrays have shape (neurons,)."""

    set_id: str
    group: str
    # whose items it is tried on
    method: str
    # of selection, or "control"
    layer: NDArray[np.int32]
    neuron: NDArray[np.int32]
    score: NDArray[np.float64]
    # what the method sorted by
    delta: NDArray[np.float64]
    rate: NDArray[np.float64]
    control_draw: int = -1
    # -1: not a control
    control_of: str = ""
    # the set_id it was matched to; "" where it is not a control
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    # the method's own, e.g. rate_opposite

    def __len__(self) -> int:
        return len(self.layer)

    @property
    def pairs(self) -> frozenset[tuple[int, int]]:
        """The set as (layer, neuron)."""
        return frozenset(zip(self.layer.tolist(), self.neuron.tolist(), strict=True))


def set_name(group: str, method: str) -> str:
    """A set's id, e.g. `c_voice.zh/和谐/support|probability`; no group or method has a `|` in its name."""
    return f"{group}|{method}"


def mask_of(sets: Iterable[NeuronSet], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """True where any of the sets has the neuron, shape (layer, neuron)."""
    mask_LF = np.zeros(shape, np.bool_)
    for one in sets:
        mask_LF[one.layer, one.neuron] = True
    return mask_LF
