"""value-harvest's engine: what a capture computes, without the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.lines import GENERATION, HISTOGRAM, ONLINE, PREFILL, REPLAY, ROWS, Bench, Line
from bench.peers.bare import options
from bench.workload import Workload, check_lengths, fold_groups, grouped
from harvest.engine.seat import open_engine
from harvest.stats.unit import fold_unit
from harvest.types import Completion, Request, Text

if TYPE_CHECKING:
    from harvest.engine.engine import Engine

SHARE = 0.01
# of the neurons, in the histogram's plan
_EDGES = np.linspace(0, 2.99, 300).astype(np.float32)
# 301 bins, as published


def open_bench(model: Path, workload: Workload) -> Bench:
    engine = open_engine(options(model, probe=True))
    passes: dict[Line, Callable[[], object]] = {}
    for groups in workload.group_numbers():
        passes[Line(PREFILL, ROWS, groups, groups)] = partial(_capture, engine, grouped(workload.texts, groups))
    many = workload.many
    plan, missing = _histogram_plan(engine)
    if not missing:
        units = grouped(workload.texts, many)
        passes[Line(PREFILL, HISTOGRAM, many, many)] = partial(_histogram, engine, units, plan)
    passes[Line(GENERATION, ONLINE, many, 1)] = partial(_online, engine, workload, 1, many)
    passes[Line(GENERATION, ONLINE, many, many)] = partial(_online, engine, workload, many, 1)
    passes[Line(GENERATION, REPLAY, many, 1)] = partial(_respond_and_replay, engine, workload, many)
    maxima = "every row carries the place of its maximum: maxima cost nothing more and have no line"
    return Bench(passes, (maxima, missing) if missing else (maxima,))


def _capture(engine: Engine, units: Sequence[Sequence[Text]]) -> None:
    for texts in units:
        fold_unit(engine.capture(texts))


def _histogram_plan(engine: Engine) -> tuple[Any, str]:
    """The plan over the first neurons of each layer, and why there is none, or ""."""
    if find_spec("harvest.stats.histogram") is None or not hasattr(engine, "histogram"):
        return None, "no histogram line: this version's engine has no histogram pass"
    histogram = import_module("harvest.stats.histogram")
    places = [(layer, at) for layer, width in engine.widths.items() for at in range(max(1, int(SHARE * width)))]
    return histogram.histogram_plan(_EDGES, *np.array(places, np.int32).T), ""


def _histogram(engine: Any, units: Sequence[Sequence[Text]], plan: Any) -> None:
    for texts in units:
        engine.histogram(texts, plan)


def _online(engine: Engine, workload: Workload, calls: int, groups: int) -> None:
    """One pass in so many calls; the rows of a call are those of so many groups, each folded on its own."""
    for prompts in grouped(workload.prompts, calls):
        completions, rows = engine.answer_and_capture(prompts, workload.sampling, "response")
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
    tokens = prompt + completion.token_ids[:-1]
    return Text(tokens, len(prompt), len(tokens))
