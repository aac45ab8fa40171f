"""`responses.parquet`: every item's answer under its role, with the token ids that capture reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from analysis.tables import read_table, rows_of, table_of, write_table
from harvest.capture import Answered
from harvest.types import Completion, Item, OptionOrder, Prompt

_STRINGS = ("item_id", "group", "value", "aspect", "language", "question_id", "description_id", "option_order")
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in _STRINGS]
    + [("prompt_token_ids", pa.list_(pa.int32())), ("response_token_ids", pa.list_(pa.int32()))]
    + [("text", pa.string()), ("finish_reason", pa.string())]
)


def write_responses(
    path: Path, items: Sequence[Item], prompts: Sequence[Prompt], completions: Sequence[Completion]
) -> None:
    """One row per item, in the order of the benchmarks."""
    rows = (
        {
            "item_id": item.item_id,
            "group": item.group,
            "value": item.value,
            "aspect": item.aspect,
            "language": item.language,
            "question_id": item.question_id,
            "description_id": item.description_id,
            "option_order": str(prompt.option_order),
            "prompt_token_ids": list(prompt.token_ids),
            "response_token_ids": list(completion.token_ids),
            "text": completion.text,
            "finish_reason": completion.finish_reason,
        }
        for item, prompt, completion in zip(items, prompts, completions, strict=True)
    )
    write_table(path, table_of(rows, _SCHEMA))


def read_responses(path: Path) -> list[Answered]:
    """The prompts with their answers; raises SelectionError if the file is missing or damaged."""
    return [
        Answered(
            Prompt(
                row["item_id"],
                row["group"],
                row["question_id"],
                OptionOrder(row["option_order"]),
                row["prompt_token_ids"],
            ),
            Completion(row["response_token_ids"], row["text"], row["finish_reason"]),
            row["description_id"],
        )
        for row in rows_of(read_table(path, _SCHEMA.names, "respond"))
    ]
