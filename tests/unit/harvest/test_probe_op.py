"""The op traces, its result is used, and probes do not mix."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from engine_cases import edit_row
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from harvest.probe import op
from harvest.probe.build import ProbeOptions, build_probe
from harvest.probe.edits import layer_table
from harvest.probe.router import Router, Stretch, Ticket
from harvest.probe.state import Probe, ProbedLayer

CPU = torch.device("cpu")
NEURONS = 6


def stock(gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def new_probe(layers: int = 1) -> Probe:
    probed = [ProbedLayer(number, NEURONS, 0, stock, F.silu) for number in range(layers)]
    return build_probe(probed, ProbeOptions(3), torch.float32, CPU)


class _Stock(nn.Module):
    def forward(self, gate_up: torch.Tensor) -> torch.Tensor:
        return stock(gate_up)


class Mlp(nn.Module):
    """A gated MLP as vLLM writes it: an activation module between two linear ones."""

    def __init__(self, act_fn: nn.Module) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.gate_up_proj = nn.Linear(4, 2 * NEURONS, bias=False)
        self.down_proj = nn.Linear(NEURONS, 4, bias=False)
        for linear in (self.gate_up_proj, self.down_proj):
            linear.weight = nn.Parameter(torch.randn(linear.weight.shape, generator=generator), requires_grad=False)
        self.act_fn = act_fn

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_up_proj(hidden)))


@pytest.fixture
def registered():
    numbers = []

    def register(probe: Probe) -> int:
        numbers.append(op.register(probe))
        return numbers[-1]

    yield register
    for number in numbers:
        op.forget(number)


def counting(slots: int = 3) -> Router:
    router = Router(slots)
    router.arrive("request", Ticket(key=7, count_start=0, count_stop=100))
    return router


def test_the_op_satisfies_torch_s_own_checks(registered):
    number = registered(new_probe())
    gate_up = torch.randn(5, 2 * NEURONS)
    torch.library.opcheck(torch.ops.value_harvest.activation.default, (gate_up, number, 0))


def test_a_trace_keeps_the_op_and_uses_its_result(registered):
    probed = op.ProbeModule(registered(new_probe()), 0)
    gate_up = torch.randn(5, 2 * NEURONS)
    traced = make_fx(lambda each: 2 * probed(each), tracing_mode="fake")(gate_up)
    traced.graph.eliminate_dead_code()
    target = torch.ops.value_harvest.activation.default
    (node,) = [node for node in traced.graph.nodes if node.target is target]
    assert node.users
    assert node.meta["val"].shape == (5, NEURONS)
    assert torch.equal(traced(gate_up), 2 * stock(gate_up))


def test_a_compiled_model_counts_and_answers_as_the_plain_one(registered):
    probe = new_probe()
    mlp = Mlp(op.ProbeModule(registered(probe), 0))
    compiled = torch.compile(mlp, backend="eager", fullgraph=True, dynamic=True)
    router = counting()
    for length, position in ((5, 0), (3, 5), (1, 8)):
        hidden = torch.randn(length, 4)
        probe.routing = router.route([Stretch("request", position, length)], CPU)
        assert torch.equal(compiled(hidden), Mlp(_Stock())(hidden))
    (journey,) = router.journeys([7])
    assert probe.statistics.count_LS[0, journey.slot] == probe.statistics.count_LS.sum() == 9


def test_a_probe_at_rest_changes_no_bit_and_counts_nothing(registered):
    probe = new_probe()
    mlp, hidden = Mlp(op.ProbeModule(registered(probe), 0)), torch.randn(9, 4)
    assert torch.equal(mlp(hidden), Mlp(_Stock())(hidden))
    assert probe.statistics.count_LS.sum() == 0
    assert probe.statistics.min_LSF.eq(torch.inf).all()


def test_two_probes_of_one_process_do_not_mix(registered):
    one, two = new_probe(2), new_probe(2)
    numbers = registered(one), registered(two)
    assert numbers[0] != numbers[1]
    gate_up = torch.randn(4, 2 * NEURONS)
    two.layers[1].edits = layer_table([edit_row([(1, 0)])], 1, 0, NEURONS, CPU)
    one.routing = counting().route([Stretch("request", 0, 4)], CPU)
    for number in numbers:
        assert torch.equal(op.ProbeModule(number, 1)(gate_up), stock(gate_up))
    assert one.statistics.count_LS.sum(dim=1).tolist() == [0, 4]
    assert two.statistics.count_LS.sum() == 0


def test_a_forgotten_probe_is_gone(registered):
    number = op.register(new_probe())
    op.forget(number)
    with pytest.raises(KeyError):
        op.ProbeModule(number, 0)(torch.randn(1, 2 * NEURONS))
    assert registered(new_probe()) != number, "a number is never given twice"
