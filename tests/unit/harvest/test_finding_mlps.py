"""Every MLP is found by its structure, and a layer that is not understood is refused by its name."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from harvest.engine.install import install
from harvest.engine.mlps import find_mlps
from harvest.errors import ModelError
from harvest.probe import op
from harvest.probe.build import ProbeOptions


class Column(nn.Module):
    """A rank's part of a linear that gives `width` numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.output_size_per_partition = width


class Row(nn.Module):
    """A rank's part of the linear that takes `width` numbers."""

    def __init__(self, width: int, *, rank: int = 0, ranks: int = 1, split: bool = False) -> None:
        super().__init__()
        self.input_size_per_partition = width
        self.output_size_per_partition = 8
        self.input_is_parallel = not split
        self.tp_rank, self.tp_size = rank, ranks


class SiluAndMul(nn.Module):
    def forward(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return nn.functional.silu(gate) * up


class MulAndSilu(nn.Module):
    pass


class PPMissingLayer(nn.Identity):
    pass


class Tree(nn.Module):
    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)


def gated(width: int = 6, **row: int) -> Tree:
    return Tree(gate_up_proj=Column(2 * width), act_fn=SiluAndMul(), down_proj=Row(width, **row))


def plain(width: int = 6) -> Tree:
    return Tree(c_fc=Column(width), act=nn.ReLU(), c_proj=Row(width))


def attention(**row: int) -> Tree:
    return Tree(qkv_proj=Column(12), o_proj=Row(6, **row))


def model(*layers: nn.Module, under: str = "layers") -> Tree:
    return Tree(model=Tree(**{under: nn.ModuleList(layers)}))


def layer(**children: nn.Module) -> Tree:
    return Tree(attn=attention(), **children)


def found(root: nn.Module, routed: str = "refuse") -> list[tuple[int, int, int]]:
    return [(mlp.layer, mlp.width, mlp.offset) for mlp in find_mlps(root, routed)]


def refusal(root: nn.Module, routed: str = "refuse") -> str:
    with pytest.raises(ModelError) as refused:
        find_mlps(root, routed)
    return str(refused.value)


@pytest.mark.parametrize("under", ["layers", "h", "blocks"])
def test_gated_and_plain_mlps_are_found_in_their_layers(under: str):
    assert found(model(layer(mlp=gated(4)), layer(mlp=plain(6)), under=under)) == [(0, 4, 0), (1, 6, 0)]


def test_an_mlp_whose_parts_lie_in_the_layer_itself_is_found():
    """As in OPT."""
    assert found(model(Tree(self_attn=attention(), fc1=Column(6), activation_fn=nn.ReLU(), fc2=Row(6)))) == [(0, 6, 0)]


def test_a_gate_of_its_own_is_plain_and_multiplied_outside():
    mlp = Tree(gate_proj=Column(6), up_proj=Column(6), act_fn=nn.SiLU(), down_proj=Row(6))
    assert found(model(layer(mlp=mlp))) == [(0, 6, 0)]


def test_a_rank_s_first_neuron_follows_its_number():
    root = model(Tree(attn=attention(rank=2, ranks=4), mlp=gated(5, rank=2, ranks=4)))
    assert found(root) == [(0, 5, 10)]


def test_layers_of_other_ranks_are_no_layers_of_this_one():
    assert found(model(PPMissingLayer(), layer(mlp=gated()))) == [(1, 6, 0)]


def routed(shared: Tree | None = None) -> Tree:
    """A layer with routed experts, whose runner keeps an alias of the shared ones."""
    experts = Tree(routed_experts=Tree(), _shared_experts=Tree(_layer=shared or Tree()))
    return layer(mlp=Tree(**({"shared_expert": shared} if shared else {}), experts=experts))


def test_routed_experts_are_refused_by_model_and_layer():
    message = refusal(model(layer(mlp=gated()), routed(gated())))
    assert re.match(r"Tree, layer 1 \(model\.layers\.1\.mlp\.experts\): .*; set model\.routed_experts: skip ", message)


def test_skipping_them_leaves_dense_layers_and_shared_experts():
    assert found(model(layer(mlp=gated(8)), routed(gated(4)), routed()), "skip") == [(0, 8, 0), (1, 4, 0)]


def test_shared_experts_that_only_the_runner_holds_are_found():
    """As in the Transformers backend."""
    experts = Tree(routed_experts=Tree(), _shared_experts=Tree(_layer=Tree(shared_experts=gated(4))))
    assert found(model(layer(mlp=Tree(experts=experts))), "skip") == [(0, 4, 0)]


def test_experts_that_are_mlps_of_their_own_are_left_alone():
    mlp = Tree(shared_expert=gated(4), experts=nn.ModuleList([gated(6), gated(6)]))
    assert found(model(layer(mlp=mlp)), "skip") == [(0, 4, 0)]


def test_a_shared_expert_that_is_not_understood_is_not_passed_over():
    strange = Tree(gate_up_proj=Column(8), act_fn=MulAndSilu(), down_proj=Row(4))
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.shared_expert\.act_fn.*MulAndSilu"):
        find_mlps(model(layer(mlp=gated()), routed(strange)), "skip")


def test_skipping_all_there_is_is_refused():
    assert refusal(model(routed(), routed()), "skip").startswith("Tree: no MLP outside of routed experts was found")


@pytest.mark.parametrize(
    ("mlp", "message"),
    [
        (
            Tree(gate_up_proj=Column(12), act_fn=MulAndSilu(), down_proj=Row(6)),
            r"model\.layers\.1\.mlp\.act_fn: the activation MulAndSilu is not known, .*known are .*SiluAndMul",
        ),
        (Tree(mixer=Tree()), r"model\.layers\.1: no MLP was found in this Tree"),
        (
            Tree(gate_up_proj=Column(6), act_fn=SiluAndMul(), down_proj=Row(6)),
            r"model\.layers\.1\.mlp\.act_fn: no linear beside it gives the 12 numbers it should take",
        ),
        (Tree(c_fc=Column(6), act=nn.ReLU(), c_proj=Row(6, split=True)), r"model\.layers\.1\.mlp\.act: no linear"),
        (Tree(a=nn.ReLU(), b=nn.ReLU(), c_fc=Column(6), c_proj=Row(6)), r"model\.layers\.1\.mlp: several activations"),
        (Tree(one=gated(), other=gated()), r"Tree, layer 1: it holds several MLPs \(.*mlp\.one, .*mlp\.other\)"),
    ],
)
def test_a_layer_that_is_not_understood_is_refused_by_name(mlp: nn.Module, message: str):
    assert re.match(message, refusal(model(layer(mlp=gated()), layer(mlp=mlp))))


def test_an_mlp_outside_the_layers_is_refused():
    assert refusal(Tree(model=Tree(layers=nn.ModuleList([layer(mlp=gated())]), head=gated()))).startswith("model.head.")


def test_neurons_that_every_rank_holds_are_refused():
    root = model(Tree(attn=attention(rank=1, ranks=2), mlp=gated()))
    assert refusal(root).endswith("set model.tensor_parallel: 1")


@pytest.mark.parametrize("batch", [(), (1,)])
def test_a_probe_gives_the_product_in_the_shape_it_was_asked_in(batch: tuple[int, ...]):
    """The Transformers backend asks with an axis more."""
    root = model(layer(mlp=gated(6)))
    gate_up = torch.randn(*batch, 5, 12)
    expected = SiluAndMul()(gate_up)
    _, number = install(root, ProbeOptions(num_slots=2), torch.float32, torch.device("cpu"))
    try:
        assert torch.equal(root.get_submodule("model.layers.0.mlp").act_fn(gate_up), expected)
    finally:
        op.forget(number)


def test_the_statistics_are_as_wide_as_the_widest_layer():
    root = model(layer(mlp=gated(4)), layer(mlp=plain(7)))
    probe, number = install(root, ProbeOptions(num_slots=3), torch.float32, torch.device("cpu"))
    op.forget(number)
    assert probe.statistics.mean_LSF.shape == (2, 3, 7)
    assert [(one.layer, one.width, one.gated) for one in probe.layers] == [(0, 4, True), (1, 7, False)]
