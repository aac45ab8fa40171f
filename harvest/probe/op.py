"""The custom op: gate_up (or the gate alone) in, activation product out, statistics on the side.

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


def _activation(hidden: Tensor, probe: int, index: int) -> Tensor:
    return fold.activate(hidden, _PROBES[probe], index)


def _activation_shape(hidden: Tensor, probe: int, index: int) -> Tensor:
    halves = 2 if _PROBES[probe].layers[index].gated else 1
    return hidden.new_empty((*hidden.shape[:-1], hidden.shape[-1] // halves))


_LIBRARY = torch.library.Library("value_harvest", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("activation(Tensor hidden, int probe, int index) -> Tensor")  # type: ignore[no-untyped-call]
_LIBRARY.impl("activation", _activation, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake("value_harvest::activation", _activation_shape, lib=_LIBRARY)


class ProbeModule(nn.Module):
    """Stands where the MLP's activation stood; a type of its own, so that no fused shortcut goes around it."""

    def __init__(self, probe: int, index: int) -> None:
        super().__init__()
        self.probe = probe
        self.index = index

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.ops.value_harvest.activation(hidden, self.probe, self.index)
