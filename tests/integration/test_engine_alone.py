"""Engines that a test opens for itself: one process holds one at a time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import reference
from engine_cases import assert_edited, assert_rows, edit_row, random_tokens
from safetensors.torch import load_file, save_file

from harvest.engine.options import EngineOptions
from harvest.engine.seat import open_engine
from harvest.errors import CaptureError, EngineError
from harvest.types import Edit, Request, Sampling, Text


def test_two_tensor_parallel_ranks_count_and_edit_as_one_model(tiny_llama: Path):
    oracle = reference.load_model(tiny_llama)
    texts = [Text(random_tokens(n, n), n // 2, n - 1) for n in (10, 40, 100)]
    prompt = random_tokens(24, 7)
    # neurons of both ranks: each holds 48 of the 96
    row = edit_row([(0, 3), (0, 95), (1, 47), (1, 48), (2, 90)], scale=3.0)
    engine = open_engine(EngineOptions(tiny_llama, dtype="float32", max_model_len=128, tensor_parallel=2))
    try:
        rows = engine.capture(texts)
        answer = engine.run([Request(prompt, Edit("row", row))], Sampling(6), logprobs=2)[0].outputs[0]
    finally:
        engine.close()
    assert rows.mean_QLF.shape == (3, 3, 96)
    assert_rows(rows, texts, oracle)
    assert_edited(answer, prompt, row, oracle)


def test_a_compiled_engine_is_changed_by_nothing_but_edits(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch):
    """Compiled by inductor: an identity row is row 0 to the last bit, and both are near the bare engine.

    Its kernels are fused around the op, so a bare engine's may round otherwise: the bound is 1e-5 in log-probability.
    """
    monkeypatch.delenv("VLLM_CPU_CI_ENV", raising=False)
    prompts = [random_tokens(n, n) for n in (5, 60, 33)]
    same = Edit("same", edit_row([(0, 1), (1, 50), (2, 40)], scale=1.0))

    def alone(engine, *requests: Request) -> list[tuple[list[int], float]]:
        """One by one, so that all have the same batch."""
        outputs = [engine.run([request], Sampling(12), logprobs=0)[0].outputs[0] for request in requests]
        return [(list(output.token_ids), output.cumulative_logprob) for output in outputs]

    found = {}
    for probe in (True, False):
        engine = open_engine(EngineOptions(tiny_llama, "float32", max_model_len=128, compiled=True, probe=probe))
        try:
            found[probe] = alone(engine, *map(Request, prompts))
            if probe:
                assert alone(engine, *(Request(prompt, same) for prompt in prompts)) == found[probe]
        finally:
            engine.close()
    for (tokens, log_p), (bare_tokens, bare_log_p) in zip(found[True], found[False], strict=True):
        assert tokens == bare_tokens
        assert log_p == pytest.approx(bare_log_p, abs=12 * 1e-5)


def test_a_bare_engine_gives_the_same_log_probabilities(tiny_llama: Path):
    requests = [Request(random_tokens(n, n)) for n in (5, 60, 33)]
    answers = {}
    for probe in (True, False):
        engine = open_engine(EngineOptions(tiny_llama, dtype="float32", max_model_len=512, probe=probe))
        try:
            answers[probe] = [output.outputs[0] for output in engine.run(requests, Sampling(16), logprobs=0)]
        finally:
            engine.close()
    for ours, stock in zip(answers[True], answers[False], strict=True):
        assert list(ours.token_ids) == list(stock.token_ids)
        assert ours.cumulative_logprob == stock.cumulative_logprob


def test_a_nan_fails_the_unit_and_names_the_layer(tiny_llama: Path, tmp_path: Path):
    shutil.copytree(tiny_llama, tmp_path / "broken")
    weights = load_file(tmp_path / "broken/model.safetensors")
    weights["model.layers.2.mlp.gate_proj.weight"][5] = float("nan")
    save_file(weights, tmp_path / "broken/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CaptureError, match="layer 2: a NaN or Inf"):
        open_engine(EngineOptions(tmp_path / "broken", dtype="float32", max_model_len=64))


def test_a_second_engine_in_one_process_is_refused(tiny_llama: Path):
    options = EngineOptions(tiny_llama, dtype="float32", max_model_len=64)
    engine = open_engine(options)
    try:
        with pytest.raises(EngineError, match="has an open engine already"):
            open_engine(options)
    finally:
        engine.close()
