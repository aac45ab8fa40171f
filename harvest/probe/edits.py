"""Edit rows as tables that the op can index: one table a layer, as wide as its longest row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from harvest.errors import SelectionError
from harvest.probe.state import EditTable
from harvest.types import EditRow


def check_rows(rows: Sequence[EditRow], widths: Mapping[int, int]) -> None:
    """Every edit names a neuron of the model, given the number of neurons of each probed layer, and none twice.

    Raises SelectionError, naming the first that does not.
    """
    num_neurons = max(widths.values())
    for number, row in enumerate(rows):
        check_sites(row.layer, row.neuron, widths, f"edit row {number}: ")
        flat = row.layer.astype(np.int64) * num_neurons + row.neuron
        values, counts = np.unique(flat, return_counts=True)
        if (counts > 1).any():
            layer, neuron = divmod(int(values[counts > 1][0]), num_neurons)
            raise SelectionError(
                f"edit row {number}: layer {layer}, neuron {neuron} is edited twice; combine the edits"
            )


def check_sites(
    layer: NDArray[np.int32], neuron: NDArray[np.int32], widths: Mapping[int, int], where: str = ""
) -> None:
    """Every (layer, neuron) is one of the model's; raises SelectionError, naming the first that is not."""
    width = np.array([widths.get(int(number), 0) for number in layer], np.int64)
    outside = np.flatnonzero((neuron < 0) | (neuron >= width))
    if len(outside):
        at = outside[0]
        own = widths.get(int(layer[at]))
        raise SelectionError(
            f"{where}layer {layer[at]}, neuron {neuron[at]} is not in this model, "
            + (f"whose layer {layer[at]} has {own} neurons" if own else f"which has {len(widths)} probed layers")
            + "; select again with this model"
        )


def layer_table(
    rows: Sequence[EditRow], layer: int, neuron_offset: int, num_neurons: int, device: torch.device
) -> EditTable | None:
    """The coefficients of one layer for one rank's neurons [offset, offset + num_neurons); None where no row edits it.

    Row 0 is the identity: `rows` starts at row 1.
    """
    picked = [
        np.flatnonzero(
            (row.layer == layer) & (row.neuron >= neuron_offset) & (row.neuron < neuron_offset + num_neurons)
        )
        for row in rows
    ]
    most = max((len(at) for at in picked), default=0)
    if most == 0:
        return None
    neuron_RK = np.zeros((len(rows) + 1, most), np.int64)
    coefficients_4RK = np.zeros((4, len(rows) + 1, most), np.float32)
    real_RK = np.zeros((len(rows) + 1, most), np.bool_)
    for number, (row, at) in enumerate(zip(rows, picked, strict=True), start=1):
        here = slice(0, len(at))
        neuron_RK[number, here] = row.neuron[at] - neuron_offset
        coefficients_4RK[:, number, here] = row.scale[at], row.shift[at], row.floor[at], row.ceiling[at]
        real_RK[number, here] = True
        neuron_RK[number, len(at) :] = _unused(neuron_RK[number, here], most - len(at))
    neuron_RK[0] = np.arange(most)
    return EditTable(
        torch.from_numpy(neuron_RK).to(device),
        torch.from_numpy(coefficients_4RK).to(device),
        torch.from_numpy(real_RK).to(device),
    )


def _unused(taken: np.ndarray, number: int) -> np.ndarray:
    """`number` neurons that are not `taken`: padding writes back what is there, so it must not meet a real edit."""
    candidates = np.arange(len(taken) + number)
    return np.setdiff1d(candidates, taken)[:number]
