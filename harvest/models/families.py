"""Which activation an MLP has, by the type of the module that computes it. One table; what is not in it is refused.

Gated: the module takes [gate | up] and gives act(gate) * up. Plain: it takes the gate alone and gives act(gate).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from harvest.errors import ModelError

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a type of activation module is read."""

    gated: bool
    activation: Callable[[Any], Function]
    # the module -> gate (T, F) to activation (T, F), exactly as the module applies it


def _silu(module: Any) -> Function:  # noqa: ARG001
    return F.silu


_GELUS = {approximate: partial(F.gelu, approximate=approximate) for approximate in ("none", "tanh")}
# one function for all layers: what is made once for each function is shared


def _gelu(module: Any) -> Function:
    return _GELUS[module.approximate]


def _threshold(module: Any) -> Function:
    return partial(F.threshold, threshold=module.threshold, value=0.0)


def _itself(module: Any) -> Function:
    return module


_PLAIN = (
    # torch
    *("ReLU", "SiLU", "GELU"),
    # vLLM; GELU and GELUTanh have a namesake of the same function in torch and in transformers
    *("NewGELU", "FastGELU", "QuickGELU", "GELUTanh", "ReLUSquaredActivation"),
    # transformers, whose modules vLLM's Transformers backend keeps
    *("NewGELUActivation", "GELUActivation", "FastGELUActivation", "QuickGELUActivation"),
    *("AccurateGELUActivation", "SiLUActivation"),
)

KINDS: dict[str, Kind] = {
    "SiluAndMul": Kind(True, _silu),
    "GeluAndMul": Kind(True, _gelu),
    "FatreluAndMul": Kind(True, _threshold),
    **{name: Kind(False, _itself) for name in _PLAIN},
}


def is_known(module: object) -> bool:
    return type(module).__name__ in KINDS


def unknown(module: object, where: str) -> ModelError:
    """The refusal of an activation that is not in the table; it starts with `where`."""
    known = ", ".join(sorted(KINDS))
    return ModelError(
        f"{where}: the activation {type(module).__name__} is not known, so its neurons are not either; "
        f"known are {known}"
    )


def kind_of(module: object, where: str) -> Kind:
    """How the module's activation is read.

    Raises ModelError, which starts with `where`, for a type that is not in the table.
    """
    if not is_known(module):
        raise unknown(module, where)
    return KINDS[type(module).__name__]
