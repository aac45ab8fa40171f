"""Two pipeline stages count as one model: each holds some of the layers, and their rows are put together."""

from __future__ import annotations

from pathlib import Path

import pytest
import reference
from engine_cases import assert_edited, assert_rows, edit_row, random_tokens

from harvest.engine.options import EngineOptions
from harvest.engine.seat import open_engine
from harvest.types import Edit, Request, Sampling, Text

# vLLM's stages read what they receive from a buffer that torch calls not writable
pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")


def test_two_pipeline_stages_count_and_edit_as_one_model(tiny_llama: Path):
    oracle = reference.load_model(tiny_llama)
    # the longest takes several steps, so that the stages work at different ones at once
    texts = [Text(random_tokens(n, n), n // 2, n - 1) for n in (10, 40, 100)]
    prompt = random_tokens(24, 7)
    # layers 0 and 1 are the first stage's, layer 2 the second's
    row = edit_row([(0, 3), (1, 95), (2, 47)], scale=3.0)
    options = EngineOptions(
        tiny_llama, dtype="float32", max_model_len=128, pipeline_parallel=2, max_num_seqs=8, max_num_batched_tokens=32
    )
    engine = open_engine(options)
    try:
        rows = engine.capture(texts)
        answer = engine.run([Request(prompt, Edit("row", row))], Sampling(6), logprobs=2)[0].outputs[0]
    finally:
        engine.close()
    assert rows.mean_QLF.shape == (3, 3, 96)
    assert_rows(rows, texts, oracle)
    assert_edited(answer, prompt, row, oracle)
