"""Histograms add up, quantiles lie in the bin of the true one, and the default bins are the published ones."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.config import EdgesSection
from harvest.stats.histogram import even_edges, histogram_plan, quantiles_of
from harvest.store.arrays import write_group
from harvest.store.commit import Store
from harvest.store.key import unit_name
from harvest.store.merge import merge_histogram
from harvest.store.reader import open_histogram
from harvest.store.units import histogram_unit

EDGES = even_edges(0, 2, 9)
# on an edge, beside it, far out: what a bin's ends are about
VALUES = st.one_of(st.sampled_from([0.0, -0.0, 0.25, 2.0, -1.0, 1e30]), st.floats(-1, 3, width=32))
TOKENS = st.lists(VALUES, max_size=30)


def counts_of(values: list[float]) -> list[int]:
    return reference.histogram_of(values, EDGES.tolist())


def merged(store: Store, parts: list[list[float]]) -> np.ndarray:
    """The merged counts of units that were made of parts, all of one group and one neuron."""
    plan = histogram_plan(EDGES, [0], [0])
    units = []
    for at, part in enumerate(parts):
        arrays, attributes = histogram_unit("g", plan, np.array([counts_of(part)]), len(part))
        write = partial(write_group, arrays=arrays, attributes=attributes)
        unit = unit_name("histogram", {"part": at, "tokens": part})
        units.append(store.commit(unit, ".zarr", write, {}).unit)
    return open_histogram(merge_histogram(store, units, {}))["histogram"].values[0, 0]


@settings(max_examples=15, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_merging_is_adding_in_any_order_and_equals_one_pass(parts: list[list[float]], random):
    everything = [value for part in parts for value in part]
    with TemporaryDirectory() as folder:
        store = Store(Path(folder)).prepare()
        found = merged(store, parts)
        assert found.tolist() == np.sum([counts_of(part) for part in parts], axis=0).tolist()
        assert found.tolist() == merged(store, [everything]).tolist()
        assert found.tolist() == merged(store, random.sample(parts, len(parts))).tolist()
        # associative: some parts joined before the rest is added
        assert found.tolist() == merged(store, [[value for part in parts[:2] for value in part], *parts[2:]]).tolist()
        assert found.tolist() == merged(store, [*parts, []]).tolist()


@settings(max_examples=300, deadline=None)
@given(TOKENS, st.sampled_from(["0.01", "0.07", "0.5", "0.57", "0.95", "0.99", "1"]))
def test_a_quantile_lies_in_the_bin_of_the_true_one(values: list[float], q: str):
    ((found,),) = quantiles_of(np.array([counts_of(values)]), EDGES, [float(q)])
    true = reference.quantile_of(values, q)
    inside = [(low, high) for low, high in pairwise(EDGES.tolist()) if low < true <= high]
    if not inside:
        assert math.isnan(found)
    else:
        ((low, high),) = inside
        assert low < found <= high


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 2, width=32, exclude_min=True), min_size=1, max_size=30))
def test_quantiles_never_fall_as_q_rises(values: list[float]):
    (found,) = quantiles_of(np.array([counts_of(values)]), EDGES, np.linspace(0.01, 1, 100).tolist())
    assert not np.isnan(found).any()
    assert (np.diff(found) >= 0).all()


def test_the_default_bins_are_valuelocate_s():
    section = EdgesSection()
    edges = even_edges(section.start, section.stop, section.num)
    assert histogram_plan(edges, [0], [0]).num_bins == 301
    assert edges.dtype == np.float32
    np.testing.assert_array_equal(edges, (np.arange(300) / 100).astype(np.float32))


@pytest.mark.parametrize("arguments", [(1.0, 1.0, 2), (2.0, 1.0, 5), (1e30, 1e30 + 1, 3), (0.0, 1e300, 4)])
def test_edges_that_do_not_ascend_are_refused(arguments: tuple[float, float, int]):
    with pytest.raises(ValueError, match="do not ascend in float32"):
        even_edges(*arguments)
