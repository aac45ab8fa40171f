"""Online capture against replay: the same positions, the same counts, while the answers are generated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import reference
from engine_cases import assert_rows, random_tokens

from harvest.engine.options import EngineOptions
from harvest.engine.seat import open_engine
from harvest.errors import EngineError
from harvest.types import Request, Sampling, Text, phase_span

PROMPTS = [random_tokens(n, n) for n in (5, 40, 9, 130, 17, 3)]
SAMPLING = Sampling(40)


@pytest.fixture(scope="module")
def engine(tiny_llama: Path) -> Iterator[object]:
    engine = open_engine(EngineOptions(tiny_llama, dtype="float32", max_model_len=512))
    yield engine
    engine.close()


@pytest.mark.parametrize("phase", ["response", "prompt", "both"])
def test_online_counts_what_replay_counts(engine, phase: str):
    completions, online = engine.answer_and_capture(PROMPTS, SAMPLING, phase)
    assert completions == engine.answer([Request(prompt) for prompt in PROMPTS], SAMPLING)
    texts = [
        Text((*prompt, *done.token_ids[:-1]), *phase_span(phase, len(prompt), len(prompt) + len(done.token_ids) - 1))
        for prompt, done in zip(PROMPTS, completions, strict=True)
    ]
    replay = engine.capture(texts)
    np.testing.assert_array_equal(online.num_tokens_Q, replay.num_tokens_Q)
    assert online.num_tokens_Q.tolist() == [text.planned for text in texts]
    # the same arithmetic in other batches: signs may differ only where an activation is within rounding of 0
    differing = np.argwhere(online.positive_QLF != replay.positive_QLF)
    scale = np.sqrt(np.nanmean(replay.mean_QLF**2))
    assert len(differing) <= 2
    np.testing.assert_allclose(online.mean_QLF, replay.mean_QLF, rtol=1e-5, atol=1e-5 * scale)
    np.testing.assert_allclose(online.m2_QLF, replay.m2_QLF, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(online.max_QLF, replay.max_QLF, rtol=1e-4, atol=1e-6)
    print(f"{phase}: {online.num_tokens_Q.sum()} tokens, {len(differing)} signs of {online.positive_QLF.size} differ")


def test_an_answer_that_ends_at_once_has_an_empty_row(engine):
    """One sampled token is never forwarded, so nothing of the answer is counted."""
    completions, rows = engine.answer_and_capture(PROMPTS[:2], Sampling(1), "response")
    assert [len(done.token_ids) for done in completions] == [1, 1]
    assert rows.num_tokens_Q.tolist() == [0, 0]
    assert np.isnan(rows.mean_QLF).all()


def test_online_rows_equal_the_reference(engine, tiny_llama: Path):
    (done,), rows = engine.answer_and_capture(PROMPTS[1:2], SAMPLING, "response")
    prompt = PROMPTS[1]
    text = Text((*prompt, *done.token_ids[:-1]), len(prompt), len(prompt) + len(done.token_ids) - 1)
    assert_rows(rows, [text], reference.load_model(tiny_llama))


def test_more_requests_than_slots_are_refused_and_the_engine_goes_on(engine):
    with pytest.raises(EngineError, match="65 requests are to count at once, and the engine was opened for 64"):
        engine.answer_and_capture([(1, 2)] * 65, Sampling(1), "response")
    assert engine.capture([Text(PROMPTS[0], 0, 5)]).num_tokens_Q.tolist() == [5]
