"""Counts of a half, and the probability difference, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from analysis.contrasts import counts as counts_module
from analysis.contrasts.counts import counts_for, counts_of, counts_of_rows
from analysis.contrasts.probability import probability_difference
from analysis.contrasts.registry import CONTRASTS, contrast_named
from harvest.errors import NeedsRows, SelectionError
from harvest.types import Half, half_of

GROUPS = ["b.zh/和谐/support", "b.zh/和谐/conflict", "b.zh/自由/support"]


def make_rows(num_questions: int = 12, seed: int = 0) -> xr.Dataset:
    """Rows of three groups over the same questions, interleaved; 2 layers of 3 neurons."""
    rng = np.random.default_rng(seed)
    pairs = [(f"q{at}", group) for at in range(num_questions) for group in GROUPS]
    tokens = rng.integers(0, 6, len(pairs)) * 10000
    on = rng.integers(0, tokens[:, None, None] + 1, (len(pairs), 2, 3)).astype(np.uint16)
    return xr.Dataset(
        {"row_positive_count": (("question", "layer", "neuron"), on)},
        coords={
            "question_id": ("question", [question for question, _ in pairs]),
            "group": ("question", [group for _, group in pairs]),
            "num_tokens": ("question", tokens),
        },
    )


def make_counts(on: list[list[list[int]]], tokens: list[int]) -> xr.Dataset:
    return xr.Dataset(
        {
            "positive_count": (("group", "layer", "neuron"), np.array(on, np.int64)),
            "token_count": ("group", np.array(tokens, np.int64)),
            "question_count": ("group", np.ones(len(tokens), np.int64)),
        },
        coords={"group": GROUPS[: len(tokens)]},
    )


@pytest.mark.parametrize("half", list(Half))
@pytest.mark.parametrize("block_bytes", [1, 40, 2**20])
def test_counts_of_rows_are_the_sums_over_the_half(
    half: Half, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts_module, "BLOCK_BYTES", block_bytes)
    rows = make_rows()
    counts = counts_of_rows(rows, half)
    for at, group in enumerate(GROUPS):
        on, tokens, questions = np.zeros((2, 3), np.int64), 0, 0
        for row in range(rows.sizes["question"]):
            one = rows.isel(question=row)
            if str(one["group"].item()) == group and half in (Half.ALL, half_of(str(one["question_id"].item()))):
                on += one["row_positive_count"].to_numpy()
                tokens += int(one["num_tokens"])
                questions += int(one["num_tokens"]) > 0
        np.testing.assert_array_equal(counts["positive_count"].sel(group=group), on)
        assert (int(counts["token_count"][at]), int(counts["question_count"][at])) == (tokens, questions)
    assert all(variable.dtype == np.int64 for variable in counts.data_vars.values())


def test_the_two_halves_make_the_whole() -> None:
    rows = make_rows()
    halves = counts_of_rows(rows, Half.IDENTIFY) + counts_of_rows(rows, Half.EVALUATE)
    xr.testing.assert_identical(halves, counts_of_rows(rows, Half.ALL))


def test_merged_view_gives_the_same_schema_as_rows() -> None:
    from_rows = counts_of_rows(make_rows(), Half.ALL)
    merged = from_rows.assign(mean=("group", np.zeros(3))).assign_coords(from_rows.coords)
    xr.testing.assert_identical(counts_of(merged), from_rows)
    assert counts_of(merged.astype(np.int32))["positive_count"].dtype == np.int64


def test_a_half_without_rows_says_how_to_get_them() -> None:
    merged = make_counts([[[1]], [[0]]], [2, 2])
    xr.testing.assert_identical(counts_for(merged, None, Half.ALL), merged)
    with pytest.raises(NeedsRows, match=r"identify half.*capture: \{rows: full\}.*split: false"):
        counts_for(merged, None, Half.IDENTIFY)
    with pytest.raises(NeedsRows, match="rows: full"):
        counts_of_rows(make_rows().drop_vars("row_positive_count"), Half.EVALUATE)
    rows = make_rows()
    xr.testing.assert_identical(counts_for(merged, rows, Half.IDENTIFY), counts_of_rows(rows, Half.IDENTIFY))


def test_probability_difference_is_the_difference_of_rates() -> None:
    effect = probability_difference(make_counts([[[8, 1]], [[3, 5]]], [10, 20]), GROUPS[0], GROUPS[1])
    np.testing.assert_allclose(effect["rate"], [[0.8, 0.1]])
    np.testing.assert_allclose(effect["rate_opposite"], [[0.15, 0.25]])
    np.testing.assert_allclose(effect["delta"], [[0.65, -0.15]])
    np.testing.assert_allclose(effect["base_rate"], [[11 / 30, 6 / 30]])
    assert (effect.attrs["num_tokens"], effect.attrs["num_tokens_opposite"]) == (10, 20)


def test_group_without_tokens_has_no_effect() -> None:
    effect = probability_difference(make_counts([[[8, 1]], [[0, 0]]], [10, 0]), GROUPS[0], GROUPS[1])
    assert np.isnan(effect["delta"]).all()
    assert np.isnan(effect["rate_opposite"]).all()
    np.testing.assert_allclose(effect["base_rate"], [[0.8, 0.1]])


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    counts = make_counts([[[1]], [[0]]], [2, 2])
    with pytest.raises(SelectionError, match=r"'b\.zh/诚信/support'.*b\.zh/和谐/support, b\.zh/和谐/conflict"):
        probability_difference(counts, "b.zh/诚信/support", GROUPS[1])
    with pytest.raises(SelectionError, match=r"'entropie'.*probability"):
        contrast_named("entropie")
    assert contrast_named("probability") is CONTRASTS["probability"]
