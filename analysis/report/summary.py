"""The numbers of the headline table, as `summary.json` has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from typing import Any

from analysis.effects import SetEffect, Shift
from analysis.neurons.neuron_set import NeuronSet
from analysis.neurons.overlap import Pair, precision_recall


@dataclass(frozen=True, slots=True)
class BenchmarkFacts:
    """One benchmark of the run."""

    name: str
    # "<name>.<language>"
    source: str
    # the file, as the study names it
    num_questions: int


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What was run, for the top of the report."""

    title: str
    model: str
    # the checkpoint's path
    fingerprint: str
    benchmarks: tuple[BenchmarkFacts, ...]
    num_items: int
    # answered and captured, over all groups
    num_tokens: int
    # counted
    num_answers: int
    # in the ablation, over all conditions
    split: bool
    # identified on one half of the questions, judged on the other
    prompt: str
    # of the ablation: "role" or "neutral"
    phase: str
    # the tokens an edit touches
    versions: Mapping[str, str]


def summarise(
    facts: RunFacts,
    sets: Sequence[NeuronSet],
    effects: Sequence[SetEffect],
    planted: Mapping[str, AbstractSet[Pair]] | None,
) -> dict[str, Any]:
    """`{"run": …, "headline": [one entry per set and operation]}`, ready for JSON; a missing number is null.

    `planted` is the truth by group where it is known, else None. A set that was not ablated has null effects.
    """
    by_set: dict[str, list[SetEffect | None]] = {}
    for effect in effects:
        by_set.setdefault(effect.set_id, []).append(effect)
    gaps = _largest_gaps(sets)
    headline = [
        {**_found(one, planted), **_effect(tried), "largest_rate_gap": gaps.get(one.set_id)}
        for one in sets
        if one.control_draw < 0
        for tried in by_set.get(one.set_id, [None])
    ]
    return {"run": asdict(facts), "headline": headline}


def _found(one: NeuronSet, planted: Mapping[str, AbstractSet[Pair]] | None) -> dict[str, Any]:
    truth = planted.get(one.group) if planted is not None else None
    precision, recall = precision_recall(one.pairs, truth) if truth is not None else (math.nan, math.nan)
    return {
        "set_id": one.set_id,
        "group": one.group,
        "method": one.method,
        "k": len(one),
        "smallest_delta": _number(float(one.delta.min())),
        "planted": len(truth) if truth is not None else None,
        "hits": len(one.pairs & truth) if truth is not None else None,
        "precision": _number(precision),
        "recall": _number(recall),
    }


def _effect(effect: SetEffect | None) -> dict[str, Any]:
    if effect is None:
        names = ("operation", "baseline_support", "support_after", "shift", "interval", "num_items", "largest_control")
        return {**dict.fromkeys(names), "num_items_left_out": None, "controls": [], "unscored": None}
    cut = effect.cut
    return {
        "operation": effect.operation,
        "baseline_support": _number(cut.baseline),
        "support_after": _number(cut.score),
        "shift": _number(cut.shift),
        "interval": _interval(cut),
        "num_items": cut.num_items,
        "num_items_left_out": cut.num_items_left_out,
        "controls": [_control(one) for one in effect.controls],
        "largest_control": _number(effect.largest_control),
        "unscored": {
            "baseline": effect.num_unscored_baseline,
            "cut": cut.num_unscored,
            "controls": sum(one.num_unscored for one in effect.controls),
            "answers": cut.num_answers,
        },
    }


def _control(one: Shift) -> dict[str, Any]:
    return {
        "control_draw": one.control_draw,
        "shift": _number(one.shift),
        "interval": _interval(one),
        "num_items": one.num_items,
        "unscored": one.num_unscored,
    }


def _interval(one: Shift) -> list[float] | None:
    return None if math.isnan(one.low) else [one.low, one.high]


def _largest_gaps(sets: Sequence[NeuronSet]) -> dict[str, float]:
    """The largest distance in base rate between a neuron and its control, by the set that is controlled for."""
    gaps: dict[str, float] = {}
    for one in sets:
        if one.control_of:
            gaps[one.control_of] = max(gaps.get(one.control_of, 0.0), float(one.columns["rate_gap"].max()))
    return gaps


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
