"""Every family that the README names: its activations in vLLM are those of its Hugging Face model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reference
from checkpoints import FAMILIES, write_checkpoint
from engine_cases import random_tokens

from harvest.engine.options import EngineOptions
from harvest.engine.seat import open_engine
from harvest.models.checkpoint import read_checkpoint
from harvest.types import Text


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_rows_equal_its_reference(family: str, tmp_path: Path):
    model = write_checkpoint(tmp_path, family)
    assert read_checkpoint(model).num_neurons == 96
    texts = [Text(random_tokens(n, n), n // 2, n - 1) for n in (10, 40, 100)]
    engine = open_engine(EngineOptions(model, dtype="float32", max_model_len=512))
    try:
        rows = engine.capture(texts)
    finally:
        engine.close()
    oracle = reference.load_model(model)
    for at, text in enumerate(texts):
        expected = reference.reference_row(oracle, text)
        assert rows.num_tokens_Q[at] == expected.num_tokens
        assert (np.abs(rows.positive_QLF[at] - expected.positive) <= expected.near_zero).all()
        scale = np.sqrt((expected.m2 / expected.num_tokens + expected.mean**2).mean(axis=1, keepdims=True))
        assert (np.abs(rows.mean_QLF[at] - expected.mean) <= 1e-5 * scale).all()
