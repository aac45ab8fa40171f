"""What a condition does to the scores, per item and paired with the baseline.

An item counts where every one of its answers, in both option orders, is scored under the baseline and under the
condition: a mean over one order alone would measure the model's liking for a letter. The rest is counted and reported.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.interventions import CUT, NONE, Condition
from analysis.scoring.outcome import Score
from analysis.seeds import generator
from harvest.errors import SelectionError
from harvest.types import OptionOrder

RESAMPLES = 2000
Answers = Mapping[str, Mapping[tuple[OptionOrder, int], float | None]]
# item_id -> (option order, sample) -> score, None where unscored


@dataclass(frozen=True, slots=True)
class Shift:
    """One condition against its baseline, over the items that count; in the score's unit, NaN where there are none."""

    condition_id: str
    control_draw: int
    num_items: int
    # that count
    num_items_left_out: int
    num_answers: int
    num_unscored: int
    # of num_answers, under this condition
    baseline: float
    # mean over the items that count
    score: float
    # the same under the condition
    shift: float
    # baseline - score: what the condition takes away
    low: float
    high: float
    # the 95 % question-bootstrap interval of shift; NaN with fewer than 2 items


@dataclass(frozen=True, slots=True)
class SetEffect:
    """One set under one operation, and its matched controls under the same."""

    set_id: str
    group: str
    operation: str
    baseline_id: str
    num_unscored_baseline: int
    cut: Shift
    controls: tuple[Shift, ...]

    @property
    def largest_control(self) -> float:
        """The largest absolute shift of a control; NaN where no control has one."""
        return max((abs(one.shift) for one in self.controls if not math.isnan(one.shift)), default=math.nan)


def effects(conditions: Sequence[Condition], scores: Sequence[Score], seed: int) -> list[SetEffect]:
    """The effect of every set that is not a control, in the order of the conditions.

    Raises SelectionError if a condition or its baseline has no answers.
    """
    answers = _answers(scores)
    baselines = {one.group: one.condition_id for one in conditions if one.direction == NONE}
    return [
        _set_effect(one, baselines[one.group], conditions, answers, seed)
        for one in conditions
        if one.direction == CUT and one.control_draw < 0
    ]


def paired_shift(condition: Condition, before: Answers, after: Answers, seed: int) -> Shift:
    """The shift of one condition from the answers before it (the baseline's) and after it."""
    items = [name for name in before if _complete(before[name], after.get(name, {}))]
    before_I = np.array([np.mean(list(before[name].values())) for name in items], np.float64)
    after_I = np.array([np.mean(list(after[name].values())) for name in items], np.float64)
    values = [value for one in after.values() for value in one.values()]
    low, high = bootstrap_interval(before_I - after_I, generator(seed, condition.condition_id))
    return Shift(
        condition_id=condition.condition_id,
        control_draw=condition.control_draw,
        num_items=len(items),
        num_items_left_out=len(before.keys() | after.keys()) - len(items),
        num_answers=len(values),
        num_unscored=values.count(None),
        baseline=_mean(before_I),
        score=_mean(after_I),
        shift=_mean(before_I - after_I),
        low=low,
        high=high,
    )


def bootstrap_interval(values_I: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % percentile interval of the mean, items resampled with replacement; (NaN, NaN) for fewer than 2."""
    if len(values_I) < 2:
        return math.nan, math.nan
    drawn = rng.integers(len(values_I), size=(RESAMPLES, len(values_I)))
    low, high = np.quantile(values_I[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _set_effect(
    cut: Condition, baseline_id: str, conditions: Sequence[Condition], answers: Mapping[str, Answers], seed: int
) -> SetEffect:
    (set_id,) = cut.set_ids
    controls = [one for one in conditions if one.control_of == set_id and one.operation == cut.operation]
    for name in (baseline_id, *(one.condition_id for one in (cut, *controls))):
        if name not in answers:
            raise SelectionError(f"condition {name} has no scores; run `value-harvest ablate` and `score` again")
    before = answers[baseline_id]
    return SetEffect(
        set_id=set_id,
        group=cut.group,
        operation=cut.operation,
        baseline_id=baseline_id,
        num_unscored_baseline=sum(value is None for one in before.values() for value in one.values()),
        cut=paired_shift(cut, before, answers[cut.condition_id], seed),
        controls=tuple(paired_shift(one, before, answers[one.condition_id], seed) for one in controls),
    )


def _answers(scores: Sequence[Score]) -> dict[str, dict[str, dict[tuple[OptionOrder, int], float | None]]]:
    answers: dict[str, dict[str, dict[tuple[OptionOrder, int], float | None]]] = defaultdict(lambda: defaultdict(dict))
    for one in scores:
        answers[one.condition_id][one.item_id][one.option_order, one.sample] = one.score
    return answers


def _complete(
    before: Mapping[tuple[OptionOrder, int], float | None], after: Mapping[tuple[OptionOrder, int], float | None]
) -> bool:
    return before.keys() == after.keys() and None not in before.values() and None not in after.values()


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan
