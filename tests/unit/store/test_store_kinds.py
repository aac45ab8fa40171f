"""Maxima and histograms in merged views, what readers make of them, and layers that keep their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from captured import narrowed, rows_of
from stored import Question, random_questions

from harvest.errors import NeedsRows, StoreError
from harvest.stats.histogram import HistogramPlan, even_edges, histogram_plan
from harvest.stats.rows import RequestRows
from harvest.store.arrays import write_group
from harvest.store.commit import Store
from harvest.store.key import unit_name
from harvest.store.merge import merge_histogram, merge_moments, merge_rows
from harvest.store.reader import open_histogram, open_merged, open_rows, quantiles, top_questions
from harvest.store.schema import NO_TOKEN
from harvest.store.units import Content, Labels, histogram_unit, maxima_unit, moments_unit, rows_unit
from harvest.store.verify import verify_store

GROUPS = ["c_voice.zh/和谐/support", "c_voice.zh/和谐/conflict"]
PLAN = histogram_plan(even_edges(0, 4, 9), [3, 7, 3], [4, 0, 0])
LAYERS = (3, 7)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path).prepare()


def commit(store: Store, kind: str, name: str, content: Content) -> str:
    arrays, attributes = content
    write = partial(write_group, arrays=arrays, attributes=attributes)
    return store.commit(unit_name(kind, {"name": name}), ".zarr", write, {"by": "test"}).unit


def labels(name: str, number: int, layers: tuple[int, ...] = LAYERS, group: str = GROUPS[0]) -> Labels:
    return Labels(group, tuple(f"{name}/问{at}" for at in range(number)), ("",) * number, layers)


def commit_all(store: Store, name: str, one: Labels, rows: RequestRows) -> dict[str, str]:
    makers = {"moments": moments_unit, "rows": rows_unit, "maxima": maxima_unit}
    return {kind: commit(store, kind, name, make(one, rows)) for kind, make in makers.items()}


def counts_of(questions: Sequence[Question], plan: HistogramPlan) -> np.ndarray:
    values = np.concatenate(questions).astype(np.float32)
    sites = [values[:, LAYERS.index(layer), neuron] for layer, neuron in zip(plan.layer, plan.neuron, strict=True)]
    bins = [np.searchsorted(plan.edges, each) for each in sites]
    return np.stack([np.bincount(each, minlength=plan.num_bins) for each in bins])


def test_rows_and_maxima_of_the_same_blocks_are_one_view(store: Store):
    parts = [random_questions(1, [2, 0]), random_questions(2, [4] * 70)]
    units = [
        commit_all(store, str(at), labels(str(at), len(part), group=GROUPS[at]), rows_of(part))
        for at, part in enumerate(parts)
    ]
    rows, maxima = ([each[kind] for each in units] for kind in ("rows", "maxima"))
    both = merge_rows(store, rows, {"model": "m"}, maxima)
    found = xr.open_zarr(both)
    assert set(found.data_vars) == {"row_mean", "row_positive_count", "row_max", "row_argmax"}
    assert (found["row_max"].dtype, found["row_argmax"].dtype) == (np.float32, np.uint16)
    assert found["row_max"].dims == found["row_argmax"].dims == ("question", "layer", "neuron")
    assert found["layer"].values.tolist() == [3, 7]
    assert np.isnan(found["row_max"].values[1]).all()
    assert (found["row_argmax"].values[1] == NO_TOKEN).all()
    for row, question in enumerate(question for part in parts for question in part):
        if len(question):
            np.testing.assert_array_equal(found["row_max"].values[row], question.max(axis=0).astype(np.float32))
            np.testing.assert_array_equal(found["row_argmax"].values[row], question.argmax(axis=0))
    alone = open_rows(merge_rows(store, [], {"model": "m"}, maxima))
    assert set(alone.data_vars) == {"row_max", "row_argmax"}
    xr.testing.assert_identical(alone.load(), found[["row_max", "row_argmax"]].load())
    without = open_rows(merge_rows(store, rows, {"model": "m"}))
    xr.testing.assert_identical(without.load(), found[["row_mean", "row_positive_count"]].load())
    assert verify_store(store.root) == []


def test_rows_and_maxima_of_other_questions_are_never_one_view(store: Store):
    units = [
        commit_all(store, name, labels(name, 2), rows_of(random_questions(seed, [2, 3])))
        for seed, name in enumerate("ab")
    ]
    rows, maxima = ([each[kind] for each in units] for kind in ("rows", "maxima"))
    with pytest.raises(StoreError, match=f"{rows[0]} and {maxima[1]} are not of the same questions"):
        merge_rows(store, rows, {}, maxima[::-1])
    with pytest.raises(StoreError, match=f"{rows[1]} and nothing are not of the same questions"):
        merge_rows(store, rows, {}, maxima[:1])
    assert not any(one.is_file() for one in Path(store.root, "merged").rglob("*"))


def test_units_of_other_layers_are_never_one_view(store: Store):
    units = [
        commit_all(store, str(layers), labels(str(layers), 1, layers), rows_of(random_questions(0, [2])))
        for layers in ((0, 1), (0, 2))
    ]
    for kind, merge in (("moments", merge_moments), ("rows", merge_rows)):
        with pytest.raises(StoreError, match=f"{units[1][kind]}: its layer is not that of {units[0][kind]}"):
            merge(store, [each[kind] for each in units], {})


def test_what_a_narrower_layer_lacks_is_nan_and_changes_no_other_number(store: Store):
    parts = [random_questions(seed, [3, 0, 5]) for seed in range(2)]
    wide, narrow = [], []
    for at, part in enumerate(parts):
        wide.append(commit_all(store, f"w{at}", labels(str(at), 3), rows_of(part)))
        narrow.append(commit_all(store, f"n{at}", labels(str(at), 3), narrowed(rows_of(part), [5, 2])))
    full, less = (
        open_merged(merge_moments(store, [each["moments"] for each in units], {})).load() for units in (wide, narrow)
    )
    is_neuron_LF = np.arange(5) < np.array([5, 2])[:, None]
    for name, values in less.data_vars.items():
        if values.dims == ("group", "layer", "neuron"):
            np.testing.assert_array_equal(values.values[:, is_neuron_LF], full[name].values[:, is_neuron_LF], name)
            rest = values.values[:, ~is_neuron_LF]
            assert (rest == 0).all() if name == "positive_count" else np.isnan(rest).all(), name
    rows = open_rows(
        merge_rows(store, [each["rows"] for each in narrow], {}, [each["maxima"] for each in narrow])
    ).load()
    assert (rows["row_argmax"].values[:, ~is_neuron_LF] == NO_TOKEN).all()
    top = top_questions(rows, 2)
    assert (top["position"].values[:, ~is_neuron_LF] == -1).all()
    assert (top["position"].values[:, is_neuron_LF] >= 0).all()


def test_an_outsider_opens_the_histogram_as_the_contract_says(store: Store):
    parts = [(GROUPS[0], [3, 2]), (GROUPS[1], [4]), (GROUPS[0], [9, 0]), ("c_voice.zh/法治/support", [0])]
    units, totals = [], dict.fromkeys([group for group, _ in parts], 0)
    for at, (group, lengths) in enumerate(parts):
        counts = counts_of(random_questions(at, lengths), PLAN)
        units.append(commit(store, "histogram", str(at), histogram_unit(group, PLAN, counts, sum(lengths))))
        totals[group] = totals[group] + counts
    path = merge_histogram(store, units, {"model": "m"})
    found = xr.open_zarr(path)
    assert path.endswith(".histogram.zarr")
    assert set(found.data_vars) == {"histogram", "token_count"}
    assert set(found.coords) == {"group", "layer", "neuron", "edges"}
    assert found["histogram"].dims == ("group", "site", "bin")
    assert found["histogram"].dtype == np.int64
    assert (found["layer"].dims, found["neuron"].dims) == (("site",), ("site",))
    assert list(zip(found["layer"].values, found["neuron"].values, strict=True)) == [(3, 0), (3, 4), (7, 0)]
    np.testing.assert_array_equal(found["edges"].values, PLAN.edges)
    assert found["token_count"].values.tolist() == [14, 4, 0]
    for group, counts in totals.items():
        np.testing.assert_array_equal(found["histogram"].sel(group=group), counts)
    assert found.attrs == {"model": "m"}
    assert verify_store(store.root) == []


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (histogram_plan(even_edges(0, 5, 9), PLAN.layer, PLAN.neuron), "edges"),
        (histogram_plan(PLAN.edges, PLAN.layer, PLAN.neuron + 1), "neuron"),
        (histogram_plan(PLAN.edges, PLAN.layer + 1, PLAN.neuron), "layer"),
    ],
)
def test_histograms_of_other_neurons_or_edges_are_never_one_view(store: Store, other: HistogramPlan, name: str):
    counts = np.zeros((3, 10), np.int64)
    units = [
        commit(store, "histogram", str(at), histogram_unit("g", plan, counts, 0))
        for at, plan in enumerate((PLAN, other))
    ]
    with pytest.raises(StoreError, match=f"{units[1]}: its {name} is not that of {units[0]}"):
        merge_histogram(store, units, {})


def test_what_was_not_captured_is_asked_for(store: Store):
    unit = commit_all(store, "a", labels("a", 1), rows_of(random_questions(0, [2])))["rows"]
    rows = open_rows(merge_rows(store, [unit], {}))
    with pytest.raises(NeedsRows, match=r"set `capture: \{maxima: true\}` and run `value-harvest capture` again"):
        top_questions(rows, 3)
    with pytest.raises(NeedsRows, match=r"capture again with `histogram: \{neurons: "):
        open_histogram(Path(store.root, "merged", "none.histogram.zarr"))


def test_equal_maxima_come_in_the_order_of_questions_and_missing_ones_are_padded(store: Store):
    maxima = np.array([[[0.5]], [[0.5]], [[0.25]]])
    a, b = [one[None] for one in maxima], [np.zeros((0, 1, 1)), np.full((3, 1, 1), -2.0)]
    units = [
        commit_all(store, name, labels(name, len(part), (6,), GROUPS[at]), rows_of(part))["maxima"]
        for at, (name, part) in enumerate((("a", a), ("b", b)))
    ]
    top = top_questions(open_rows(merge_rows(store, [], {}, units)), 2)
    assert top["question_id"].dims == top["value"].dims == top["position"].dims == ("group", "layer", "neuron", "rank")
    assert top["group"].values.tolist() == GROUPS
    assert top["layer"].values.tolist() == [6]
    assert top["question_id"].values[:, 0, 0].tolist() == [["a/问0", "a/问1"], ["b/问1", ""]]
    np.testing.assert_array_equal(top["value"].values[:, 0, 0], [[0.5, 0.5], [-2.0, np.nan]])
    assert top["position"].values[:, 0, 0].tolist() == [[0, 0], [0, -1]]
    assert top_questions(open_rows(merge_rows(store, [], {}, units)), 9)["value"].sizes["rank"] == 9
    with pytest.raises(ValueError, match="k is 0; choose at least 1"):
        top_questions(open_rows(merge_rows(store, [], {}, units)), 0)


def test_a_quantile_in_an_open_bin_or_of_no_token_is_nan(store: Store):
    plan = histogram_plan(np.float32([0, 1, 2]), [0], [5])
    cases = {"a": [95, 5, 0, 0], "b": [94, 4, 2, 0], "c": [0, 0, 0, 7], "d": [0] * 4, "e": [0, 50, 50, 0]}
    units = [
        commit(store, "histogram", name, histogram_unit(name, plan, np.array([counts]), sum(counts)))
        for name, counts in cases.items()
    ]
    found = quantiles(open_histogram(merge_histogram(store, units, {})), (0.5, 0.95, 1.0))
    assert found["quantile"].dims == ("group", "site", "q")
    assert (found["layer"].values.tolist(), found["neuron"].values.tolist()) == ([0], [5])
    assert found["q"].values.tolist() == [0.5, 0.95, 1.0]
    nan = np.nan
    expected = [[nan, nan, 1.0], [nan, 0.25, 2.0], [nan] * 3, [nan] * 3, [1.0, 1.9, 2.0]]
    np.testing.assert_allclose(found["quantile"].values[:, 0], expected, rtol=1e-12)
    for q in (0.0, 1.5, np.nan):
        with pytest.raises(ValueError, match="choose more than 0 and at most 1"):
            quantiles(open_histogram(merge_histogram(store, units, {})), (q,))
