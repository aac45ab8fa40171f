"""A probe without an engine: steps go in, rows come out, by the router and every way of folding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from harvest.probe.build import ProbeOptions, build_probe
from harvest.probe.collect import rows_of, settle
from harvest.probe.fold import activate
from harvest.probe.native import compiler
from harvest.probe.router import Router, Stretch, Ticket
from harvest.probe.state import Activation, Probe, ProbedLayer
from harvest.stats.rows import RequestRows

CPU = torch.device("cpu")
STRANGER = -1
# the owner of tokens that nobody counts


def identity(gate_TF: torch.Tensor) -> torch.Tensor:
    return gate_TF.clone()


@dataclass(frozen=True)
class Way:
    """One way of folding."""

    fold: str
    dtype: torch.dtype
    holds: int

    def __str__(self) -> str:
        return f"{self.fold}-{str(self.dtype).removeprefix('torch.')}-holds{self.holds}"


WAYS = [
    Way(fold, dtype, holds)
    for fold in ("torch", "native")
    for dtype in (torch.float32, torch.bfloat16)
    for holds in (0, 3)
]


def skip_unless_possible(fold: str) -> None:
    if fold == "native" and compiler() is None:
        pytest.skip("g++ is not installed, which compiles the native fold")


@dataclass(frozen=True)
class Step:
    """One forward: its gates (T, F), and the requests that its tokens belong to, stretch by stretch."""

    gate: torch.Tensor
    stretches: Sequence[tuple[int, int]]
    # (request, length)


class Folding:
    """Two layers, of which the second is fed the first one's gates with the other sign; request r has the key r."""

    def __init__(self, way: Way, requests: int, neurons: int, activation: Activation = identity) -> None:
        skip_unless_possible(way.fold)
        self.way, self.requests = way, requests
        self.router = Router(requests + 1, way.holds)
        self.probe: Probe = build_probe(
            [ProbedLayer(number, neurons, 0, identity, activation, gated=False) for number in range(2)],
            ProbeOptions(requests + 1, way.holds, way.fold),  # type: ignore[arg-type]
            way.dtype,
            CPU,
        )
        for request in range(requests):
            self.router.arrive(str(request), Ticket(request, 0, 1_000_000))
        self.positions = [0] * requests

    def feed(self, step: Step) -> None:
        stretches = []
        for request, length in step.stretches:
            at = 0 if request == STRANGER else self.positions[request]
            stretches.append(Stretch(str(request), at, length))
            if request != STRANGER:
                self.positions[request] += length
        self.probe.begin(self.router.route(stretches, CPU))
        gate_TF = step.gate.to(self.way.dtype)
        activate(gate_TF, self.probe, 0)
        activate(-gate_TF, self.probe, 1)
        self.probe.rest()

    def collect(self, planned: Sequence[int] | None = None) -> tuple[np.ndarray, RequestRows]:
        """Counts (layer, request), and the rows; of all that was fed unless `planned` says less."""
        journeys = self.router.journeys(range(self.requests))
        settle(self.probe, journeys, self.positions if planned is None else planned)
        slots = torch.tensor([journey.slot for journey in journeys if journey])
        counts, rows = rows_of(self.probe.statistics, slots)
        return counts.numpy(), rows


def fold_all(way: Way, steps: Sequence[Step], requests: int, activation: Activation = identity) -> Folding:
    folding = Folding(way, requests, steps[0].gate.shape[1], activation)
    for step in steps:
        folding.feed(step)
    return folding
