"""The floor: what a fold must add to the bare forward in operations and bytes, from the shapes and from fold.cpp.

All per token and layer. Both sides count only what cannot be done without, in whatever memory it lies: of the forward
its matrices, read once per step, and the MLP's two intermediate results. F neurons of a layer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

import torch

import harvest.probe.native
from bench.checkpoint import Shape
from bench.workload import Workload
from harvest.engine.options import EngineOptions
from harvest.probe.state import SlotStatistics

_GATE = torch.bfloat16.itemsize
_LOOKED_UP = torch.float32.itemsize
_SOURCE = Path(harvest.probe.native.__file__).with_name("fold.cpp")

_PER_ACTIVATION = 12
# fold_tile: the sum; a comparison and a selection for the minimum, a comparison and two selections for the maximum and
# its place, a comparison and a sum for the on-count; difference from the mean, its sum, its square, the squares' sum
_PER_MERGE = 23
# fold_tile, after each micro-batch: its mean 1, whether it is constant 2, the mean corrected 2, the spread 3, the
# distance to the slot's mean 1, mean 2, m2 4, minimum 2, maximum 2 and its place 3, on-count 1


@dataclass(frozen=True, slots=True)
class Cost:
    operations: float
    num_bytes: float

    def beside(self, forward: Cost) -> str:
        return (
            f"{self.operations:,.0f} operations and {self.num_bytes:,.0f} bytes, beside the forward's "
            f"{forward.operations:,.0f} ({self.operations / forward.operations:.2%}) and "
            f"{forward.num_bytes:,.0f} ({self.num_bytes / forward.num_bytes:.1%})"
        )


def floor_lines(shape: Shape, parameters: int, workload: Workload) -> list[str]:
    """What a counted token costs in a prefill of one call, and in decoding all prompts at once."""
    options = EngineOptions(Path())
    width, texts, tokens = shape.neurons, len(workload.texts), workload.text_tokens
    counted = workload.counted_tokens / texts
    steps = -(-tokens // options.max_num_batched_tokens)
    prefill = fold_cost(width, min(counted, micro_batch()), counted, passes_over_gates=1)
    decoding = fold_cost(width, options.holds, options.holds, passes_over_gates=3)
    rows = 4 * state_bytes() * width
    matrices = f"{shape.layer_parameters:,} parameters in each layer's matrices"
    return [
        f"{shape.name}: {parameters:,} parameters, {shape.layers} layers of {width} neurons, {matrices}",
        f"prefill, a counted token: {prefill.beside(forward_cost(shape, tokens / steps))}",
        f"decoding, a token of {texts} at once: {decoding.beside(forward_cost(shape, texts))}",
        f"a text's row, from its slot into its unit: {rows:,} bytes a layer, {rows / counted:,.0f} a counted token",
    ]


def fold_cost(width: int, per_merge: float, per_segment: float, passes_over_gates: int) -> Cost:
    """Of a token that is merged with so many others, in a segment of so many, its gates read or written so often.

    A gate that is held back is read, written to its slot, and read again; the state is read and written per segment.
    """
    operations = width * (_PER_ACTIVATION + _PER_MERGE / per_merge)
    return Cost(operations, width * (passes_over_gates * _GATE + _LOOKED_UP + 2 * state_bytes() / per_segment))


def forward_cost(shape: Shape, tokens: float) -> Cost:
    """Of a token among the `tokens` of a step; gate_up and the product are written and read."""
    weights, between = _GATE * shape.layer_parameters / tokens, 2 * _GATE * 3 * shape.neurons
    return Cost(2 * shape.layer_parameters, weights + between)


def state_bytes() -> int:
    """A slot's moments, extremes, on-count and place, per neuron."""
    one = SlotStatistics.allocate(1, 1, 1, torch.device("cpu"))
    sizes = {field.name: getattr(one, field.name).element_size() for field in fields(one)}
    return sum(size for name, size in sizes.items() if name not in {"count_LS", "held_LSHF"})


def micro_batch() -> int:
    """Tokens between two merges into the state, as fold.cpp has them."""
    found = re.search(r"constexpr int ROWS = (\d+);", _SOURCE.read_text(encoding="utf-8"))
    assert found, f"{_SOURCE} names its micro-batch otherwise"
    return int(found.group(1))
