"""The probe on a CUDA device: eager, compiled and under CUDA graphs it gives the same bytes, and plain torch's numbers.

Torch and Triton alone, no vLLM: `pytest tests/gpu` on a machine with a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device here", allow_module_level=True)
pytest.importorskip("triton", reason="Triton is not installed here; it comes with torch's CUDA builds")

from harvest.errors import EngineError
from harvest.probe import op
from harvest.probe.build import ProbeOptions, build_probe
from harvest.probe.collect import rows_of, settle
from harvest.probe.router import Router, Stretch, Ticket
from harvest.probe.state import Activation, Probe, ProbedLayer
from harvest.stats.rows import RequestRows

DEVICE = torch.device("cuda")
WIDTH, NEURONS, LAYERS = 64, 200, 3
TOKENS = 96
# of every step, padding included: a graph has one shape
REQUESTS, HOLDS = 4, 4
COUNTS = ("num_tokens_Q", "min_QLF", "max_QLF", "positive_QLF", "argmax_QLF")
MOMENTS = ("mean_QLF", "m2_QLF")
ACTIVATIONS: dict[str, Activation] = {"silu": F.silu, "gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh")}

STEPS: list[list[tuple[int, int]]] = [
    [(0, 40), (-1, 3), (1, 1), (2, 33)],
    [(0, 1), (1, 1), (2, 1), (3, 1)],
    *[[(3, 1), (-1, 5), (1, 1), (0, 1)]] * 7,
    [(-1, 70), (2, 9), (0, 2)],
    [(-1, 96)],
]
"""(request, tokens) in batch order; −1 is nobody's."""


class Mlps(nn.Module):
    """Gated MLPs in a row. A linear's row has one weight, a power of 2: no matrix product can round it otherwise."""

    def __init__(self, activations: list[nn.Module], dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.activations = nn.ModuleList(activations)
        self.weights = nn.ParameterList()
        for _ in activations:
            for rows, columns in ((2 * NEURONS, WIDTH), (WIDTH, NEURONS)):
                weight = torch.zeros(rows, columns)
                at = torch.randint(columns, (rows,), generator=generator)
                weight[torch.arange(rows), at] = torch.tensor([-1.0, 0.5, 1.0, -0.5])[torch.arange(rows) % 4]
                self.weights.append(nn.Parameter(weight.to(DEVICE, dtype), requires_grad=False))

    def forward(self, hidden: Tensor) -> Tensor:
        for number, activation in enumerate(self.activations):
            gate_up = F.linear(hidden, self.weights[2 * number])
            hidden = F.linear(activation(gate_up), self.weights[2 * number + 1])
        return hidden


class Stand:
    """A stack with a probe, and the router of its requests."""

    def __init__(self, fold: str, activation: Activation, dtype: torch.dtype, product: str = "stock") -> None:
        def stock(gate_up: Tensor) -> Tensor:
            gate, up = gate_up.chunk(2, dim=-1)
            return activation(gate) * up

        layers = [ProbedLayer(number, NEURONS, 0, stock, activation) for number in range(LAYERS)]
        options = ProbeOptions(REQUESTS + 1, HOLDS, fold, product)  # type: ignore[arg-type]
        self.probe: Probe = build_probe(layers, options, dtype, DEVICE)
        self.number = op.register(self.probe)
        self.model = Mlps([op.ProbeModule(self.number, index) for index in range(LAYERS)], dtype)
        self.router = Router(REQUESTS + 1, HOLDS)
        for request in range(REQUESTS):
            self.router.arrive(str(request), Ticket(request, 0, 1_000_000))
        self.positions = [0] * REQUESTS

    def step(self, stretches: list[tuple[int, int]], forward: Callable[[], Tensor]) -> Tensor:
        moved = []
        for request, length in stretches:
            moved.append(Stretch(str(request), self.positions[request] if request >= 0 else 0, length))
            if request >= 0:
                self.positions[request] += length
        self.probe.begin(self.router.route(moved, DEVICE))
        product = forward().clone()
        self.probe.rest()
        return product

    def rows(self) -> RequestRows:
        journeys = self.router.journeys(range(REQUESTS))
        settle(self.probe, journeys, self.positions)
        slots = torch.tensor([journey.slot for journey in journeys if journey], device=DEVICE)
        counts, rows = rows_of(self.probe.statistics, slots)
        assert counts.tolist() == [self.positions] * LAYERS
        return rows


@pytest.fixture
def stand() -> Iterator[Callable[..., Stand]]:
    made: list[Stand] = []

    def make(*args: object, **kwargs: object) -> Stand:
        made.append(Stand(*args, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        op.forget(each.number)


def inputs(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [(torch.randn(TOKENS, WIDTH, generator=generator) / 2).to(DEVICE, dtype) for _ in STEPS]


@torch.inference_mode()
def run_eager(stand: Stand, hidden: list[Tensor]) -> list[Tensor]:
    return [stand.step(step, partial(stand.model, x)) for step, x in zip(STEPS, hidden, strict=True)]


@torch.inference_mode()
def run_compiled(stand: Stand, hidden: list[Tensor]) -> list[Tensor]:
    compiled = torch.compile(stand.model, fullgraph=True)
    return [stand.step(step, partial(compiled, x)) for step, x in zip(STEPS, hidden, strict=True)]


@torch.inference_mode()
def run_graph(stand: Stand, hidden: list[Tensor]) -> list[Tensor]:
    """Captured once, at rest; then replayed for every step."""
    static = hidden[0].clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        stand.model(static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = stand.model(static)
    assert not stand.probe.statistics.count_LS.any()

    def replay(x: Tensor) -> Tensor:
        static.copy_(x)
        graph.replay()
        return result

    return [stand.step(step, partial(replay, x)) for step, x in zip(STEPS, hidden, strict=True)]


WAYS = {"eager": run_eager, "compiled": run_compiled, "graph": run_graph}


@pytest.mark.parametrize("product", ["stock", "fused"])
@pytest.mark.parametrize("way", ["compiled", "graph"])
def test_compiled_and_captured_give_the_bytes_of_eager(stand, way: str, product: str):
    dtype = torch.bfloat16
    eager, other = (stand("triton", F.silu, dtype, product) for _ in range(2))
    hidden = inputs(dtype)
    expected, found = run_eager(eager, hidden), WAYS[way](other, hidden)
    for one, two in zip(expected, found, strict=True):
        assert one.view(torch.int16).equal(two.view(torch.int16))
    rows, others = eager.rows(), other.rows()
    for name in (*COUNTS, *MOMENTS):
        assert getattr(rows, name).tobytes() == getattr(others, name).tobytes(), name


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_kernel_gives_the_plain_folds_numbers(stand, kind: str, dtype: torch.dtype):
    plain, kernel = (stand(fold, ACTIVATIONS[kind], dtype) for fold in ("torch", "triton"))
    hidden = inputs(dtype)
    for one, two in zip(run_eager(plain, hidden), run_eager(kernel, hidden), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)
    expected, found = plain.rows(), kernel.rows()
    for name in ("num_tokens_Q", "positive_QLF"):
        assert (getattr(expected, name) == getattr(found, name)).all(), name
    # the last bit of an activation may differ, as exp, tanh and erf do from one compiler to the next
    step = torch.finfo(dtype).eps
    for name in ("min_QLF", "max_QLF", "mean_QLF"):
        torch.testing.assert_close(
            torch.from_numpy(getattr(found, name)), torch.from_numpy(getattr(expected, name)), rtol=step, atol=step
        )
    m2, m2_expected = (torch.from_numpy(rows.m2_QLF) for rows in (found, expected))
    torch.testing.assert_close(m2, m2_expected, rtol=max(1e-5, 4 * step), atol=1e-9)
    differing = int((expected.argmax_QLF != found.argmax_QLF).sum())
    print(f"{kind}, {dtype}: the maximum's token differs in {differing} of {found.argmax_QLF.size}")


def test_the_same_stream_gives_the_same_bytes(stand):
    hidden = inputs(torch.bfloat16)
    stands = [stand("triton", F.silu, torch.bfloat16) for _ in range(2)]
    for each in stands:
        run_graph(each, hidden)
    first, second = (each.rows() for each in stands)
    for name in (*COUNTS, *MOMENTS):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name


def test_auto_is_triton_here(stand):
    assert stand("auto", F.silu, torch.bfloat16).probe.folder.name == "triton"


def test_edits_and_histograms_are_refused_once_a_graph_was_captured(stand):
    each = stand("triton", F.silu, torch.bfloat16)
    each.probe.refuse_if_captured("edits")
    run_graph(each, inputs(torch.bfloat16))
    with pytest.raises(EngineError, match="edits cannot be had under CUDA graphs"):
        each.probe.refuse_if_captured("edits")


def _milliseconds(run: Callable[[], object]) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        run()
    start.record()
    for _ in range(20):
        run()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) / 20


@pytest.mark.parametrize(("tokens", "requests"), [(4096, 16), (64, 64)], ids=["prefill", "decode"])
@torch.inference_mode()
def test_overhead_is_printed(tokens: int, requests: int):
    """A layer of an 8B model in bfloat16, over its own two matrix products; printed: timings belong to no test."""
    hidden_size, neurons, dtype = 4096, 14336, torch.bfloat16
    x = torch.randn(tokens, hidden_size, device=DEVICE, dtype=dtype)
    gate_up, down = (
        torch.randn(shape, device=DEVICE, dtype=dtype) / 64
        for shape in ((2 * neurons, hidden_size), (hidden_size, neurons))
    )

    def stock(values: Tensor) -> Tensor:
        return F.silu(values[:, :neurons]) * values[:, neurons:]

    def mlp(activation: Activation) -> Tensor:
        return F.linear(activation(F.linear(x, gate_up)), down)

    bare = _milliseconds(partial(mlp, stock))
    for fold, product in (("torch", "stock"), ("triton", "stock"), ("triton", "fused")):
        options = ProbeOptions(65, 16, fold, product)  # type: ignore[arg-type]
        probe = build_probe([ProbedLayer(0, neurons, 0, stock, F.silu)], options, dtype, DEVICE)
        number, router = op.register(probe), Router(65, 16)
        for request in range(requests):
            router.arrive(str(request), Ticket(request, 0, 1_000_000))
        share = tokens // requests
        probe.begin(router.route([Stretch(str(request), 0, share) for request in range(requests)], DEVICE))
        took = _milliseconds(partial(mlp, op.ProbeModule(number, 0)))
        op.forget(number)
        case = f"{tokens} tokens, {requests} requests, {fold}, {product}"
        print(f"{case}: {bare:.3f} → {took:.3f} ms (+{took / bare - 1:.1%})")


def test_a_fused_product_is_proven_or_refused(stand):
    """Whether this device's kernel has the bits of torch's silu is printed; a wrong one is never used."""
    for kind, activation in ACTIVATIONS.items():
        for dtype in (torch.bfloat16, torch.float16):
            try:
                stand("triton", activation, dtype, "fused")
            except EngineError as refused:
                assert "differs from the stock module's" in str(refused)  # noqa: PT017 either answer is right
                print(refused)
            else:
                print(f"{kind}, {dtype}: proven for every gate")
