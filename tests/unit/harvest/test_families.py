"""The activation of the gate is the one that the stock module applies; an unknown one is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from harvest.errors import ModelError
from harvest.models.families import gate_activation


class SiluAndMul:
    pass


class GeluAndMul:
    def __init__(self, approximate: str) -> None:
        self.approximate = approximate


class MulAndSilu:
    """The halves the other way round."""


GATE = torch.linspace(-4, 4, 101)


def test_each_known_type_has_its_own_function():
    assert torch.equal(gate_activation(SiluAndMul(), "layer 0")(GATE), F.silu(GATE))
    for approximate in ("tanh", "none"):
        found = gate_activation(GeluAndMul(approximate), "layer 0")(GATE)
        assert torch.equal(found, F.gelu(GATE, approximate=approximate))


@pytest.mark.parametrize("module", [MulAndSilu(), torch.nn.SiLU()])
def test_an_unknown_type_is_refused_with_the_known_ones(module: object):
    kind = type(module).__name__
    with pytest.raises(ModelError, match=f"^layer 3: the activation {kind} is not known.*GeluAndMul, SiluAndMul$"):
        gate_activation(module, "layer 3")
