"""Texts and edits that the engine is tried on."""

from __future__ import annotations

import numpy as np

from harvest.types import EditPhase, EditRow


def random_tokens(length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(seed).integers(0, 256, length))


def edit_row(neurons, *, scale=0.0, shift=0.0, floor=-np.inf, ceiling=np.inf, phase=EditPhase.BOTH):
    layer, neuron = np.array(neurons, np.int32).T
    numbers = (np.full(len(neurons), value, np.float32) for value in (scale, shift, floor, ceiling))
    return EditRow(layer, neuron, *numbers, phase)
