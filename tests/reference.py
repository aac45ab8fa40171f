"""Every statistic and edit of this package, slow and plain: the definition that fast code answers to.

The model is Hugging Face's, run one text at a time without a cache; activations are taken by hooks, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from harvest.types import EditPhase, EditRow, Text


def load_model(path: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype, attn_implementation="eager").eval()


def activations_of(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The module that computes act(gate), or a plain MLP's activation, of every layer that has one, in order."""
    body = model.base_model
    body = getattr(body, "decoder", body)
    layers = body.h if hasattr(body, "h") else body.layers
    return [_activation_of(layer) for layer in layers]


def _activation_of(layer: torch.nn.Module) -> torch.nn.Module:
    """OPT has no MLP of its own around it; of a layer with routed experts, the shared expert's is meant."""
    mlp = getattr(layer, "mlp", layer)
    for shared in ("shared_expert", "shared_experts"):
        mlp = getattr(mlp, shared, mlp)
    names = ("act_fn", "activation_fn", "act")
    return next(getattr(mlp, name) for name in names if hasattr(mlp, name))


@dataclass(frozen=True)
class ReferenceRow:
    """One text's statistics over its counted positions; arrays of shape (layer, neuron), NaN where there are none."""

    num_tokens: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    positive: NDArray[np.int64]
    near_zero: NDArray[np.int64]
    # activations within 1e-6 of 0, whose sign is rounding


def activations(model: torch.nn.Module, token_ids: Sequence[int]) -> NDArray[np.float64]:
    """act(gate) at every position, shape (layer, position, neuron)."""
    seen: list[NDArray[np.float64]] = []
    hooks = [
        # some families drop the batch's axis before their MLP
        activation.register_forward_hook(lambda module, args, out: seen.append(out.double().flatten(0, -2).numpy()))
        for activation in activations_of(model)
    ]
    with torch.no_grad():
        model(torch.tensor([list(token_ids)]))
    for hook in hooks:
        hook.remove()
    return np.stack(seen)


def reference_row(model: torch.nn.Module, text: Text) -> ReferenceRow:
    counted = activations(model, text.token_ids)[:, text.count_start : text.count_stop]
    tokens = counted.shape[1]
    if tokens == 0:
        nothing = np.full(counted.shape[::2], np.nan)
        zero = np.zeros(counted.shape[::2], np.int64)
        return ReferenceRow(0, nothing, nothing, nothing, nothing, zero, zero)
    mean = counted.sum(axis=1) / tokens
    return ReferenceRow(
        num_tokens=tokens,
        mean=mean,
        m2=((counted - mean[:, None]) ** 2).sum(axis=1),
        min=counted.min(axis=1),
        max=counted.max(axis=1),
        positive=(counted > 0).sum(axis=1),
        near_zero=(np.abs(counted) <= 1e-6).sum(axis=1),
    )


def reference_moments(model: torch.nn.Module, texts: Sequence[Text]) -> dict[str, NDArray[np.float64]]:
    """Every variable of the merged view for one group, over all its texts at once."""
    counted = [activations(model, text.token_ids)[:, text.count_start : text.count_stop] for text in texts]
    counted = [one for one in counted if one.shape[1]]
    pooled = np.concatenate(counted, axis=1)
    question_means = np.stack([one.mean(axis=1) for one in counted])
    question_rates = np.stack([(one > 0).mean(axis=1) for one in counted])
    return {
        "token_count": np.float64(pooled.shape[1]),
        "question_count": np.float64(len(counted)),
        "mean": pooled.mean(axis=1),
        "m2": ((pooled - pooled.mean(axis=1, keepdims=True)) ** 2).sum(axis=1),
        "min": pooled.min(axis=1),
        "max": pooled.max(axis=1),
        "positive_count": (pooled > 0).sum(axis=1).astype(np.float64),
        "near_zero": (np.abs(pooled) <= 1e-6).sum(axis=1).astype(np.float64),
        "question_mean": question_means.mean(axis=0),
        "question_m2": ((question_means - question_means.mean(axis=0)) ** 2).sum(axis=0),
        "question_rate_mean": question_rates.mean(axis=0),
        "question_rate_m2": ((question_rates - question_rates.mean(axis=0)) ** 2).sum(axis=0),
    }


@contextmanager
def edited(model: torch.nn.Module, row: EditRow, answer_start: int) -> Iterator[None]:
    """The model with y = clip(g * scale + shift, floor, ceiling) at the row's neurons, at the phase's positions.

    Only for whole texts without a cache: position i of the input is position i of the text.
    """

    def hook_for(number: int):
        at = np.flatnonzero(row.layer == number)

        def hook(module, args, out):
            edited_TF = out.flatten(0, -2).clone()
            start, stop = {
                EditPhase.PROMPT: (0, answer_start),
                EditPhase.RESPONSE: (answer_start, len(edited_TF)),
                EditPhase.BOTH: (0, len(edited_TF)),
            }[row.phase]
            for i in at:
                gate = edited_TF[start:stop, int(row.neuron[i])]
                value = gate * float(row.scale[i]) + float(row.shift[i])
                edited_TF[start:stop, int(row.neuron[i])] = value.clamp(float(row.floor[i]), float(row.ceiling[i]))
            return edited_TF.view_as(out)

        return hook

    hooks = [at.register_forward_hook(hook_for(number)) for number, at in enumerate(activations_of(model))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def log_probabilities(model: torch.nn.Module, token_ids: Sequence[int]) -> NDArray[np.float64]:
    """log p of every next token after each position, shape (position, vocabulary)."""
    with torch.no_grad():
        logits = model(torch.tensor([list(token_ids)])).logits[0]
    return torch.log_softmax(logits.double(), dim=-1).numpy()


def first_maxima(counted: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The maximum over tokens and the first token that reaches it, both (layer, neuron), of (layer, token, neuron).

    Without a token: NaN and -1.
    """
    layers, tokens, neurons = counted.shape
    value, position = np.full((layers, neurons), np.nan), np.full((layers, neurons), -1)
    for layer in range(layers):
        for neuron in range(neurons):
            for token in range(tokens):
                if token == 0 or counted[layer, token, neuron] > value[layer, neuron]:
                    value[layer, neuron], position[layer, neuron] = counted[layer, token, neuron], token
    return value, position


def histogram_of(values: Iterable[float], edges: Sequence[float]) -> list[int]:
    """How many of the values lie in (-inf, e0], (e0, e1], …, (e_last, inf)."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[sum(value > edge for edge in edges)] += 1
    return counts


def quantile_of(values: Sequence[float], q: str) -> float:
    """The least of the values that at least a share q (a decimal) of them do not exceed; NaN where there is none."""
    for value in sorted(values):
        if sum(other <= value for other in values) >= Fraction(q) * len(values):
            return value
    return math.nan
