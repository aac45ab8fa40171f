"""Fold a step's activations into the slots, and overwrite the edited ones. Torch only; the definition of the op.

Axes: T tokens of the step, N tokens of one slot, E edited tokens, K edits of a row, F neurons of a layer, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harvest.probe.state import Bins, Edited, EditTable, Folder, Probe, ProbedLayer, Segment, SlotStatistics


def fold_tokens(x_NF: Tensor, index: int, slot: int, before: int, statistics: SlotStatistics) -> None:
    """Merge consecutive activations of one slot, of which `before` were folded already (Chan's formula, fp64).

    Summed in fp64, squared in fp32 around the mean's nearest fp32. Where all tokens are equal their mean is an fp32
    number, so m2 is 0 and never a negative rounding error.
    """
    x_NF, number, width = x_NF.float(), len(x_NF), x_NF.shape[1]
    mean_F = x_NF.double().mean(dim=0)
    rough_F = mean_F.float()
    m2_F = (x_NF - rough_F).square().sum(dim=0).double() - number * (mean_F - rough_F).square()
    old_F = statistics.mean_LSF[index, slot, :width]
    delta_F, share = mean_F - old_F, number / (before + number)
    statistics.m2_LSF[index, slot, :width] += m2_F.clamp(min=0) + delta_F.square() * (before * share)
    statistics.mean_LSF[index, slot, :width] = mean_F if before == 0 else old_F + delta_F * share
    statistics.positive_LSF[index, slot, :width] += (x_NF > 0).sum(dim=0).int()
    low_F, high_F = statistics.min_LSF[index, slot, :width], statistics.max_LSF[index, slot, :width]
    low_F.copy_(torch.minimum(low_F, x_NF.amin(dim=0)))
    most_F, at_F = x_NF.max(dim=0)
    peak_F = statistics.peak_LSF[index, slot, :width]
    peak_F.copy_(torch.where(most_F > high_F, (before + at_F).int(), peak_F))
    high_F.copy_(torch.maximum(high_F, most_F))


class TorchFolder(Folder):
    """The definition, on any device; it holds activations back, not gates."""

    name = "torch"

    def fold_step(self, gate_TF: Tensor, layer: ProbedLayer, index: int, probe: Probe) -> None:
        statistics = probe.statistics
        for segment in probe.routing.segments:
            gate_NF = gate_TF[segment.begin : segment.begin + segment.length]
            self._fold_segment(layer.activation(gate_NF), segment, index, statistics)

    def _fold_segment(self, x_NF: Tensor, segment: Segment, index: int, statistics: SlotStatistics) -> None:
        _, length, slot, held, before = segment
        held_HF = statistics.held_LSHF[index, slot, :, : x_NF.shape[1]]
        alone = length == 1 and statistics.holds > 0
        full = held == statistics.holds
        if held and (full or not alone):
            fold_tokens(held_HF[:held], index, slot, before - held, statistics)
        if alone:
            held_HF[0 if full else held] = x_NF[0]
        else:
            fold_tokens(x_NF, index, slot, before, statistics)
        statistics.count_LS[index, slot] += length

    def fold_held(self, layer: ProbedLayer, index: int, probe: Probe, held: Sequence[Segment]) -> None:
        statistics = probe.statistics
        for _, length, slot, _, before in held:
            fold_tokens(statistics.held_LSHF[index, slot, :length, : layer.width], index, slot, before, statistics)


def bin_tokens(x_TN: Tensor, bins: Bins) -> None:
    """Count the chosen neurons' activations in their bins; a NaN counts nowhere, its unit fails for it anyway."""
    x_TN = x_TN.float()
    num_bins = bins.count_NB.shape[1]
    at_TN = torch.bucketize(x_TN, bins.edges_E) + torch.arange(x_TN.shape[1], device=x_TN.device) * num_bins
    bins.count_NB.view(-1).index_add_(0, at_TN.flatten(), (~x_TN.isnan()).flatten().long())


def edit(product_TF: Tensor, activation_TF: Tensor, up_TF: Tensor | None, edited: Edited, table: EditTable) -> None:
    """Overwrite the named neurons of the edited tokens with clip(g * scale + shift, floor, ceiling) * up.

    Every other element keeps the stock module's own arithmetic. Padded entries write back what is there. `up_TF` is
    None for an MLP without a gate, whose product is the activation itself.
    """
    tokens_E1, neuron_EK = edited.token_E[:, None], table.neuron_RK[edited.row_E]
    scale, shift, floor, ceiling = table.coefficients_4RK[:, edited.row_E]
    gate_EK = activation_TF[tokens_E1, neuron_EK].float()
    edited_EK = (gate_EK * scale + shift).clamp(floor, ceiling).to(product_TF.dtype)
    if up_TF is not None:
        edited_EK *= up_TF[tokens_E1, neuron_EK]
    value_EK = torch.where(table.real_RK[edited.row_E], edited_EK, product_TF[tokens_E1, neuron_EK])
    product_TF[tokens_E1, neuron_EK] = value_EK


def activate(hidden: Tensor, probe: Probe, index: int) -> Tensor:
    """The MLP's activation product (T, F), with this step's statistics folded and its edits applied."""
    layer, routing = probe.layers[index], probe.routing
    gate_TF = hidden[:, : layer.width]
    # what follows from the routing in Python, a graph would not do again
    probe.captured |= hidden.is_cuda and torch.cuda.is_current_stream_capturing()
    if layer.bins is not None:
        for begin, end in routing.runs:
            bin_tokens(layer.activation(gate_TF[begin:end, layer.bins.neuron_N]), layer.bins)
    if routing.edited is None or layer.edits is None:
        return probe.folder.product(hidden, layer, index, probe)
    activation_TF = layer.activation(gate_TF)
    product_TF = probe.folder.product(hidden, layer, index, probe)
    edit(product_TF, activation_TF, hidden[:, layer.width :] if layer.gated else None, routing.edited, layer.edits)
    return product_TF
