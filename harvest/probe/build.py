"""A probe from its layers: memory sized, and the fold chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from harvest.errors import EngineError
from harvest.probe.fold import TorchFolder
from harvest.probe.native import NativeFolder, compiler
from harvest.probe.state import Folder, Probe, ProbedLayer, SlotStatistics

FoldName = Literal["auto", "native", "torch"]


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """How much a probe remembers, and how it folds; travels to the workers as plain values."""

    num_slots: int
    # the sink, and one for each request that is counted at once
    holds: int = 0
    # single tokens that a slot holds back before they are folded together; 0: none
    fold: FoldName = "auto"
    # auto: compiled for this processor where that is possible, plain torch elsewhere


def build_probe(layers: list[ProbedLayer], options: ProbeOptions, dtype: torch.dtype, device: torch.device) -> Probe:
    """The probe of these layers, at rest; the layers' activations are in `dtype`.

    Raises EngineError if the fold asked for cannot be had here.
    """
    width = max(layer.width for layer in layers)
    statistics = SlotStatistics.allocate(len(layers), options.num_slots, width, device, options.holds, dtype)
    return Probe(layers, statistics, _folder(layers, statistics, options.fold, device))


def _folder(layers: list[ProbedLayer], statistics: SlotStatistics, name: FoldName, device: torch.device) -> Folder:
    if name == "auto":
        name = "native" if device.type == "cpu" and compiler() else "torch"
    if name == "torch":
        return TorchFolder()
    if device.type != "cpu":
        raise EngineError(f"fold: native runs on a CPU only, not on {device.type}; set `fold: auto`")
    return NativeFolder(layers, statistics)
