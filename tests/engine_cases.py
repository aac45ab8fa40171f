"""Texts and edits that the engine is tried on, and what must hold of what it gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import reference

from harvest.stats.rows import RequestRows
from harvest.types import EditPhase, EditRow, Text


def random_tokens(length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(seed).integers(0, 256, length))


def edit_row(neurons, *, scale=0.0, shift=0.0, floor=-np.inf, ceiling=np.inf, phase=EditPhase.BOTH):
    layer, neuron = np.array(neurons, np.int32).T
    numbers = (np.full(len(neurons), value, np.float32) for value in (scale, shift, floor, ceiling))
    return EditRow(layer, neuron, *numbers, phase)


def assert_rows(rows: RequestRows, texts: Sequence[Text], oracle, within: float = 1e-5) -> None:
    """Counts exact but for activations within 1e-6 of 0; moments within so much of the layer's root mean square.

    A float32 forward differs from another by rounding in proportion to the layer, not to the single neuron.
    """
    assert rows.num_tokens_Q.tolist() == [text.planned for text in texts]
    for at, text in enumerate(texts):
        expected = reference.reference_row(oracle, text)
        assert rows.num_tokens_Q[at] == expected.num_tokens
        if not text.planned:
            assert np.isnan(rows.mean_QLF[at]).all()
            continue
        assert (np.abs(rows.positive_QLF[at] - expected.positive) <= expected.near_zero).all()
        scale = np.sqrt((expected.m2 / expected.num_tokens + expected.mean**2).mean(axis=1, keepdims=True))
        assert (np.abs(rows.mean_QLF[at] - expected.mean) <= within * scale).all()
        assert (np.abs(rows.m2_QLF[at] - expected.m2) <= within * expected.num_tokens * scale**2).all()


def assert_edited(answer, prompt: Sequence[int], row: EditRow, oracle) -> None:
    """An answer's log-probabilities are those of the reference under this edit, within 1e-3."""
    with reference.edited(oracle, row, len(prompt)):
        expected = reference.log_probabilities(oracle, [*prompt, *answer.token_ids])
    for step, table in enumerate(answer.logprobs):
        for token, found in table.items():
            assert found.logprob == pytest.approx(expected[len(prompt) + step - 1, token], abs=1e-3)
