"""Every scorer by name, and answers turned into scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pyarrow as pa

from analysis.scoring.outcome import Score, Unscored
from analysis.scoring.support import own_option_support
from harvest.errors import SelectionError
from harvest.types import OptionOrder

Scorer = Callable[[str, str, OptionOrder], float | Unscored]
# (answer, aspect, option order)

SCORERS: dict[str, Scorer] = {"support": own_option_support}

_COLUMNS = ["condition_id", "item_id", "group", "aspect", "option_order", "text", "finish_reason"]


def score_completions(completions: pa.Table, scorer: str) -> list[Score]:
    """One score for every row of `completions.parquet`, in its order; what cannot be scored says why.

    An answer that was cut off and has no score is `truncated: …`. Raises SelectionError if the scorer is unknown.
    """
    if scorer not in SCORERS:
        raise SelectionError(f"score: no scorer {scorer!r}; the known ones are {', '.join(sorted(SCORERS))}")
    seen: Counter[tuple[str, str, str]] = Counter()
    scores = []
    for row in completions.select(_COLUMNS).to_pylist():
        key = (row["condition_id"], row["item_id"], row["option_order"])
        order = OptionOrder(row["option_order"])
        outcome = SCORERS[scorer](row["text"], row["aspect"], order)
        score, unscored = (None, outcome.reason) if isinstance(outcome, Unscored) else (outcome, None)
        if unscored and row["finish_reason"] == "length":
            unscored = f"truncated: {unscored}"
        scores.append(Score(key[0], key[1], row["group"], order, seen[key], scorer, score, unscored))
        seen[key] += 1
    return scores
