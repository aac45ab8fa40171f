"""Engines that take as long as a GPU would and leave the CPU free, and units of real models' shapes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from harvest.capture import Block, CaptureTask
from harvest.stats.rows import RequestRows
from harvest.store.commit import Store
from harvest.store.key import unit_name
from harvest.store.units import Labels, moments_unit, rows_unit
from harvest.types import Text

KINDS = {"moments": moments_unit, "rows": rows_unit}


@dataclass(frozen=True, slots=True)
class Model:
    """What the size of a unit depends on."""

    name: str
    num_layers: int
    num_neurons: int
    # of one layer

    @property
    def neurons(self) -> int:
        """Of all layers."""
        return self.num_layers * self.num_neurons


MODELS = {
    model.name: model
    for model in (Model("tiny", 2, 96), Model("8B", 32, 14336), Model("70B", 80, 28672), Model("405B", 126, 53248))
}


def random_rows(model: Model, num_questions: int, num_tokens: int = 300) -> RequestRows:
    """What an engine measures of so many answers of so many tokens; the same numbers every time."""
    rng = np.random.default_rng(0)
    mean_QLF = rng.standard_normal((num_questions, model.num_layers, model.num_neurons))
    positive_QLF = rng.integers(0, num_tokens, mean_QLF.shape, dtype=np.int32)
    low_QLF = mean_QLF.astype(np.float32) - 1
    return RequestRows(
        np.full(num_questions, num_tokens),
        mean_QLF,
        np.square(mean_QLF) * num_tokens,
        low_QLF,
        low_QLF + 2,
        positive_QLF,
        positive_QLF,
    )


def labels_of(model: Model, group: str, num_questions: int) -> Labels:
    names = tuple(f"q-{at:012x}" for at in range(num_questions))
    return Labels(group, names, ("",) * num_questions, tuple(range(model.num_layers)))


@dataclass(slots=True)
class PacedEngine:
    """Its forward is a sleep; it notes when each began and ended."""

    rows: RequestRows
    forward_s: float
    passes: list[tuple[float, float]] = field(default_factory=list)

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(range(self.rows.mean_QLF.shape[1]))

    @property
    def provenance(self) -> dict[str, object]:
        return {"forward_s": self.forward_s}

    def capture(self, texts: Sequence[Text]) -> RequestRows:
        del texts
        began = time.perf_counter()
        time.sleep(self.forward_s)
        self.passes.append((began, time.perf_counter()))
        return self.rows

    def idle(self) -> float:
        """The share of the time from the first forward to the end of the last in which no forward was due."""
        return 1 - len(self.passes) * self.forward_s / (self.passes[-1][1] - self.passes[0][0])


@dataclass(frozen=True, slots=True)
class Unkept:
    """A capture of which nothing is kept."""

    def wanted(self) -> bool:
        return True

    def measure(self, engine: PacedEngine, wanted: bool) -> RequestRows:
        del wanted
        return engine.capture(())

    def keep(self, rows: RequestRows) -> int:
        return len(rows.num_tokens_Q)


def capture_task(name: str, labels: Labels, kinds: tuple[str, ...], store: Store) -> CaptureTask | Unkept:
    """What commits these kinds of units of one block."""
    if not kinds:
        return Unkept()
    texts = tuple(Text((0,) * 600, 300, 600) for _ in labels.question_ids)
    units = {kind: unit_name(kind, {"name": name}) for kind in kinds}
    return CaptureTask(Block(labels.group, labels.question_ids, labels.description_ids, texts, units), kinds, store)
