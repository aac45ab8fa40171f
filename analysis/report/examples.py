"""The same dilemma answered before and after a cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from analysis.effects import SetEffect
from analysis.scoring.outcome import Score
from harvest.types import Item, OptionOrder, question_bits


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer and its score."""

    text: str
    score: float | None
    # percent of support for the aspect's own option
    unscored: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """One question of a group, in the published order of its options."""

    group: str
    question: str
    options: tuple[str, str] | None
    before: Answer
    after: Answer


def pick_examples(
    effects: Sequence[SetEffect],
    items: Mapping[str, Item],
    completions: pa.Table,
    scores: Sequence[Score],
    limit: int = 3,
) -> list[Example]:
    """One example for each of up to `limit` groups, largest shift first.

    Within a group it is the question of the lowest hash, whatever its answers say, so that none is picked for its
    effect. `completions` is completions.parquet; a group without an answer to show is left out.
    """
    ranked = sorted((one for one in effects if one.cut.num_items), key=lambda one: -one.cut.shift)
    wanted = {name for one in ranked for name in (one.baseline_id, one.cut.condition_id)}
    shown = completions.filter(
        pc.and_(
            pc.is_in(completions["condition_id"], pa.array(sorted(wanted), pa.string())),
            pc.equal(completions["option_order"], str(OptionOrder.PUBLISHED)),
        )
    )
    texts = {(row["condition_id"], row["item_id"]): row["text"] for row in _rows(shown)}
    outcomes = {(one.condition_id, one.item_id): one for one in scores if one.option_order is OptionOrder.PUBLISHED}
    examples: dict[str, Example] = {}
    for one in ranked:
        names = [
            name for condition, name in texts if condition == one.baseline_id and (one.cut.condition_id, name) in texts
        ]
        names = [name for name in names if name in items]
        if len(examples) == limit or one.group in examples or not names:
            continue
        item = items[min(names, key=lambda name: question_bits(items[name].question_id))]
        before, after = (
            _answer(texts, outcomes, (condition, item.item_id)) for condition in (one.baseline_id, one.cut.condition_id)
        )
        examples[one.group] = Example(one.group, item.question, item.options, before, after)
    return list(examples.values())


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.select(["condition_id", "item_id", "text"]).to_pylist()
    return rows


def _answer(
    texts: Mapping[tuple[str, str], str], outcomes: Mapping[tuple[str, str], Score], key: tuple[str, str]
) -> Answer:
    return Answer(texts[key], outcomes[key].score, outcomes[key].unscored)
