"""The custom op: gate_up in, activation product out, statistics on the side.

It is opaque to the compiler, and its result is used, so it is never eliminated. The probe is found by a number,
since an op takes no objects.
"""

from __future__ import annotations

from itertools import count

import torch
from torch import Tensor, nn

from harvest.probe import fold
from harvest.probe.state import Probe

_PROBES: dict[int, Probe] = {}
_NUMBERS = count()


def register(probe: Probe) -> int:
    """A number under which the op finds this probe."""
    number = next(_NUMBERS)
    _PROBES[number] = probe
    return number


def forget(number: int) -> None:
    del _PROBES[number]


def _gated_activation(gate_up: Tensor, probe: int, index: int) -> Tensor:
    return fold.gated_activation(gate_up, _PROBES[probe], index)


def _gated_activation_shape(gate_up: Tensor, probe: int, index: int) -> Tensor:
    halves = 2 if _PROBES[probe].layers[index].gated else 1
    return gate_up.new_empty((*gate_up.shape[:-1], gate_up.shape[-1] // halves))


_LIBRARY = torch.library.Library("value_harvest", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("gated_activation(Tensor gate_up, int probe, int index) -> Tensor")  # type: ignore[no-untyped-call]
_LIBRARY.impl("gated_activation", _gated_activation, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake("value_harvest::gated_activation", _gated_activation_shape, lib=_LIBRARY)


class ProbeModule(nn.Module):
    """Stands where the MLP's activation stood; a type of its own, so that no fused shortcut goes around it."""

    def __init__(self, probe: int, index: int) -> None:
        super().__init__()
        self.probe = probe
        self.index = index

    def forward(self, gate_up: Tensor) -> Tensor:
        return torch.ops.value_harvest.gated_activation(gate_up, self.probe, self.index)
