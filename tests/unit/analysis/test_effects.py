"""Shifts are paired per item, in both orders, and nothing unscored is silently averaged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.effects import bootstrap_interval, effects
from analysis.interventions import Condition, conditions_for
from analysis.neurons.neuron_set import NeuronSet
from analysis.scoring.outcome import Score
from harvest.errors import SelectionError
from harvest.types import EditPhase, OptionOrder

SET, GROUP = "g|probability", "g"


def make_conditions(draws: int = 2) -> list[Condition]:
    def make(set_id: str, neuron: int, draw: int, of: str) -> NeuronSet:
        nothing = np.zeros(1)
        layer = np.zeros(1, np.int32)
        return NeuronSet(set_id, GROUP, "m", layer, layer + neuron, nothing, nothing, nothing, draw, of)

    controls = [make(f"{SET}|control-{at}", at, at, SET) for at in range(draws)]
    return conditions_for([make(SET, 9, -1, "")], controls, ["zero"], EditPhase.BOTH)


def make_scores(condition_id: str, by_item: dict[str, tuple[float | None, float | None]]) -> list[Score]:
    return [
        Score(condition_id, name, GROUP, order, 0, "support", value, None if value is not None else "no percentages")
        for name, values in by_item.items()
        for order, value in zip(OptionOrder, values, strict=True)
    ]


NONE, CUT = f"{GROUP}|none", f"{SET}|cut-zero"
CONTROLS = [f"{SET}|control-{at}|cut-zero" for at in range(2)]


def test_shift_is_the_mean_over_items_of_both_orders_before_minus_after() -> None:
    scores = make_scores(NONE, {"q1": (90, 70), "q2": (100, 100)}) + make_scores(CUT, {"q1": (40, 60), "q2": (50, 30)})
    scores += make_scores(CONTROLS[0], {"q1": (90, 70), "q2": (100, 100)})
    scores += make_scores(CONTROLS[1], {"q1": (90, 80), "q2": (100, 100)})
    (effect,) = effects(make_conditions(), scores, 0)
    assert (effect.cut.baseline, effect.cut.score, effect.cut.shift) == (90.0, 45.0, 45.0)
    assert (effect.cut.low, effect.cut.high) == (30.0, 60.0)
    assert [one.shift for one in effect.controls] == [0.0, -2.5]
    assert [one.control_draw for one in effect.controls] == [0, 1]
    assert effect.largest_control == 2.5


def test_an_item_with_an_unscored_or_missing_answer_is_left_out_and_counted() -> None:
    before = make_scores(NONE, {"q1": (90, 70), "q2": (None, 100), "q3": (80, 80), "q4": (50, 50)})
    after = make_scores(CUT, {"q1": (40, 60), "q2": (0, 0), "q3": (None, 0), "q4": (1, 1)})[:-1]
    (effect,) = effects(make_conditions(0), before + after, 0)
    assert (effect.cut.num_items, effect.cut.num_items_left_out) == (1, 3)
    assert (effect.cut.num_answers, effect.cut.num_unscored, effect.num_unscored_baseline) == (7, 1, 1)
    assert (effect.cut.baseline, effect.cut.shift) == (80.0, 30.0)
    assert math.isnan(effect.cut.low)
    assert math.isnan(effect.largest_control)


def test_nothing_scored_is_nan_and_still_reported() -> None:
    scores = make_scores(NONE, {"q1": (90, 70)}) + make_scores(CUT, {"q1": (None, None)})
    (effect,) = effects(make_conditions(0), scores, 0)
    assert math.isnan(effect.cut.shift)
    assert (effect.cut.num_items, effect.cut.num_unscored) == (0, 2)


def test_a_condition_without_scores_is_named() -> None:
    with pytest.raises(SelectionError, match=r"g\|probability\|cut-zero has no scores"):
        effects(make_conditions(0), make_scores(NONE, {"q1": (90, 70)}), 0)


def test_interval_is_seeded_and_near_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(10, 4, 200)
    low, high = bootstrap_interval(values, np.random.default_rng(0))
    assert (low, high) == bootstrap_interval(values, np.random.default_rng(0))
    error = 1.96 * values.std() / math.sqrt(200)
    assert low == pytest.approx(values.mean() - error, abs=0.1)
    assert high == pytest.approx(values.mean() + error, abs=0.1)


def test_intervals_do_not_depend_on_what_else_is_run() -> None:
    rng = np.random.default_rng(0)
    items = {f"q{at}": (float(rng.integers(100)), float(rng.integers(100))) for at in range(20)}
    halved = {name: (a / 2, b / 2) for name, (a, b) in items.items()}
    scores = make_scores(NONE, items) + make_scores(CUT, halved)
    (alone,) = effects(make_conditions(0), scores, 3)
    (among,) = effects(make_conditions(2), scores + [s for name in CONTROLS for s in make_scores(name, items)], 3)
    assert alone.cut == among.cut
