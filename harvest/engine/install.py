"""Find every gated MLP of a loaded vLLM model and put a probe in place of its activation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harvest.errors import ModelError
from harvest.models.families import gate_activation
from harvest.probe import op
from harvest.probe.build import ProbeOptions, build_probe
from harvest.probe.state import Probe, ProbedLayer

_LAYER_NUMBER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class _Mlp:
    layer: int
    module: nn.Module
    width: int
    # this rank's neurons
    offset: int
    # this rank's first neuron


def _gated_mlps(model: nn.Module) -> list[_Mlp]:
    found = []
    for name, module in model.named_modules():
        if "experts" in name.split("."):
            raise ModelError(f"{name}: routed experts compute their activation inside fused kernels; use a dense model")
        if not all(hasattr(module, part) for part in ("gate_up_proj", "act_fn", "down_proj")):
            continue
        number = _LAYER_NUMBER.search(f"{name}.")
        if number is None:
            raise ModelError(f"{name}: a gated MLP outside the model's numbered layers; this model is not supported")
        down: Any = module.down_proj
        width = int(down.input_size_per_partition)
        found.append(_Mlp(int(number.group(1)), module, width, int(down.tp_rank) * width))
    return sorted(found, key=lambda mlp: mlp.layer)


def install(model: nn.Module, options: ProbeOptions, dtype: torch.dtype, device: torch.device) -> tuple[Probe, int]:
    """The probe of this rank, installed, and its number.

    Raises ModelError if the model has no gated MLP, several in one layer, or MLPs of different widths.
    """
    mlps = _gated_mlps(model)
    if not mlps:
        raise ModelError(
            f"{type(model).__name__}: no gated MLP found; only models with gate and up projections are supported"
        )
    layers = [mlp.layer for mlp in mlps]
    shapes = {(mlp.width, mlp.offset) for mlp in mlps}
    if len(set(layers)) != len(layers) or len(shapes) != 1:
        raise ModelError(
            f"{type(model).__name__}: its layers do not hold one gated MLP of one width each; it is not supported"
        )
    probe = build_probe([_probed(mlp) for mlp in mlps], options, dtype, device)
    number = op.register(probe)
    for index, mlp in enumerate(mlps):
        mlp.module.act_fn = op.ProbeModule(number, index)
    return probe, number


def _probed(mlp: _Mlp) -> ProbedLayer:
    stock: Any = mlp.module.act_fn
    return ProbedLayer(mlp.layer, mlp.width, mlp.offset, stock, gate_activation(stock, f"layer {mlp.layer}"))
