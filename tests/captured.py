"""What an engine measures, made from plain arrays of activations, and an engine that makes it up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stored import Question

from harvest.engine.options import EngineOptions
from harvest.stats.histogram import HistogramPlan
from harvest.stats.rows import RequestRows
from harvest.types import Text


def rows_of(questions: Sequence[Question]) -> RequestRows:
    """What the probe leaves of each question (tokens, layer, neuron): NaN where there is no token."""
    shape = questions[0].shape[1:]

    def each(of: Callable[[Question], Any], dtype: type, empty: float = np.nan) -> NDArray[Any]:
        return np.stack([of(one).astype(dtype) if len(one) else np.full(shape, empty, dtype) for one in questions])

    return RequestRows(
        num_tokens_Q=np.array([len(one) for one in questions], np.int64),
        mean_QLF=each(lambda x: x.mean(axis=0), np.float64),
        m2_QLF=each(lambda x: np.square(x - x.mean(axis=0)).sum(axis=0), np.float64),
        min_QLF=each(lambda x: x.min(axis=0), np.float32),
        max_QLF=each(lambda x: x.max(axis=0), np.float32),
        positive_QLF=each(lambda x: (x > 0).sum(axis=0), np.int32, 0),
        argmax_QLF=each(lambda x: x.argmax(axis=0), np.int32, -1),
    )


def narrowed(rows: RequestRows, widths: Sequence[int]) -> RequestRows:
    """The rows of a model whose layer i has only widths[i] neurons."""
    gone_LF = np.arange(rows.mean_QLF.shape[2]) >= np.array(widths)[:, None]
    floats = [np.where(gone_LF, np.nan, getattr(rows, name)) for name in ("mean_QLF", "m2_QLF", "min_QLF", "max_QLF")]
    positive_QLF, argmax_QLF = np.where(gone_LF, 0, rows.positive_QLF), np.where(gone_LF, -1, rows.argmax_QLF)
    return RequestRows(rows.num_tokens_Q, *floats, positive_QLF, argmax_QLF)


def run_task(task: Any, engine: Any) -> int:
    """All steps of a task, as an engine's seat takes them."""
    wanted = task.wanted()
    return task.keep(task.measure(engine, wanted)) if wanted else 0


@dataclass
class MadeUpEngine:
    """An engine whose statistics are made up: what is tested is what becomes of them."""

    shape: tuple[int, int] = (2, 3)
    layers: tuple[int, ...] = (0, 1)
    options: EngineOptions = field(default_factory=lambda: EngineOptions(Path("m")))
    tokens: int | None = None
    # counted in each text, whatever was planned
    lost: int = 0
    # tokens that are in no bin
    passes: list[str] = field(default_factory=list)

    @property
    def provenance(self) -> dict[str, object]:
        return self.options.provenance()

    def capture(self, texts: Sequence[Text]) -> RequestRows:
        self.passes.append("rows")
        tokens = np.array([self.tokens or text.planned for text in texts], np.int64)
        shape = (len(texts), *self.shape)
        mean = np.where(tokens > 0, 1.5, np.nan)[:, None, None] * np.ones(shape)
        top = np.where(tokens > 0, tokens - 1, -1)[:, None, None] * np.ones(shape, np.int32)
        single = mean.astype(np.float32)
        positive = np.ones(shape, np.int64)
        return RequestRows(tokens, mean, mean * 0, single, single, positive, top)

    def histogram(self, texts: Sequence[Text], plan: HistogramPlan) -> NDArray[np.int64]:
        self.passes.append("histogram")
        counts = np.zeros((len(plan.layer), plan.num_bins), np.int64)
        counts[:, 1] = sum(text.planned for text in texts) - self.lost
        return counts
