"""Conditions meet items: every evaluated item of a set's group, under every condition of the group, in both orders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from analysis.interventions import Condition, fingerprint
from analysis.tables import read_table, table_of, write_table
from harvest.types import Completion, Edit, Item, Prompt, Request

_STRINGS = ("condition_id", "item_id", "group", "aspect", "option_order")
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in _STRINGS]
    + [("token_ids", pa.list_(pa.int32())), ("text", pa.string()), ("finish_reason", pa.string())]
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One prompt under one condition."""

    item: Item
    prompt: Prompt
    condition: Condition
    request: Request


def plan_trials(prompts: Sequence[tuple[Item, Prompt]], conditions: Sequence[Condition]) -> list[Trial]:
    """Every prompt under every condition of its group, next to each other, so that every batch mixes them."""
    by_group: dict[str, list[tuple[Condition, Edit | None]]] = defaultdict(list)
    for condition in conditions:
        edit = Edit(fingerprint(condition), condition.edit) if len(condition.edit) else None
        by_group[condition.group].append((condition, edit))
    return [
        Trial(item, prompt, condition, Request(prompt.token_ids, edit))
        for item, prompt in prompts
        for condition, edit in by_group[item.group]
    ]


def read_completions(path: Path) -> pa.Table:
    """The table; raises SelectionError if the file is missing or damaged."""
    return read_table(path, _SCHEMA.names, "ablate")


def write_completions(path: Path, trials: Sequence[Trial], completions: Sequence[Completion]) -> None:
    """Write `completions.parquet`, one row a trial."""
    rows = (
        {
            "condition_id": trial.condition.condition_id,
            "item_id": trial.item.item_id,
            "group": trial.item.group,
            "aspect": trial.item.aspect,
            "option_order": str(trial.prompt.option_order),
            "token_ids": list(completion.token_ids),
            "text": completion.text,
            "finish_reason": completion.finish_reason,
        }
        for trial, completion in zip(trials, completions, strict=True)
    )
    write_table(path, table_of(rows, _SCHEMA))
