"""Merging units equals one pass over all their tokens, however the questions were cut into units."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import commit_moments, plain_moments, random_questions

from harvest.store.commit import Store
from harvest.store.merge import merge_moments
from harvest.store.reader import open_merged

LENGTHS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=4), min_size=1, max_size=4)


@settings(max_examples=10, deadline=None)
@given(LENGTHS, st.integers(0, 2**32))
def test_parts_equal_all_at_once(lengths: list[list[int]], seed: int):
    parts = [random_questions(seed + index, each, layers=1, neurons=3) for index, each in enumerate(lengths)]
    everything = [question for part in parts for question in part]
    with TemporaryDirectory() as folder:
        store = Store(Path(folder)).prepare()
        units = [commit_moments(store, str(index), "g", part).unit for index, part in enumerate(parts)]
        found = open_merged(merge_moments(store, units, {})).sel(group="g").load()
    assert found["token_count"] == sum(map(len, everything))
    assert found["question_count"] == sum(len(question) > 0 for question in everything)
    if not found["token_count"]:
        assert np.isnan(found["mean"]).all()
        return
    for name, expected in plain_moments(everything).items():
        # second moments and rates went through float32 once per unit
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(found["positive_count"], plain_moments(everything)["positive_count"])
