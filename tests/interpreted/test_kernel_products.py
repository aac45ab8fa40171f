"""The kernel's activations against torch's for every 16-bit gate, and its fused product against the stock module's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from folding import CPU

from harvest.errors import EngineError
from harvest.probe.build import ProbeOptions, build_probe
from harvest.probe.fold import activate
from harvest.probe.state import Activation, DeviceSegments, Probe, ProbedLayer, Routing, Segment

triton = pytest.importorskip("triton", reason="Triton is not installed beside vLLM; `make test-triton` runs this")

from harvest.probe import triton_fold  # noqa: E402 needs Triton

ACTIVATIONS = {"silu": F.silu, "gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh")}
NEURONS = 131
# more than a block of neurons, and no multiple of anything
STATISTICS = ("count_LS", "mean_LSF", "m2_LSF", "min_LSF", "max_LSF", "positive_LSF", "peak_LSF", "held_LSHF")


def silu(gate: torch.Tensor) -> torch.Tensor:
    """The activation as the interpreter computes it, which has NumPy's exp; rounded as a stock module rounds."""
    with np.errstate(all="ignore"):
        return (gate.float() / (1 + torch.from_numpy(np.exp(-gate.float().numpy())))).to(gate.dtype)


def stock(gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return silu(gate) * up


def wrong_in_one_gate(gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.where(gate == 1.5, 2 * silu(gate), silu(gate)) * up


def probe_of(product: str, module: Activation = stock, width: int = NEURONS, dtype=torch.float16) -> Probe:
    layers = [ProbedLayer(0, width, 0, module, F.silu)]
    return build_probe(layers, ProbeOptions(4, 2, "triton", product), dtype, CPU)  # type: ignore[arg-type]


def bytes_of(probe: Probe) -> list[bytes]:
    return [getattr(probe.statistics, name).view(torch.uint8).numpy().tobytes() for name in STATISTICS]


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_gate_has_the_stock_activation_but_for_its_last_bit(kind: str, dtype: torch.dtype):
    """On where torch's is on, and its value or the next one of the dtype; exp, tanh and erf differ from library to
    library."""
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    gate = bits.view(dtype).reshape(256, 256)
    found, expected = torch.empty_like(gate), ACTIVATIONS[kind](gate)
    hidden = torch.cat([gate, torch.ones_like(gate)], dim=1)
    assert triton_fold.kind_of(ACTIVATIONS[kind]) == kind
    state = [None, torch.empty(1, 256), *[None] * 6]
    triton_fold._launch(hidden, 256, DeviceSegments.allocate(8, CPU), state, 0, kind, found)
    # the interpreter rounds bfloat16's subnormal numbers wrongly, and some others to the neighbour
    compared = (gate.abs() > 4 * torch.finfo(dtype).tiny) & gate.isfinite() | (gate == 0)
    np.testing.assert_array_equal((found > 0)[compared], (expected > 0)[compared])
    assert found[gate.isnan()].isnan().all()
    steps = (found.view(torch.int16).int() - expected.view(torch.int16).int()).abs()[compared]
    # where gelu is next to 0 it is the difference of two fp32 numbers next to 1
    apart = (found.float() - expected.float()).abs()[compared]
    assert ((steps <= 1) | (apart <= gate.float().abs()[compared] * 4 * torch.finfo(torch.float32).eps)).all()
    print(f"{kind}, {dtype}: {int((steps > 0).sum())} of {int(compared.sum())} gates differ")


def test_an_unknown_activation_is_computed_by_torch():
    assert triton_fold.kind_of(torch.relu) == "given"
    layers = [ProbedLayer(0, NEURONS, 0, stock, torch.relu)]
    gate_up = torch.randn(40, 2 * NEURONS, generator=torch.Generator().manual_seed(0))
    found, expected = (
        build_probe(layers, ProbeOptions(2, 0, fold), torch.float32, CPU) for fold in ("triton", "torch")
    )
    for probe in (found, expected):
        probe.begin(Routing([Segment(0, 40, 1, 0, 0)]))
        activate(gate_up, probe, 0)
    for name in ("count_LS", "positive_LSF", "min_LSF", "max_LSF", "peak_LSF"):
        assert getattr(found.statistics, name).equal(getattr(expected.statistics, name)), name
    torch.testing.assert_close(found.statistics.mean_LSF, expected.statistics.mean_LSF, rtol=1e-6, atol=1e-8)


STEPS: dict[str, Sequence[Segment]] = {
    "at rest": [],
    "all counted": [Segment(0, 70, 1, 0, 0)],
    "gaps before, between and after": [Segment(3, 34, 2, 0, 0), Segment(37, 1, 1, 0, 0), Segment(60, 2, 3, 0, 5)],
    "single tokens, held back and full": [Segment(0, 1, 3, 2, 4), Segment(40, 1, 1, 1, 1), Segment(69, 1, 2, 0, 0)],
}


@pytest.fixture(scope="module")
def fused() -> Probe:
    """Proven when it is built: 65,536 gates take seconds here."""
    return probe_of("fused")


@pytest.mark.parametrize("step", STEPS)
def test_a_fused_product_is_every_tokens_stock_product_and_changes_no_statistic(fused: Probe, step: str):
    gate_up = torch.randn(70, 2 * NEURONS, generator=torch.Generator().manual_seed(1)).half()
    separate = probe_of("stock")
    products = []
    for probe in (fused, separate):
        probe.statistics.clear(torch.arange(4))
        probe.statistics.held_LSHF.fill_(0.5)
        probe.begin(Routing(list(STEPS[step])))
        products.append(activate(gate_up, probe, 0))
        probe.rest()
    assert products[0].view(torch.int16).equal(products[1].view(torch.int16))
    assert bytes_of(fused) == bytes_of(separate)
    assert separate.statistics.count_LS.sum() == sum(segment.length for segment in STEPS[step])


def test_a_fused_product_that_is_not_the_stock_one_is_refused():
    with pytest.raises(
        EngineError, match=r"layer 0: .* differs .* for 1 of 65536 gates, as 1\.5; set `product: stock`"
    ):
        probe_of("fused", wrong_in_one_gate)


def test_a_fused_product_that_cannot_be_proven_is_refused():
    with pytest.raises(EngineError, match=r"layer 0: .* 16-bit models only"):
        probe_of("fused", dtype=torch.float32)


def test_a_probe_at_rest_counts_nothing():
    """Warm-up and graph capture, after a real step."""
    gate_up = torch.randn(9, 2 * NEURONS, generator=torch.Generator().manual_seed(2)).half()
    probe = probe_of("stock")
    probe.begin(Routing([Segment(0, 9, 1, 0, 0)]))
    activate(gate_up, probe, 0)
    probe.rest()
    before = bytes_of(probe)
    activate(gate_up + 1, probe, 0)
    assert bytes_of(probe) == before
