"""What a scorer says about an answer, and the rows of `scores.parquet`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from analysis.tables import read_table, write_table
from harvest.types import OptionOrder


@dataclass(frozen=True, slots=True)
class Unscored:
    """An answer that has no score, and why; the reason is a category, so that it can be counted."""

    reason: str


@dataclass(frozen=True, slots=True)
class Score:
    """One answer's score; exactly one of `score` and `unscored` is None."""

    condition_id: str
    item_id: str
    group: str
    option_order: OptionOrder
    sample: int
    # 0, 1, … among the answers of one condition, item and order
    scorer: str
    score: float | None
    # for `support`: percent, 0 to 100
    unscored: str | None


_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("condition_id", "item_id", "group", "option_order")]
    + [("sample", pa.int32()), ("scorer", pa.string()), ("score", pa.float64()), ("unscored", pa.string())]
)


def write_scores(path: Path, scores: Sequence[Score]) -> None:
    """Write `scores.parquet`, one row an answer."""
    write_table(path, pa.Table.from_pylist([asdict(score) for score in scores], schema=_SCHEMA))


def read_scores(path: Path) -> list[Score]:
    """The scores in the file's order; raises SelectionError if the file is missing or damaged."""
    rows = read_table(path, _SCHEMA.names, "score").select(_SCHEMA.names).to_pylist()
    return [Score(**{**row, "option_order": OptionOrder(row["option_order"])}) for row in rows]
