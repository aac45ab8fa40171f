"""What a unit and a canary are refused for, where layers are of different width."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from captured import narrowed, rows_of
from stored import random_questions

from harvest.engine.checks import check_counts, check_finite, still_layers
from harvest.errors import CaptureError

WIDTHS = {3: 5, 8: 2}
LAYOUT = [(3, 0, 5), (8, 0, 2)]


def rows():
    return narrowed(rows_of(random_questions(0, [4, 6], layers=2)), [5, 2])


def test_a_narrow_layer_that_stands_still_is_seen():
    moving = rows()
    assert still_layers(moving, WIDTHS) == []
    still = moving.max_QLF.copy()
    still[:, 1] = moving.min_QLF[:, 1]
    assert still_layers(replace(moving, max_QLF=still), WIDTHS) == [8]


def test_padding_is_finite_enough_and_a_neuron_that_is_not_is_named():
    good = rows()
    check_finite(good, WIDTHS)
    mean = good.mean_QLF.copy()
    mean[1, 1, 1] = np.inf
    with pytest.raises(CaptureError, match="layer 8: a NaN or Inf among the activations of text 1"):
        check_finite(replace(good, mean_QLF=mean), WIDTHS)


def test_a_token_too_many_names_rank_layer_and_text():
    right = np.array([[4, 6], [4, 6]])
    check_counts([4, 6], [right, right], [LAYOUT, LAYOUT])
    wrong = np.array([[4, 6], [4, 7]])
    with pytest.raises(CaptureError, match="rank 1, layer 8, text 1 of 2: 7 tokens counted of 6 planned"):
        check_counts([4, 6], [right, wrong], [LAYOUT, LAYOUT])
