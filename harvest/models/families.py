"""Which activation an MLP has, by the type of the module that computes it. One table; what is not in it is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from harvest.errors import ModelError


def _gelu_of(module: Any) -> Callable[[Tensor], Tensor]:
    return partial(F.gelu, approximate=module.approximate)


GATED_ACTIVATIONS: dict[str, Callable[[Any], Callable[[Tensor], Tensor]]] = {
    # SwiGLU: Llama, Mistral, Qwen2, Qwen3, Granite, Phi-3, OLMo-2
    "SiluAndMul": lambda module: F.silu,  # noqa: ARG005
    # GeGLU: Gemma2 and Gemma3 (tanh), others (none)
    "GeluAndMul": _gelu_of,
}


def gate_activation(module: Any, where: str) -> Callable[[Tensor], Tensor]:
    """The activation function of the gate half, exactly as the module applies it.

    Raises ModelError for a type that is not in the table.
    """
    kind = type(module).__name__
    if kind not in GATED_ACTIVATIONS:
        known = ", ".join(sorted(GATED_ACTIVATIONS))
        raise ModelError(
            f"{where}: the activation {kind} is not known, so its neurons are not either; known are {known}"
        )
    return GATED_ACTIVATIONS[kind](module)
