"""An edit overwrites the named elements and no other bit."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_cases import edit_row
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.errors import SelectionError
from harvest.probe.build import ProbeOptions, build_probe
from harvest.probe.edits import check_rows, layer_table
from harvest.probe.fold import activate
from harvest.probe.state import IDENTITY, Edited, EditTable, Probe, ProbedLayer, Routing, Segment
from harvest.types import EditRow

CPU = torch.device("cpu")
NEURONS = 7
LAYERS = 3
ACTIVATIONS = {"silu": F.silu, "gelu_tanh": partial(F.gelu, approximate="tanh")}


def edit_routing(rows: list[int]) -> Routing:
    """Token t of the step is under edit row rows[t]."""
    at = [token for token, row in enumerate(rows) if row != IDENTITY]
    if not at:
        return Routing()
    return Routing(edited=Edited(torch.tensor(at), torch.tensor([rows[token] for token in at])))


def probe_of(activation, tables: list[EditTable | None], neurons: int = NEURONS, offset: int = 0) -> Probe:
    def stock(gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return activation(gate) * up

    layers = [
        ProbedLayer(number, neurons, offset, stock, activation, edits=table) for number, table in enumerate(tables)
    ]
    return build_probe(layers, ProbeOptions(2), torch.float32, CPU)


def slow_product(gate_up: torch.Tensor, activation, layer: int, rows: list[EditRow], tokens: list[int]) -> torch.Tensor:
    """The definition: token by token, edit by edit, in plain numbers."""
    gate, up = gate_up.chunk(2, dim=-1)
    g = activation(gate)
    product = g * up
    for token, number in enumerate(tokens):
        if number == IDENTITY:
            continue
        row = rows[number - 1]
        for i in np.flatnonzero(row.layer == layer):
            neuron = int(row.neuron[i])
            value = np.float32(g[token, neuron].float().item()) * row.scale[i] + row.shift[i]
            value = min(max(value, row.floor[i]), row.ceiling[i])
            product[token, neuron] = torch.tensor(float(value)).to(product.dtype) * up[token, neuron]
    return product


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view({2: torch.int16, 4: torch.int32}[tensor.element_size()])


@st.composite
def edit_rows(draw: st.DrawFn) -> list[EditRow]:
    places = st.lists(
        st.tuples(st.integers(0, LAYERS - 1), st.integers(0, NEURONS - 1)), unique=True, max_size=LAYERS * NEURONS
    )
    # coefficients that a multiplication and an addition keep exact enough for both sides to round alike
    scales, shifts = st.sampled_from([0.0, 0.5, 1.0, 2.0, -1.0]), st.sampled_from([0.0, 0.25, -0.5])
    bounds = st.sampled_from([(-np.inf, np.inf), (-np.inf, 0.0), (0.0, np.inf), (-0.125, 0.5)])
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        at = draw(places)
        if not at:
            rows.append(EditRow.identity())
            continue
        layer, neuron = np.array(at, np.int32).T
        picked = [(draw(scales), draw(shifts), *draw(bounds)) for _ in at]
        rows.append(EditRow(layer, neuron, *np.array(picked, np.float32).T))
    return rows


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(deadline=None, max_examples=60)
@given(rows=edit_rows(), data=st.data())
def test_only_the_named_elements_change_and_as_the_plain_loop_says(dtype: torch.dtype, kind: str, rows, data):
    tokens = data.draw(st.lists(st.integers(0, len(rows)), min_size=1, max_size=6))
    seed = data.draw(st.integers(0, 2**31))
    gate_up = torch.randn(len(tokens), 2 * NEURONS, generator=torch.Generator().manual_seed(seed)).to(dtype)
    gate_up[0, 0], gate_up[0, NEURONS] = torch.nan, -0.0
    tables = [layer_table(rows, layer, 0, NEURONS, CPU) for layer in range(LAYERS)]
    probe = probe_of(ACTIVATIONS[kind], tables)
    probe.routing = edit_routing(tokens)
    for layer in range(LAYERS):
        kept = gate_up.clone()
        product = activate(gate_up, probe, layer)
        assert torch.equal(bits(gate_up), bits(kept)), "the input was written to"
        stock = probe.layers[layer].stock(gate_up)
        named = torch.zeros_like(stock, dtype=torch.bool)
        for token, number in enumerate(tokens):
            if number != IDENTITY:
                at = rows[number - 1].layer == layer
                named[token, torch.from_numpy(rows[number - 1].neuron[at].astype(np.int64))] = True
        assert torch.equal(bits(product)[~named], bits(stock)[~named])
        expected = slow_product(gate_up, ACTIVATIONS[kind], layer, rows, tokens)
        torch.testing.assert_close(product[named], expected[named], rtol=0, atol=0, equal_nan=True)


def test_rows_with_different_numbers_of_edits_share_a_table():
    rows = [edit_row([(0, 6), (0, 0), (0, 3)]), edit_row([(0, 0)], scale=2.0), edit_row([(1, 0)])]
    table = layer_table(rows, 0, 0, NEURONS, CPU)
    assert table is not None
    assert table.real_RK.sum(dim=1).tolist() == [0, 3, 1, 0]
    for real, neurons in zip(table.real_RK, table.neuron_RK, strict=True):
        # a padded entry that met a real one would write the old value over the edit
        assert len(set(neurons.tolist())) == table.neuron_RK.shape[1]
        assert not set(neurons[real].tolist()) & set(neurons[~real].tolist())
        assert 0 <= int(neurons.min()) <= int(neurons.max()) < NEURONS


def test_a_layer_that_no_row_edits_has_no_table_and_runs_the_stock_module():
    rows = [edit_row([(1, 2)])]
    assert layer_table(rows, 0, 0, NEURONS, CPU) is None
    assert layer_table([], 1, 0, NEURONS, CPU) is None
    assert layer_table([EditRow.identity()], 1, 0, NEURONS, CPU) is None
    probe = probe_of(F.silu, [None])
    probe.routing = edit_routing([1, 1])
    gate_up = torch.randn(2, 2 * NEURONS)
    assert torch.equal(activate(gate_up, probe, 0), probe.layers[0].stock(gate_up))


def test_every_neuron_of_a_layer_may_be_edited_at_once():
    rows = [edit_row([(0, neuron) for neuron in range(NEURONS)])]
    probe = probe_of(F.silu, [layer_table(rows, 0, 0, NEURONS, CPU)])
    probe.routing = edit_routing([1, 0])
    product = activate(torch.randn(2, 2 * NEURONS), probe, 0)
    assert product[0].eq(0).all()
    assert product[1].ne(0).all()


@settings(deadline=None, max_examples=60)
@given(rows=edit_rows(), data=st.data())
def test_two_ranks_side_by_side_edit_what_one_rank_edits(rows, data):
    cut = data.draw(st.integers(1, NEURONS - 1))
    tokens = data.draw(st.lists(st.integers(0, len(rows)), min_size=1, max_size=5))
    gate, up = torch.randn(2, len(tokens), NEURONS, generator=torch.Generator().manual_seed(cut))

    def product(start: int, stop: int) -> torch.Tensor:
        probe = probe_of(F.silu, [layer_table(rows, 0, start, stop - start, CPU)], stop - start, start)
        probe.routing = edit_routing(tokens)
        return activate(torch.cat([gate[:, start:stop], up[:, start:stop]], dim=1), probe, 0)

    halves = torch.cat([product(0, cut), product(cut, NEURONS)], dim=1)
    assert torch.equal(bits(halves), bits(product(0, NEURONS)))


def test_statistics_see_the_activation_before_the_edit():
    rows = [edit_row([(0, 1)], scale=0.0, shift=9.0)]
    probe = probe_of(F.silu, [layer_table(rows, 0, 0, NEURONS, CPU)])
    probe.routing = edit_routing([1])
    probe.routing.segments = [Segment(0, 1, 1, 0, 0)]
    gate_up = torch.randn(1, 2 * NEURONS)
    activate(gate_up, probe, 0)
    assert torch.equal(probe.statistics.mean_LSF[0, 1], F.silu(gate_up[0, :NEURONS]).double())


@pytest.mark.parametrize("place", [(-1, 0), (LAYERS, 0), (0, -1), (0, NEURONS)])
def test_an_edit_outside_the_model_is_refused_by_name(place: tuple[int, int]):
    with pytest.raises(SelectionError, match=rf"edit row 1: layer {place[0]}, neuron {place[1]} is not in this model"):
        check_rows([edit_row([(0, 0)]), edit_row([(1, 1), place])], dict.fromkeys(range(LAYERS), NEURONS))


def test_a_neuron_edited_twice_is_refused_and_once_in_each_of_two_layers_is_not():
    check_rows([edit_row([(0, 1), (1, 1)]), EditRow.identity()], dict.fromkeys(range(LAYERS), NEURONS))
    with pytest.raises(SelectionError, match="edit row 0: layer 2, neuron 6 is edited twice"):
        check_rows([edit_row([(2, 6), (0, 0), (2, 6)])], dict.fromkeys(range(LAYERS), NEURONS))
