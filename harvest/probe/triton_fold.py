"""The fold on a CUDA device, as kernel.py does it: launched in every step, so that a CUDA graph has it too.

What is captured is the launch; whose token is whose it reads at run time from `DeviceSegments`. Statistics and products
survive a graph. Edits and histograms do not yet: their shapes follow the data, so `Probe.refuse_if_captured` refuses
them where a graph was captured.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harvest.errors import EngineError
from harvest.probe.kernel import INTERPRETED, fold_kernel
from harvest.probe.state import Activation, DeviceSegments, Folder, Probe, ProbedLayer, Segment, SlotStatistics

Kind = Literal["silu", "gelu", "gelu_tanh", "given"]
BLOCK_TOKENS = 32
BLOCK_NEURONS = 128
# 32 x 128 fp32 are 32 registers of each of a program's 128 threads


def kind_of(activation: Activation) -> Kind:
    """How the kernel knows this activation; "given" for one that it doesn't, which torch computes for it."""
    if activation is F.silu:
        return "silu"
    if isinstance(activation, partial) and activation.func is F.gelu and set(activation.keywords) == {"approximate"}:
        return "gelu_tanh" if activation.keywords["approximate"] == "tanh" else "gelu"
    return "gelu" if activation is F.gelu else "given"


class TritonFolder(Folder):
    """The Triton fold; it holds activations back, in the model's dtype.

    By default the stock module computes the product, and the kernel reads the gates once more than a bare model does.
    Fused, the kernel computes the product of every token too and gate_up is read once; that is allowed only after the
    kernel has been proven on this device to give the stock module's bits.
    """

    name = "triton"

    def __init__(self, layers: Sequence[ProbedLayer], statistics: SlotStatistics, fused: bool = False) -> None:
        """Raises EngineError without a CUDA device, or if a fused product cannot be proven to be the stock one."""
        device = statistics.mean_LSF.device
        if device.type != "cuda" and not INTERPRETED:
            raise EngineError(
                f"cluster.fold: triton runs on a CUDA device only, not on {device.type}; set cluster.fold: auto"
            )
        most = max(1, statistics.mean_LSF.shape[1] - 1)
        self.segments: DeviceSegments = DeviceSegments.allocate(most, device)
        self._fused = fused
        self._states = [_state(statistics, index) for index in range(len(layers))]
        if fused:
            for layer in {
                (id(type(layer.stock)), kind_of(layer.activation)): layer for layer in reversed(layers)
            }.values():
                self._prove(layer, statistics)

    def product(self, hidden: Tensor, layer: ProbedLayer, index: int, probe: Probe) -> Tensor:
        if not self._fused:
            self.fold_step(hidden[:, : layer.width], layer, index, probe)
            return layer.stock(hidden)
        product_TF = hidden.new_empty(len(hidden), layer.width)
        kind, holds = kind_of(layer.activation), probe.statistics.holds
        _launch(hidden, layer.width, self.segments, self._states[index], holds, kind, product_TF)
        return product_TF

    def fold_step(self, gate_TF: Tensor, layer: ProbedLayer, index: int, probe: Probe) -> None:
        kind = kind_of(layer.activation)
        rows_TF = layer.activation(gate_TF).contiguous() if kind == "given" else gate_TF
        _launch(rows_TF, layer.width, self.segments, self._states[index], probe.statistics.holds, kind)

    def fold_held(self, layer: ProbedLayer, index: int, probe: Probe, held: Sequence[Segment]) -> None:
        if not held:
            return
        held_SHF = probe.statistics.held_LSHF[index]
        # the slots' held activations lie one after the other, as the tokens of a batch do
        held_NF = held_SHF.flatten(0, 1)
        direct = [Segment(slot * held_SHF.shape[1], length, slot, 0, done) for _, length, slot, _, done in held]
        segments = DeviceSegments.allocate(len(direct), held_NF.device)
        segments.fill(direct)
        # they were counted when they came, and may not be held back again
        state = [None, *self._states[index][1:]]
        _launch(held_NF, layer.width, segments, state, holds=0, kind="given")

    def _prove(self, layer: ProbedLayer, statistics: SlotStatistics) -> None:
        """Raises EngineError unless every 16-bit gate, under ups of all magnitudes, gives the stock product's bits."""
        kind, dtype, where = kind_of(layer.activation), statistics.held_LSHF.dtype, f"layer {layer.layer}"
        if kind == "given" or not layer.gated or dtype.itemsize != 2:
            raise EngineError(
                f"{where}: a fused product is proven for gated silu or gelu of 16-bit models only; set `product: stock`"
            )
        device = statistics.mean_LSF.device
        gates = torch.arange(1 << 16, dtype=torch.int32, device=device).to(torch.int16).view(dtype)
        # 2039 is odd: over 2^16 patterns, signs, exponents and mantissas all vary
        ups = gates[::2039][:BLOCK_TOKENS]
        hidden = torch.cat([gates.expand(len(ups), -1), ups[:, None].expand(-1, len(gates))], dim=1)
        product_UG = torch.empty_like(hidden[:, : len(gates)], memory_format=torch.contiguous_format)
        at_rest = DeviceSegments.allocate(1, device)
        _launch(hidden, len(gates), at_rest, [None, *self._states[0][1:]], holds=0, kind=kind, product_TF=product_UG)
        stock_UG = layer.stock(hidden)
        same_UG = product_UG.view(torch.int16) == stock_UG.view(torch.int16)
        wrong_G = ~(same_UG | (product_UG.isnan() & stock_UG.isnan())).all(dim=0)
        if wrong_G.any():
            first = gates[wrong_G][0].item()
            raise EngineError(
                f"{where}: the fused product differs from the stock module's for {int(wrong_G.sum())} of 65536 gates, "
                f"as {first}; set `product: stock`"
            )


def _state(statistics: SlotStatistics, index: int) -> list[Tensor | None]:
    """One layer's part of the statistics, in the order in which the kernel takes it."""
    return [
        statistics.count_LS[index],
        statistics.mean_LSF[index],
        statistics.m2_LSF[index],
        statistics.min_LSF[index],
        statistics.max_LSF[index],
        statistics.positive_LSF[index],
        statistics.peak_LSF[index],
        statistics.held_LSHF[index],
    ]


def _launch(  # noqa: PLR0917 a kernel takes what it takes
    rows_TF: Tensor,
    width: int,
    segments: DeviceSegments,
    state: Sequence[Any],
    holds: int,
    kind: Kind,
    product_TF: Tensor | None = None,
) -> None:
    fused = product_TF is not None
    # fused, one program at least has no segment: it takes the tokens after the last one
    grid = (segments.most + fused, -(-width // BLOCK_NEURONS))
    fold_kernel[grid](
        rows_TF,
        rows_TF.stride(0),
        product_TF,
        len(rows_TF),
        segments.table_R5,
        *state,
        width,
        state[1].shape[-1],
        KIND=kind,
        FUSED=fused,
        HOLDS=holds,
        BLOCK_N=BLOCK_TOKENS,
        BLOCK_F=BLOCK_NEURONS,
    )
