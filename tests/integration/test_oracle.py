"""What the demo stored, against Hugging Face run the slow way on the same token ids; and doing nothing."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
import reference
import xarray as xr

from analysis.demo import study as demo_study
from analysis.responses import read_responses
from analysis.study import StudyRun
from harvest.capture import text_of
from harvest.engine.options import EngineOptions
from harvest.engine.seat import open_engine
from harvest.types import Request, Sampling

GROUPS = (
    "c_voice.zh/和谐/support",
    "c_voice.zh/诚信/conflict",
    "c_voice.en/Freedom/conflict",
    "value_insight.en/Conservation/positive",
)


@pytest.fixture(scope="module")
def captured(demo_run):
    return json.loads((demo_run.out / "capture.json").read_text())


@pytest.fixture(scope="module")
def texts(demo_run):
    found = defaultdict(dict)
    for answered in read_responses(demo_run.out / "responses.parquet"):
        found[answered.prompt.group][answered.prompt.question_id] = text_of(answered, "response")
    return found


@pytest.fixture(scope="module")
def oracle(demo_run):
    return reference.load_model(demo_run.out / "model")


def root_mean_square(mean, m2, count):
    """The size of a neuron's activation: what an error of its mean is relative to, since a mean may cancel to 0."""
    return np.sqrt(m2 / count + mean**2)


@pytest.mark.parametrize("group", GROUPS)
def test_the_merged_view_equals_the_oracle(captured, texts, oracle, group, say):
    merged = xr.open_zarr(captured["merged"]).sel(group=group).load()
    expected = reference.reference_moments(oracle, list(texts[group].values()))
    assert merged["token_count"] == expected["token_count"]
    assert merged["question_count"] == expected["question_count"]
    doubtful = int(expected["near_zero"].sum())
    say(f"{group}: {int(expected['token_count'])} tokens, {doubtful} activations within 1e-6 of 0")
    assert (np.abs(merged["positive_count"] - expected["positive_count"]) <= expected["near_zero"]).all()
    rms = root_mean_square(expected["mean"], expected["m2"], expected["token_count"])
    error = (np.abs(merged["mean"] - expected["mean"]) / rms).values.max()
    say(f"largest error of a mean {error:.1e} of the neuron's root mean square")
    for name in ("mean", "question_mean", "min", "max"):
        assert (np.abs(merged[name] - expected[name]) <= 1e-5 * np.maximum(rms, np.abs(expected[name]))).all(), name
    beyond = int((np.abs(merged["mean"] - expected["mean"]) > 1e-5 * np.abs(expected["mean"])).sum())
    say(f"{beyond} of {rms.size} means differ by more than 1e-5 of themselves: they cancel to nearly 0")
    # of a neuron that is 0 but for rounding, nothing is known below the 1e-6 that decide a sign
    rounding = 1e-12 * int(expected["token_count"])
    np.testing.assert_allclose(merged["m2"], expected["m2"], rtol=1e-5, atol=rounding)
    for name in ("question_m2", "question_rate_mean", "question_rate_m2"):
        # a sum of squares is known no better than its neuron's size allows
        floor = 1e-9 * rms**2 * expected["question_count"] + rounding
        if "rate" in name:
            # a rate is as doubtful as its counts: nothing is allowed where no activation's sign is rounding
            floor = floor + 2 * expected["near_zero"]
        assert (np.abs(merged[name] - expected[name]) <= 1e-5 * expected[name] + floor).all(), name


def test_the_rows_equal_the_oracle(captured, texts, oracle):
    rows = xr.open_zarr(captured["rows"])
    group = GROUPS[1]
    of_group = rows.isel(question=rows["group"].values == group).load()
    assert sorted(of_group["question_id"].values) == sorted(texts[group])
    for at, question_id in enumerate(of_group["question_id"].values):
        expected = reference.reference_row(oracle, texts[group][question_id])
        assert int(of_group["num_tokens"][at]) == expected.num_tokens
        rms = root_mean_square(expected.mean, expected.m2, expected.num_tokens)
        assert (np.abs(of_group["row_mean"][at] - expected.mean) <= 1e-5 * rms).all()
        assert (np.abs(of_group["row_positive_count"][at] - expected.positive) <= expected.near_zero).all()


def test_the_unedited_condition_in_a_mixed_batch_equals_an_engine_without_probes(demo_run, say):
    settings = demo_study(demo_run.out)
    prompts = StudyRun(settings).trial_prompts
    none = {
        (row["item_id"], row["option_order"]): row["token_ids"]
        for row in pq.read_table(demo_run.out / "completions.parquet").to_pylist()
        if row["condition_id"].endswith("|none")
    }
    # an answer that respond made before is not made again: the others were made in the mixed batches
    responses = pq.read_table(demo_run.out / "responses.parquet").to_pylist()
    orders = {row["item_id"]: row["option_order"] for row in responses}
    mixed = [(item, prompt) for item, prompt in prompts if orders[item.item_id] != prompt.option_order]
    options = EngineOptions(
        demo_run.out / "model", "float32", probe=False, extra={"logprobs_mode": "processed_logprobs"}
    )
    engine = open_engine(options)
    try:
        outputs = engine.run([Request(prompt.token_ids) for _, prompt in mixed], Sampling(120, 1.1), logprobs=2)
    finally:
        engine.close()
    margins = []
    for (item, prompt), output in zip(mixed, outputs, strict=True):
        answer = output.outputs[0]
        assert list(answer.token_ids) == list(none[item.item_id, str(prompt.option_order)])
        for table in answer.logprobs:
            best = sorted((found.logprob for found in table.values()), reverse=True)
            margins.append(best[0] - best[1])
    say(f"{len(mixed)} answers equal, smallest margin between first and second token {min(margins):.3f} nat")
    assert len(mixed) == len(none) // 2 > 100
    assert min(margins) > 0.1
