"""Fold a step's activations into the slots, and overwrite the edited ones. Torch only; the definition of the op.

Axes: T tokens of the step, N counted, E edited tokens, A active slots, K edits of a row, F neurons.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harvest.probe.state import EditTable, Probe, Routing, SlotStatistics


def _step_moments(x_NF: Tensor, local_N: Tensor, tokens_A1: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and m2 per active slot in this step, fp64: summed in fp64, squared in fp32 around the mean's nearest fp32.

    Where all tokens are equal their mean is an fp32 number, so m2 is 0 and never a negative rounding error.
    """
    none_AF = x_NF.new_zeros(len(tokens_A1), x_NF.shape[1])
    mean_AF = none_AF.double().index_add(0, local_N, x_NF.double()) / tokens_A1
    rough_AF = mean_AF.float()
    square_NF = (x_NF - rough_AF[local_N]).square()
    m2_AF = none_AF.index_add(0, local_N, square_NF).double()
    return mean_AF, m2_AF - tokens_A1 * (mean_AF - rough_AF).square()


def fold(activation_TF: Tensor, index: int, routing: Routing, statistics: SlotStatistics) -> None:
    """Merge the counted tokens of one layer into their slots' running moments (Chan's formula, fp64)."""
    slots_A, tokens_A1 = routing.active_A, routing.tokens_A[:, None]
    x_NF = activation_TF[routing.counted_N].float()
    mean_AF, m2_AF = _step_moments(x_NF, routing.local_N, tokens_A1)
    before_A1 = statistics.count_LS[index, slots_A][:, None].double()
    total_A1 = before_A1 + tokens_A1
    old_AF = statistics.mean_LSF[index, slots_A]
    delta_AF = mean_AF - old_AF
    statistics.mean_LSF[index, slots_A] = old_AF + delta_AF * (tokens_A1 / total_A1)
    statistics.m2_LSF[index, slots_A] += m2_AF + delta_AF.square() * (before_A1 * tokens_A1 / total_A1)
    statistics.count_LS[index, slots_A] += routing.tokens_A.long()
    spread_NF = routing.local_N[:, None].expand_as(x_NF)
    lowest, highest = statistics.min_LSF[index], statistics.max_LSF[index]
    lowest[slots_A] = lowest[slots_A].scatter_reduce(0, spread_NF, x_NF, "amin")
    highest[slots_A] = highest[slots_A].scatter_reduce(0, spread_NF, x_NF, "amax")
    # summed as fp32, which is exact for the tokens of a step and forty times faster than int64 on a CPU
    on_AF = x_NF.new_zeros(len(slots_A), x_NF.shape[1]).index_add(0, routing.local_N, (x_NF > 0).float())
    statistics.positive_LSF[index, slots_A] += on_AF.long()


def edit(product_TF: Tensor, activation_TF: Tensor, up_TF: Tensor, routing: Routing, table: EditTable) -> Tensor:
    """The product with clip(g * scale + shift, floor, ceiling) * up at the named neurons of the edited tokens.

    Every other element keeps the stock module's own arithmetic. Padded entries write back what is there.
    """
    rows_E, tokens_E1 = routing.row_E, routing.edited_E[:, None]
    neuron_EK = table.neuron_RK[rows_E]
    scale, shift, floor, ceiling = table.coefficients_4RK[:, rows_E]
    gate_EK = activation_TF[tokens_E1, neuron_EK].float()
    edited_EK = (gate_EK * scale + shift).clamp(floor, ceiling).to(product_TF.dtype)
    value_EK = torch.where(
        table.real_RK[rows_E], edited_EK * up_TF[tokens_E1, neuron_EK], product_TF[tokens_E1, neuron_EK]
    )
    product_TF[tokens_E1, neuron_EK] = value_EK
    return product_TF


def gated_activation(gate_up: Tensor, probe: Probe, index: int) -> Tensor:
    """The MLP's activation product (T, F), with this step's statistics folded and its edits applied."""
    layer, routing = probe.layers[index], probe.routing
    product_TF = layer.stock(gate_up)
    counting = routing.counted_N.numel() > 0
    editing = routing.edited_E.numel() > 0 and layer.edits is not None
    if not (counting or editing):
        return product_TF
    gate_TF, up_TF = gate_up.chunk(2, dim=-1) if layer.gated else (gate_up, torch.ones_like(gate_up))
    activation_TF = layer.activation(gate_TF)
    if counting:
        fold(activation_TF, index, routing, probe.statistics)
    if editing and layer.edits is not None:
        edit(product_TF, activation_TF, up_TF, routing, layer.edits)
    return product_TF
