"""Maxima and histograms of the real engine against the reference, from texts to what readers make of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import reference
from captured import run_task
from engine_cases import random_tokens

from harvest.capture import Answered, Capturing, missing_tasks, plan_blocks
from harvest.engine.options import EngineOptions
from harvest.engine.seat import open_engine
from harvest.stats.histogram import even_edges, histogram_plan
from harvest.store.commit import Store
from harvest.store.merge import merge_histogram, merge_moments, merge_rows
from harvest.store.reader import open_histogram, open_merged, open_rows, quantiles, top_questions
from harvest.types import Completion, OptionOrder, Prompt, Text

TEXTS = [Text(random_tokens(n, n), n // 3, n - 1) for n in (9, 40, 200, 3, 77)] + [Text(random_tokens(20), 20, 20)]
SITES = [(0, 0), (0, 95), (1, 7), (1, 50), (2, 3), (2, 94)]
PLAN = histogram_plan(even_edges(0, 2.99, 300), *zip(*SITES, strict=True))
GROUP = "c_voice.zh/和谐/support"


@pytest.fixture(scope="module")
def engine(tiny_llama: Path) -> Iterator[object]:
    engine = open_engine(EngineOptions(tiny_llama, dtype="float32", max_model_len=512))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def counted(tiny_llama: Path) -> list[np.ndarray]:
    """The reference's activations of each text's counted tokens, (layer, token, neuron)."""
    oracle = reference.load_model(tiny_llama)
    return [reference.activations(oracle, text.token_ids)[:, text.count_start : text.count_stop] for text in TEXTS]


def slack(value):
    """How far a float32 forward may be from another, as in the engine's own tests of extremes."""
    return 1e-5 + 1e-4 * np.abs(value)


def test_maxima_and_their_first_tokens_equal_the_reference(engine, counted):
    rows = engine.capture(TEXTS)
    assert rows.argmax_QLF.dtype == np.int32
    num_clear = num_all = 0
    for at, one in enumerate(counted):
        value, position = reference.first_maxima(one)
        if not one.shape[1]:
            assert np.isnan(rows.max_QLF[at]).all()
            assert (rows.argmax_QLF[at] == -1).all()
            continue
        assert (np.abs(rows.max_QLF[at] - value) <= slack(value)).all()
        found = rows.argmax_QLF[at]
        assert ((found >= 0) & (found < one.shape[1])).all()
        reached = np.take_along_axis(one, found[:, None].astype(np.int64), axis=1)[:, 0]
        assert (value - reached <= 2 * slack(value)).all()
        # where no second token comes near the maximum there is one answer
        clear = (one > (value - 2 * slack(value))[:, None]).sum(axis=1) == 1
        np.testing.assert_array_equal(found[clear], position[clear])
        num_clear, num_all = num_clear + int(clear.sum()), num_all + clear.size
    assert num_clear > 0.95 * num_all


def test_a_histogram_equals_the_reference(engine, counted):
    counts = engine.histogram(TEXTS, PLAN)
    assert (counts.shape, counts.dtype) == ((len(SITES), 301), np.int64)
    assert (counts.sum(axis=1) == sum(text.planned for text in TEXTS)).all()
    assert engine.layers == (0, 1, 2)
    edges = PLAN.edges.astype(np.float64)
    num_equal = 0
    for at, (layer, neuron) in enumerate(zip(PLAN.layer, PLAN.neuron, strict=True)):
        values = np.concatenate([one[layer, :, neuron] for one in counted])
        # a value that is an edge up to rounding may lie on either side of it
        fewest, most = (
            np.cumsum(reference.histogram_of(values, (edges + side * slack(edges)).tolist())) for side in (-1, 1)
        )
        upto = np.cumsum(counts[at])
        assert ((fewest <= upto) & (upto <= most)).all()
        num_equal += int((counts[at] == reference.histogram_of(values, edges.tolist())).sum())
    assert num_equal > 0.9 * counts.size


def test_the_same_texts_give_the_same_histogram_whatever_came_before(engine):
    first = engine.histogram(TEXTS, PLAN)
    engine.histogram([Text(random_tokens(60, 8), 0, 60)], histogram_plan(even_edges(-1, 1, 5), [1], [1]))
    engine.capture(TEXTS[:2])
    np.testing.assert_array_equal(engine.histogram(TEXTS, PLAN), first)


def test_a_histogram_of_no_counted_token_is_zero(engine):
    assert not engine.histogram([Text(random_tokens(5), 5, 5)], PLAN).any()


def test_from_answers_to_top_questions_and_quantiles(engine, tmp_path: Path):
    capturing = Capturing("m", "float32", "response", "replay", ("moments", "rows", "maxima", "histogram"), PLAN)
    answered = [
        Answered(
            Prompt(f"{GROUP}/q{at}", GROUP, f"q{at}", OptionOrder.PUBLISHED, random_tokens(5 + at, at)),
            Completion(random_tokens(12 + at, 100 + at), "", "stop"),
        )
        for at in range(7)
    ]
    store = Store(tmp_path).prepare()
    blocks = plan_blocks(answered, capturing)
    for task in missing_tasks(blocks, store):
        run_task(task, engine)
    units = {kind: [block.units[kind] for block in blocks] for kind in capturing.kinds}
    merged = open_merged(merge_moments(store, units["moments"], {})).load()
    rows = open_rows(merge_rows(store, units["rows"], {}, units["maxima"])).load()
    histogram = open_histogram(merge_histogram(store, units["histogram"], {})).load()

    assert merged["layer"].values.tolist() == rows["layer"].values.tolist() == list(engine.layers)
    np.testing.assert_array_equal(merged["max"].values[0], rows["row_max"].values.max(axis=0))
    top = top_questions(rows, 2)
    np.testing.assert_array_equal(top["value"].values[0, :, :, 0], merged["max"].values[0])
    ids = rows["question_id"].values.tolist()
    for layer, neuron in SITES:
        best = int(np.argmax(rows["row_max"].values[:, layer, neuron]))
        assert top["question_id"].values[0, layer, neuron, 0] == ids[best]
        assert top["position"].values[0, layer, neuron, 0] == rows["row_argmax"].values[best, layer, neuron]

    total = histogram["histogram"].values[0]
    assert (total.sum(axis=1) == int(merged["token_count"].values[0])).all()
    on = merged["positive_count"].values[0][PLAN.layer, PLAN.neuron]
    # bin 0 holds what is not above 0: the tokens that are off
    np.testing.assert_array_equal(total[:, 1:].sum(axis=1), on)
    found = quantiles(histogram, (0.5, 1.0))["quantile"].values[0]
    largest = merged["max"].values[0][PLAN.layer, PLAN.neuron]
    known = (largest > PLAN.edges[0]) & (largest <= PLAN.edges[-1])
    assert known.any()
    assert np.isnan(found[~known, 1]).all()
    width = 0.01 + 1e-6
    assert (np.abs(found[known, 1] - largest[known]) <= width).all()
