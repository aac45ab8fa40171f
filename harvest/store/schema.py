"""What a unit holds: the variables of each kind, their dimensions and their types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

VERSION = 1
# of the layout of merged views; part of their names


@dataclass(frozen=True, slots=True)
class Variable:
    """One array of a group."""

    dims: tuple[str, ...]
    dtype: str
    # as NumPy spells it, or "string"


def _variables(dims: tuple[str, ...], dtypes: Mapping[str, str]) -> dict[str, Variable]:
    return {name: Variable(dims, dtype) for name, dtype in dtypes.items()}


# Every unit has the attribute `layer`: the global numbers of the layers on its layer axis; of a histogram, by site.

# Statistics of one group over one block of questions. Attributes: group, token_count, question_count.
# With token_count 0 the values mean nothing and are not read.
MOMENTS = _variables(
    ("layer", "neuron"),
    {
        "mean": "float64",
        "m2": "float32",
        "min": "float32",
        "max": "float32",
        "positive_count": "int32",
        "question_mean": "float64",
        "question_m2": "float32",
        "question_rate_mean": "float32",
        "question_rate_m2": "float32",
    },
)

# The same, merged: one entry per group, and a count that no number of units overflows.
MERGED = {name: replace(variable, dims=("group", *variable.dims)) for name, variable in MOMENTS.items()}
MERGED["positive_count"] = replace(MERGED["positive_count"], dtype="int64")

# Statistics of each question. Attributes: group, and by question: question_id, description_id, num_tokens.
# With num_tokens 0 the mean is NaN.
ROWS = _variables(("question", "layer", "neuron"), {"row_mean": "float32", "row_positive_count": "uint16"})

# The largest activation of each question, and the first of its counted tokens that reaches it; attributes as of ROWS.
MAXIMA = _variables(("question", "layer", "neuron"), {"row_max": "float32", "row_argmax": "uint16"})
NO_TOKEN = 2**16 - 1
# stands in row_argmax where the maximum is NaN: no token, or no such neuron in a layer narrower than the widest

# Activations of given neurons counted by bin. Attributes: group, token_count, and layer, neuron (by site), edges.
HISTOGRAM = _variables(("site", "bin"), {"counts": "int64"})
MERGED_HISTOGRAM = {"histogram": replace(HISTOGRAM["counts"], dims=("group", "site", "bin"))}

# What stands beside the rows once they are merged, from many groups.
ROW_COORDINATES = _variables(
    ("question",), {"question_id": "string", "group": "string", "description_id": "string", "num_tokens": "int64"}
)


def numpy_type(dtype: str) -> np.dtype[Any]:
    """The NumPy type a variable is read and written as."""
    return np.dtypes.StringDType() if dtype == "string" else np.dtype(dtype)
