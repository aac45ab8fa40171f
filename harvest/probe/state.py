"""The probe's memory. The statistics are static: allocated once, before warm-up, and never moved.

Axes: T tokens of a step, S slots (0 is the sink), L probed layers of this rank, F this rank's neurons of a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

SINK = 0
IDENTITY = 0

Activation = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class Routing:
    """Where each token of the current step goes; rewritten before every real step, at rest everything is inert."""

    counted_N: Tensor
    # indices of the tokens that are counted, int64
    local_N: Tensor
    # for each counted token, its place in active_A
    active_A: Tensor
    # the slots that count in this step
    tokens_A: Tensor
    # how many tokens each of them counts, fp64
    edited_E: Tensor
    # indices of the tokens that are edited
    row_E: Tensor
    # for each edited token, its edit row

    @staticmethod
    def at_rest() -> Routing:
        none = torch.zeros(0, dtype=torch.int64)
        return Routing(none, none, none, torch.zeros(0, dtype=torch.float64), none, none)


@dataclass(slots=True)
class SlotStatistics:
    """Running moments per slot, layer and neuron; shape (L, S, F), counts (L, S)."""

    count_LS: Tensor
    mean_LSF: Tensor
    m2_LSF: Tensor
    min_LSF: Tensor
    max_LSF: Tensor
    positive_LSF: Tensor

    @staticmethod
    def allocate(layers: int, slots: int, neurons: int, device: torch.device) -> SlotStatistics:
        shape = (layers, slots, neurons)
        statistics = SlotStatistics(
            torch.zeros(layers, slots, dtype=torch.int64, device=device),
            torch.zeros(shape, dtype=torch.float64, device=device),
            torch.zeros(shape, dtype=torch.float64, device=device),
            torch.empty(shape, dtype=torch.float32, device=device),
            torch.empty(shape, dtype=torch.float32, device=device),
            torch.zeros(shape, dtype=torch.int64, device=device),
        )
        statistics.clear(torch.arange(slots, device=device))
        return statistics

    def clear(self, slots: Tensor) -> None:
        self.count_LS[:, slots] = 0
        self.mean_LSF[:, slots] = 0
        self.m2_LSF[:, slots] = 0
        self.min_LSF[:, slots] = torch.inf
        self.max_LSF[:, slots] = -torch.inf
        self.positive_LSF[:, slots] = 0


@dataclass(slots=True)
class EditTable:
    """One layer's coefficients, shape (rows, most edits of a row); padding is marked and writes nothing new."""

    neuron_RK: Tensor
    coefficients_4RK: Tensor
    # scale, shift, floor, ceiling; fp32
    real_RK: Tensor
    # False where padded


@dataclass(slots=True)
class ProbedLayer:
    """One MLP: which layer of the model it is, and the arithmetic that the stock module would have done."""

    layer: int
    width: int
    # this rank's neurons, F
    offset: int
    # this rank's first neuron
    stock: Activation
    # gated: gate_up (T, 2F) -> product (T, F); otherwise gate (T, F) -> activation (T, F)
    activation: Activation
    # gate (T, F) -> activation (T, F), in the model's dtype
    gated: bool = True
    edits: EditTable | None = None


@dataclass(slots=True)
class Probe:
    """All the probe of one engine knows on one rank."""

    layers: list[ProbedLayer]
    statistics: SlotStatistics
    routing: Routing = field(default_factory=Routing.at_rest)
