"""What was found against what is known to be there."""

from __future__ import annotations

import json
import math
from collections.abc import Set as AbstractSet
from pathlib import Path

from harvest.errors import SelectionError

Pair = tuple[int, int]
# (layer, neuron)


def precision_recall(found: AbstractSet[Pair], planted: AbstractSet[Pair]) -> tuple[float, float]:
    """(share of the found that is planted, share of the planted that is found); a share of nothing is NaN."""
    hits = len(found & planted)
    return hits / len(found) if found else math.nan, hits / len(planted) if planted else math.nan


def read_planted(path: Path) -> dict[str, frozenset[Pair]]:
    """The planted neurons of every group, from `planted.json`: a list of {"group", "layer", "neuron"}.

    Raises SelectionError if the file is missing or has another form.
    """
    remedy = "write it again with `value-harvest demo-model`"
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        pairs = [(str(one["group"]), (int(one["layer"]), int(one["neuron"]))) for one in records]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SelectionError(f"{path}: not a list of planted neurons ({error!r}); {remedy}") from error
    return {
        group: frozenset(pair for name, pair in pairs if name == group) for group in dict.fromkeys(g for g, _ in pairs)
    }
