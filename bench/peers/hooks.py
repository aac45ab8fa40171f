"""The way without vLLM: a transformers model, forward hooks on its activations, statistics in torch.

Written as it would be used: bfloat16, scaled-dot-product attention, no logits, no gradient, no cache; statistics per
text and layer in one go, and texts in padded batches where those are faster.

Axes: Q texts, L layers, F neurons, B texts of a batch, T tokens, N counted tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from bench.lines import HOOKS, PREFILL, Bench, Line
from bench.workload import Workload, fold_groups
from harvest.stats.rows import RequestRows
from harvest.types import Text

_BATCH = 8
# texts of a padded batch


class Recorder:
    """Moments of the activation over each text's counted tokens, fp32, shape (text, layer, neuron)."""

    def __init__(self, model: Any, num_texts: int) -> None:
        shape = (num_texts, model.config.num_hidden_layers, model.config.intermediate_size)
        self.mean, self.m2, self.min, self.max = (torch.zeros(shape) for _ in range(4))
        self.positive = torch.zeros(shape, dtype=torch.int32)
        self.batch: list[tuple[int, Text]] = []
        # which text each row of the current batch is
        for index, layer in enumerate(model.model.layers):
            layer.mlp.act_fn.register_forward_hook(partial(self._record, index))

    def _record(self, index: int, _module: Any, _arguments: Any, activation_BTF: Tensor) -> None:
        for row, (at, text) in enumerate(self.batch):
            x_NF = activation_BTF[row, text.count_start : text.count_stop].float()
            mean_F = x_NF.mean(dim=0)
            self.mean[at, index] = mean_F
            # torch.var_mean along the first axis takes ten times as long
            self.m2[at, index] = (x_NF - mean_F).square_().sum(dim=0)
            self.min[at, index] = x_NF.amin(dim=0)
            self.max[at, index] = x_NF.amax(dim=0)
            self.positive[at, index] = (x_NF > 0).sum(dim=0, dtype=torch.int32)

    def rows(self, texts: Sequence[Text]) -> RequestRows:
        tokens = np.array([text.planned for text in texts], np.int64)
        mean, m2 = self.mean.double().numpy(), self.m2.double().numpy()
        # places of maxima are not asked of it
        places = np.full(mean.shape, -1, np.int32)
        return RequestRows(tokens, mean, m2, self.min.numpy(), self.max.numpy(), self.positive.numpy(), places)


def open_bench(model: Path, workload: Workload) -> Bench:
    torch.set_num_threads(1)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    recorder = Recorder(loaded, len(workload.texts))
    size = _faster(loaded, recorder, workload.texts)
    remark = f"{HOOKS}: " + ("one text at a time" if size == 1 else f"padded batches of {size} texts, by length")
    run = partial(_capture, loaded, recorder, workload.texts, size, workload.many)
    calls = math.ceil(len(workload.texts) / size)
    return Bench({Line(PREFILL, HOOKS, workload.many, calls): run}, (remark,))


def _faster(model: Any, recorder: Recorder, texts: Sequence[Text]) -> int:
    """The faster of one text at a time and padded batches, in CPU time, the second time that each runs."""
    seconds = {}
    for size in (1, _BATCH):
        for _ in range(2):
            start = time.process_time()
            forward(model, recorder, texts[: 2 * _BATCH], size)
            seconds[size] = time.process_time() - start
    return min(seconds, key=lambda size: seconds[size])


def forward(model: Any, recorder: Recorder, texts: Sequence[Text], size: int) -> None:
    in_order = sorted(enumerate(texts), key=lambda each: len(each[1].token_ids))
    for start in range(0, len(in_order), size):
        recorder.batch = in_order[start : start + size]
        ids = [torch.tensor(list(text.token_ids)) for _, text in recorder.batch]
        padded_BT = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        # padded on the right, a causal model's real tokens never see the padding; no mask is the faster attention
        with torch.inference_mode():
            model.model(padded_BT, use_cache=False)


def _capture(model: Any, recorder: Recorder, texts: Sequence[Text], size: int, groups: int) -> None:
    forward(model, recorder, texts, size)
    fold_groups(recorder.rows(texts), groups)
