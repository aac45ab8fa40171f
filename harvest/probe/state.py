"""The probe's memory. All of it is static: allocated once, before warm-up, and never moved.

Axes: T tokens of a step, S slots (0 is the sink), L probed layers of this rank, F this rank's neurons of its widest
layer, H activations a slot can hold back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from harvest.errors import EngineError

SINK = 0
IDENTITY = 0

Activation = Callable[[Tensor], Tensor]


class Segment(NamedTuple):
    """A request's counted tokens in one step: consecutive in the batch and in position."""

    begin: int
    # index of the first in the batch
    length: int
    slot: int
    held: int
    # activations that the slot holds back, before this step
    before: int
    # tokens of the request that were counted before this step


class Edited(NamedTuple):
    """The edited tokens of a step."""

    token_E: Tensor
    # their indices in the batch
    row_E: Tensor
    # their edit rows


@dataclass(slots=True)
class Routing:
    """Where each token of the current step goes; rewritten before every real step, at rest everything is inert."""

    segments: list[Segment] = field(default_factory=list)
    # in batch order; a slot stands at most once
    runs: list[tuple[int, int]] = field(default_factory=list)
    # maximal stretches [begin, end) of counted tokens
    edited: Edited | None = None
    # None where no token is


@dataclass(slots=True)
class DeviceSegments:
    """A step's segments where a CUDA graph finds them: on the device, allocated once, never moved; at rest none."""

    table_R5: Tensor
    # int32; row 0 starts with their number, row s + 1 is segment s

    @staticmethod
    def allocate(most: int, device: torch.device) -> DeviceSegments:
        return DeviceSegments(torch.zeros(1 + most, len(Segment._fields), dtype=torch.int32, device=device))

    @property
    def most(self) -> int:
        """How many segments there is room for."""
        return len(self.table_R5) - 1

    def fill(self, segments: Sequence[Segment]) -> None:
        """Make these the segments of what is launched from now on; the device is not waited for."""
        table_R5 = torch.from_numpy(np.array([(len(segments), 0, 0, 0, 0), *segments], np.int32))
        if self.table_R5.is_cuda:
            # a fresh page each time: torch gives it to nobody else before the copy from it is done
            table_R5 = table_R5.pin_memory()
        self.table_R5[: len(table_R5)].copy_(table_R5, non_blocking=True)


@dataclass(slots=True)
class SlotStatistics:
    """Running moments per layer, slot and neuron: of the tokens folded so far, which excludes those held back.

    Single tokens, as decoding brings them, are held back in the model's dtype and folded H at a time: it saves most of
    the memory traffic, and a surplus token at the end can still be dropped. Shapes (L, S, F) but for count and held.
    """

    count_LS: Tensor
    # tokens seen, folded or held back; int64
    mean_LSF: Tensor
    m2_LSF: Tensor
    min_LSF: Tensor
    max_LSF: Tensor
    positive_LSF: Tensor
    peak_LSF: Tensor
    # which counted token, from 0, was the first to reach the maximum
    held_LSHF: Tensor
    # what the held activations are computed from: a gate on the way of fold.cpp's tables, else the activation

    @staticmethod
    def allocate(  # noqa: PLR0917 six axes of one allocation
        layers: int, slots: int, neurons: int, device: torch.device, holds: int = 0, dtype: torch.dtype = torch.float32
    ) -> SlotStatistics:
        shape = (layers, slots, neurons)
        statistics = SlotStatistics(
            torch.zeros(layers, slots, dtype=torch.int64, device=device),
            torch.zeros(shape, dtype=torch.float64, device=device),
            torch.zeros(shape, dtype=torch.float64, device=device),
            torch.empty(shape, dtype=torch.float32, device=device),
            torch.empty(shape, dtype=torch.float32, device=device),
            torch.zeros(shape, dtype=torch.int32, device=device),
            torch.zeros(shape, dtype=torch.int32, device=device),
            torch.zeros((layers, slots, holds, neurons), dtype=dtype, device=device),
        )
        statistics.clear(torch.arange(slots, device=device))
        return statistics

    @property
    def holds(self) -> int:
        """H."""
        return self.held_LSHF.shape[2]

    def clear(self, slots: Tensor) -> None:
        for zeroed in (self.count_LS, self.mean_LSF, self.m2_LSF, self.positive_LSF):
            zeroed[:, slots] = 0
        self.min_LSF[:, slots] = torch.inf
        self.max_LSF[:, slots] = -torch.inf
        self.peak_LSF[:, slots] = -1


@dataclass(slots=True)
class EditTable:
    """One layer's coefficients, shape (rows, most edits of a row); padding is marked and writes nothing new."""

    neuron_RK: Tensor
    coefficients_4RK: Tensor
    # scale, shift, floor, ceiling; fp32
    real_RK: Tensor
    # False where padded


@dataclass(slots=True)
class Bins:
    """A histogram of chosen neurons of one layer, of this rank."""

    neuron_N: Tensor
    # this rank's numbers of them
    edges_E: Tensor
    # ascending, fp32; bin e is (edges[e - 1], edges[e]]
    count_NB: Tensor
    # int64, B = E + 1


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
    bins: Bins | None = None


@dataclass(slots=True)
class Probe:
    """All the probe of one engine knows on one rank."""

    layers: list[ProbedLayer]
    statistics: SlotStatistics
    folder: Folder
    routing: Routing = field(default_factory=Routing)
    captured: bool = False
    # whether a CUDA graph has the probe in it

    def begin(self, routing: Routing) -> None:
        """The next forward is a real step, and its tokens go there. Called outside of any graph."""
        self.routing = routing
        if self.folder.segments is not None:
            self.folder.segments.fill(routing.segments)

    def rest(self) -> None:
        """The step is over; warm-up, dummy and capture runs count nothing."""
        self.begin(Routing())

    def refuse_if_captured(self, what: str) -> None:
        """Raises EngineError if a CUDA graph has the probe in it, which goes on without `what`."""
        if self.captured:
            raise EngineError(f"{what} cannot be had under CUDA graphs yet; set cluster.compiled: false")


class Folder(Protocol):
    """How a step is folded. What is right is defined by harvest.probe.fold; others agree with it."""

    name: str
    segments: DeviceSegments | None = None
    # where the fold reads the step's segments, if not in `Probe.routing`

    def product(self, hidden: Tensor, layer: ProbedLayer, index: int, probe: Probe) -> Tensor:
        """The stock product (T, F) of the layer's input, with the step's counted tokens folded first."""
        if probe.routing.segments:
            self.fold_step(hidden[:, : layer.width], layer, index, probe)
        return layer.stock(hidden)

    def fold_step(self, gate_TF: Tensor, layer: ProbedLayer, index: int, probe: Probe) -> None:
        """Fold the step's counted tokens of one layer, given the layer's gate (T, F), maybe a view of gate_up."""

    def fold_held(self, layer: ProbedLayer, index: int, probe: Probe, held: Sequence[Segment]) -> None:
        """Fold the first `length` activations that each segment's slot holds back, after `before` folded ones."""
