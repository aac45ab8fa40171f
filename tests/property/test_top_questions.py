"""The questions of largest activation are those that a plain search through all tokens finds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import reference
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.store.reader import top_questions
from harvest.store.schema import NO_TOKEN

LAYERS, NEURONS = (2, 5), 3
# few values, so that there are ties within a question and between questions
QUESTION = st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 5), st.integers(0, 2**32 - 1))


def activations(length: int, seed: int) -> np.ndarray:
    """One question's (layer, token, neuron)."""
    values = np.random.default_rng(seed).integers(-2, 3, (len(LAYERS), length, NEURONS))
    return values.astype(np.float64) / 2


def rows_view(groups: Sequence[str], questions: Sequence[np.ndarray]) -> xr.Dataset:
    found = [reference.first_maxima(one) for one in questions]
    axes = ("question", "layer", "neuron")
    positions = np.stack([np.where(position < 0, NO_TOKEN, position) for _, position in found])
    return xr.Dataset(
        {
            "row_max": (axes, np.stack([value for value, _ in found]).astype(np.float32)),
            "row_argmax": (axes, positions.astype(np.uint16)),
        },
        coords={
            "group": ("question", np.array(groups)),
            "question_id": ("question", np.array([f"q{at}" for at in range(len(groups))])),
            "layer": list(LAYERS),
            "neuron": np.arange(NEURONS),
        },
    )


@settings(deadline=None, max_examples=150)
@given(st.lists(QUESTION, min_size=1, max_size=12), st.integers(1, 6))
def test_top_questions_equal_a_plain_search(drawn: list[tuple[str, int, int]], k: int):
    groups = [group for group, _, _ in drawn]
    questions = [activations(length, seed) for _, length, seed in drawn]
    top = top_questions(rows_view(groups, questions), k)
    assert top["group"].values.tolist() == list(dict.fromkeys(groups))
    assert top["layer"].values.tolist() == list(LAYERS)
    found_GLFK = [top[name].values for name in ("question_id", "value", "position")]
    for at, group in enumerate(dict.fromkeys(groups)):
        for index in range(len(LAYERS)):
            for neuron in range(NEURONS):
                candidates = []
                for number, question in enumerate(questions):
                    if groups[number] == group and question.shape[1]:
                        tokens = question[index, :, neuron].tolist()
                        candidates.append((-max(tokens), number, tokens.index(max(tokens))))
                best = [(f"q{number}", -value, position) for value, number, position in sorted(candidates)[:k]]
                found = list(zip(*(values[at, index, neuron].tolist() for values in found_GLFK), strict=True))
                assert found[: len(best)] == best
                assert all(
                    name == "" and math.isnan(value) and where == -1 for name, value, where in found[len(best) :]
                )
                assert len(found) == k
