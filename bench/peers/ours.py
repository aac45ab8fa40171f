"""value-harvest's engine: what a capture computes, without the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.lines import GENERATION, HISTOGRAM, ONLINE, PREFILL, REPLAY, ROWS, Bench, Line
from bench.peers.bare import options
from bench.workload import Workload, check_lengths, fold_groups, grouped
from harvest.engine.seat import open_engine
from harvest.stats.histogram import HistogramPlan, even_edges, histogram_plan
from harvest.stats.unit import fold_unit
from harvest.types import Completion, Request, Text

if TYPE_CHECKING:
    from harvest.engine.engine import Engine

_SHARE = 0.01
# of the neurons, in the histogram's plan; its 301 bins are those that were published


def open_bench(model: Path, workload: Workload) -> Bench:
    engine = open_engine(options(model, probe=True))
    plan, many = _histogram_plan(engine), workload.many
    passes: dict[Line, Callable[[], object]] = {}
    for groups in workload.group_numbers():
        units = grouped(workload.texts, groups)
        passes[Line(PREFILL, ROWS, groups, groups)] = partial(_capture, engine, units)
        passes[Line(PREFILL, HISTOGRAM, groups, groups)] = partial(_histogram, engine, units, plan)
    passes[Line(GENERATION, ONLINE, many)] = partial(_online, engine, workload, many)
    passes[Line(GENERATION, REPLAY, many)] = partial(_respond_and_replay, engine, workload, many)
    return Bench(passes, ("every row carries the place of its maximum: maxima cost nothing more and have no line",))


def _capture(engine: Engine, units: Sequence[Sequence[Text]]) -> None:
    for texts in units:
        fold_unit(engine.capture(texts))


def _histogram_plan(engine: Engine) -> HistogramPlan:
    """The plan over the first neurons of each layer."""
    places = [(layer, at) for layer, width in engine.widths.items() for at in range(max(1, int(_SHARE * width)))]
    return histogram_plan(even_edges(0, 2.99, 300), *np.array(places).T)


def _histogram(engine: Engine, units: Sequence[Sequence[Text]], plan: HistogramPlan) -> None:
    for texts in units:
        engine.histogram(texts, plan)


def _online(engine: Engine, workload: Workload, groups: int) -> None:
    """All groups in one call, as a capture sends them; the rows of each are folded by themselves."""
    completions, rows = engine.answer_and_capture(workload.prompts, workload.sampling, "response")
    check_lengths(completions, workload.sampling)
    fold_groups(rows, groups)


def _respond_and_replay(engine: Engine, workload: Workload, groups: int) -> None:
    """All prompts answered in one batch, then captured unit by unit, a unit a group."""
    completions = engine.answer([Request(prompt) for prompt in workload.prompts], workload.sampling)
    check_lengths(completions, workload.sampling)
    texts = [_text(*each) for each in zip(workload.prompts, completions, strict=True)]
    _capture(engine, grouped(texts, groups))


def _text(prompt: tuple[int, ...], completion: Completion) -> Text:
    # the last sampled token is never forwarded
    tokens = (*prompt, *completion.token_ids[:-1])
    return Text(tokens, len(prompt), len(tokens))
