"""The published practice: an eager vLLM engine whose MLPs' forward is replaced by hand, one group at a time.

The replaced forward counts, per layer and neuron, the tokens that switch the neuron on, and fills a 301-bin histogram
of the activation. Generated tokens are told from prompt tokens by a guess: a step with no more rows than a batch has
prompts is taken for decoding. (It is wrong for short prompts and for chunked prefill; here it drops each answer's first
forwarded position, as it does there.) Batches are of 32 prompts of one group.

Axes: T tokens, L layers, F neurons, B bins.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from bench.lines import GENERATION, PRACTICE, Bench, Line
from bench.workload import MAX_MODEL_LEN, Workload, grouped
from harvest.engine.options import EngineOptions, engine_environment

BATCH = 32
_BINS = 301
_PER_UNIT = 100
# bins of 0.01; the first is (-inf, 0], the last (2.99, inf)


class Recorder:
    """One group's counts, of all layers."""

    def __init__(self, layers: int, neurons: int) -> None:
        self.tokens = 0
        self.on_LF = torch.zeros(layers, neurons, dtype=torch.int32)
        self.histogram_LFB = torch.zeros(layers, neurons, _BINS, dtype=torch.int32)
        self._first_F = torch.arange(neurons) * _BINS
        # where a neuron's bins begin
        self._ones = torch.ones(BATCH * neurons, dtype=torch.int32)

    def clear(self) -> None:
        self.tokens = 0
        self.on_LF.zero_()
        self.histogram_LFB.zero_()

    def add(self, index: int, activation_TF: Tensor) -> None:
        x_TF = activation_TF.float()
        self.on_LF[index] += (x_TF > 0).sum(dim=0, dtype=torch.int32)
        # even bins need no search: torch.bucketize takes thirty times as long
        bin_TF = (x_TF * _PER_UNIT).ceil_().clamp_(0, _BINS - 1).long()
        flat = bin_TF.add_(self._first_F).flatten()
        self.histogram_LFB[index].view(-1).scatter_add_(0, flat, self._ones[: len(flat)])
        if index == 0:
            self.tokens += len(x_TF)


def patch(model: Any) -> Recorder:
    """The counts that the model's layers add to from now on."""
    layers = model.model.layers
    recorder = Recorder(len(layers), layers[0].mlp.down_proj.input_size_per_partition)
    for index, layer in enumerate(layers):
        layer.mlp.forward = partial(_forward, layer.mlp, index, recorder)
    return recorder


def _forward(mlp: Any, index: int, recorder: Recorder, x: Tensor) -> Tensor:
    gate_up_TF, _ = mlp.gate_up_proj(x)
    gate_TF, up_TF = gate_up_TF.chunk(2, dim=-1)
    activation_TF = silu(gate_TF)
    if len(x) <= BATCH:
        recorder.add(index, activation_TF)
    out: Tensor = mlp.down_proj(activation_TF * up_TF)[0]
    return out


def open_bench(model: Path, workload: Workload) -> Bench:
    options = EngineOptions(model)
    os.environ.update(engine_environment(options))
    from vllm import LLM

    llm = LLM(
        model=str(model),
        dtype="bfloat16",
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        enforce_eager=True,
        enable_prefix_caching=False,
        disable_log_stats=True,
        seed=0,
    )
    core: Any = llm.llm_engine.engine_core
    recorder = patch(core.engine_core.model_executor.driver_worker.worker.model_runner.model)
    passes: dict[Line, Callable[[], object]] = {}
    for groups in sorted({1, workload.many}):
        # of a group that is larger than a batch, a batch a call
        units = [unit for group in grouped(workload.prompts, groups) for unit in _batches(group)]
        run = partial(_practice, llm, recorder, workload, groups)
        passes[Line(GENERATION, PRACTICE, groups, len(units))] = run
    return Bench(passes)


def _batches(prompts: Sequence[Any]) -> list[Sequence[Any]]:
    return [prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH)]


def _practice(llm: Any, recorder: Recorder, workload: Workload, groups: int) -> None:
    from vllm import SamplingParams

    sampling = workload.sampling
    for group in grouped(workload.prompts, groups):
        recorder.clear()
        for prompts in _batches(group):
            params = SamplingParams(
                temperature=0, max_tokens=sampling.max_tokens, repetition_penalty=sampling.repetition_penalty
            )
            llm.generate([{"prompt_token_ids": list(ids)} for ids in prompts], params, use_tqdm=False)
        # the guess is right here, and no answer ended early: of each answer one token less was forwarded
        assert recorder.tokens == len(group) * (sampling.max_tokens - 1)
