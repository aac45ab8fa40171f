"""vLLM's stock worker: the very requests that ours submits, in the same calls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.lines import BARE, GENERATION, PREFILL, Bench, Line
from bench.workload import MAX_MODEL_LEN, Workload, check_lengths, grouped
from harvest.engine.options import EngineOptions
from harvest.engine.seat import open_engine
from harvest.types import Request, Text

if TYPE_CHECKING:
    from harvest.engine.engine import Engine


def options(model: Path, probe: bool) -> EngineOptions:
    """Ours and the bare engine differ in the probe alone; a second pass over the same texts must do the same work."""
    return EngineOptions(model, "bfloat16", MAX_MODEL_LEN, probe=probe, extra={"enable_prefix_caching": False})


def open_bench(model: Path, workload: Workload) -> Bench:
    engine = open_engine(options(model, probe=False))
    passes = {
        Line(PREFILL, BARE, 1, groups): partial(_prefill, engine, grouped(workload.texts, groups))
        for groups in workload.group_numbers()
    }
    return Bench(passes | {Line(GENERATION, BARE): partial(_answer, engine, workload)})


def _prefill(engine: Engine, units: Sequence[Sequence[Text]]) -> None:
    from harvest.engine.inputs import replayed

    for texts in units:
        # the tickets that the requests carry mean nothing to the stock worker
        engine._generate(replayed(texts))


def _answer(engine: Engine, workload: Workload) -> None:
    completions = engine.answer([Request(prompt) for prompt in workload.prompts], workload.sampling)
    check_lengths(completions, workload.sampling)
