"""A probe from its layers: memory sized, and the fold chosen."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch

from harvest.errors import EngineError
from harvest.probe.fold import TorchFolder
from harvest.probe.native import NativeFolder, compiler
from harvest.probe.state import Folder, Probe, ProbedLayer, SlotStatistics

FoldName = Literal["auto", "native", "torch", "triton"]
ProductName = Literal["stock", "fused"]


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """How much a probe remembers, and how it folds; travels to the workers as plain values."""

    num_slots: int
    # the sink, and one for each request that is counted at once
    holds: int = 0
    # single tokens that a slot holds back before they are folded together; 0: none
    fold: FoldName = "auto"
    # auto: what is compiled for the device where that is possible, plain torch elsewhere
    product: ProductName = "stock"
    # fused: the fold's own kernel computes act(gate) * up too, once it is proven to give the stock module's bits


def build_probe(layers: list[ProbedLayer], options: ProbeOptions, dtype: torch.dtype, device: torch.device) -> Probe:
    """The probe of these layers, at rest; the layers' activations are in `dtype`.

    Raises EngineError if the fold asked for cannot be had here.
    """
    width = max(layer.width for layer in layers)
    statistics = SlotStatistics.allocate(len(layers), options.num_slots, width, device, options.holds, dtype)
    return Probe(layers, statistics, _folder(layers, statistics, options, device))


def _folder(
    layers: list[ProbedLayer], statistics: SlotStatistics, options: ProbeOptions, device: torch.device
) -> Folder:
    name = _fastest(device) if options.fold == "auto" else options.fold
    fused = options.product == "fused"
    if name == "triton":
        if find_spec("triton") is None:
            where = "" if device.type == "cuda" else f", and this engine runs on {device.type}, where it cannot help"
            raise EngineError(
                f"cluster.fold: triton is asked for, and Triton is not installed{where}; set cluster.fold: auto"
            )
        from harvest.probe.triton_fold import TritonFolder

        return TritonFolder(layers, statistics, fused)
    if fused:
        raise EngineError(f"product: fused is computed by the fold triton, not by {name}; set `product: stock`")
    if name == "torch":
        return TorchFolder()
    if device.type != "cpu":
        raise EngineError(f"cluster.fold: native runs on a CPU only, not on {device.type}; set cluster.fold: auto")
    return NativeFolder(layers, statistics)


def _fastest(device: torch.device) -> FoldName:
    if device.type == "cpu":
        return "native" if compiler() else "torch"
    return "triton" if device.type == "cuda" and find_spec("triton") else "torch"
