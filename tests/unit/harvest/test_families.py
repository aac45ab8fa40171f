"""The activation of an MLP is the one that its module applies; an unknown one is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN, ClippedGELUActivation

from harvest.errors import ModelError
from harvest.models.families import is_known, kind_of


class SiluAndMul:
    pass


class GeluAndMul:
    def __init__(self, approximate: str) -> None:
        self.approximate = approximate


class FatreluAndMul:
    threshold = 0.5


class MulAndSilu:
    """The halves the other way round."""


GATE = torch.linspace(-4, 4, 101)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (SiluAndMul(), F.silu(GATE)),
        (GeluAndMul("tanh"), F.gelu(GATE, approximate="tanh")),
        (GeluAndMul("none"), F.gelu(GATE)),
        (FatreluAndMul(), torch.where(GATE > 0.5, GATE, 0.0)),
    ],
)
def test_a_gated_type_has_the_function_of_its_gate(module: object, expected: torch.Tensor):
    kind = kind_of(module, "layer 0")
    assert kind.gated
    assert torch.equal(kind.activation(module)(GATE), expected)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.ReLU(), F.relu(GATE)),
        (nn.SiLU(), F.silu(GATE)),
        (nn.GELU(approximate="tanh"), F.gelu(GATE, approximate="tanh")),
        (ACT2FN["gelu"], F.gelu(GATE)),
        (ACT2FN["relu2"], F.relu(GATE).square()),
    ],
)
def test_a_plain_type_is_its_own_function(module: nn.Module, expected: torch.Tensor):
    kind = kind_of(module, "layer 0")
    assert not kind.gated
    assert torch.equal(kind.activation(module)(GATE), expected)


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu"])
def test_what_the_transformers_backend_keeps_is_known(name: str):
    assert is_known(ACT2FN[name])


@pytest.mark.parametrize("module", [MulAndSilu(), ClippedGELUActivation(-1, 1), nn.Tanh()])
def test_an_unknown_type_is_refused_with_the_known_ones(module: object):
    kind = type(module).__name__
    assert not is_known(module)
    with pytest.raises(ModelError, match=f"^layer 3: the activation {kind} is not known.*AccurateGELU.*, SiluAndMul$"):
        kind_of(module, "layer 3")
