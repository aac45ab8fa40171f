"""Put a probe in place of the activation of every MLP of a loaded vLLM model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harvest.engine.mlps import Mlp, RoutedExperts, find_mlps
from harvest.models.families import kind_of
from harvest.probe import op
from harvest.probe.build import ProbeOptions, build_probe
from harvest.probe.state import Probe, ProbedLayer


class _Place(op.ProbeModule):
    """A probe that also takes the Transformers backend's (1, T, F); the tokens of a step are one row of a batch."""

    def forward(self, gate_up: Tensor) -> Tensor:
        product_TF = super().forward(gate_up.reshape(-1, gate_up.shape[-1]))
        return product_TF.reshape(*gate_up.shape[:-1], -1)


def install(
    model: nn.Module,
    options: ProbeOptions,
    dtype: torch.dtype,
    device: torch.device,
    routed_experts: RoutedExperts = "refuse",
) -> tuple[Probe, int]:
    """The probe of this rank, installed, and its number.

    Raises ModelError, as `find_mlps` does, before anything is replaced.
    """
    mlps = find_mlps(model, routed_experts)
    probe = build_probe([_probed(mlp) for mlp in mlps], options, dtype, device)
    number = op.register(probe)
    for index, mlp in enumerate(mlps):
        setattr(mlp.owner, mlp.attribute, _Place(number, index))
    return probe, number


def _probed(mlp: Mlp) -> ProbedLayer:
    stock = getattr(mlp.owner, mlp.attribute)
    kind = kind_of(stock, f"{mlp.name}.{mlp.attribute}")
    return ProbedLayer(mlp.layer, mlp.width, mlp.offset, stock, kind.activation(stock), kind.gated)
