"""On-counts of every group, from the merged view or from the rows of one half of the questions.

Both give the same dataset, all int64: `positive_count(group, layer, neuron)`, tokens on which the neuron is on;
`token_count(group)`; `question_count(group)`, questions with at least one counted token.
Axes: Q rows, G groups, L layers, F neurons of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from harvest.errors import NeedsRows, SelectionError
from harvest.types import Half, half_of

BLOCK_BYTES = 128 * 2**20
# of row counts held at once; one row of a 405B model has 13 MB


def counts_for(merged: xr.Dataset, rows: xr.Dataset | None, half: Half) -> xr.Dataset:
    """The counts of one half of the questions, or of all.

    Raises NeedsRows if a half is asked for and the capture has no rows.
    """
    if half is Half.ALL:
        return counts_of(merged)
    if rows is None:
        raise _needs_rows(half)
    return counts_of_rows(rows, half)


def counts_of(merged: xr.Dataset) -> xr.Dataset:
    """The counts of all questions, as the merged view has them; nothing is read yet where it is lazy."""
    counts = merged[["positive_count", "token_count", "question_count"]].transpose("group", "layer", "neuron")
    # converting a lazy array reads it whole, so only what is not int64 already (a merged view is)
    return counts.assign({name: one.astype(np.int64) for name, one in counts.items() if one.dtype != np.int64})


def counts_of_rows(rows: xr.Dataset, half: Half) -> xr.Dataset:
    """The counts over the rows whose question belongs to `half`; a group with none of them has zeros.

    Reads the rows once, in order, a bounded block at a time. Raises NeedsRows if the dataset carries no on-counts.
    """
    if "row_positive_count" not in rows:
        raise _needs_rows(half)
    groups, group_Q = _groups_of(rows)
    wanted_Q = np.array([half is Half.ALL or half_of(str(name)) is half for name in rows["question_id"].to_numpy()])
    tokens_Q = rows["num_tokens"].to_numpy().astype(np.int64)

    positive_GLF = np.zeros((len(groups), rows.sizes["layer"], rows.sizes["neuron"]), np.int64)
    for block in _blocks(rows):
        inside_Q, group_of_row_Q = wanted_Q[block], group_Q[block]
        present = np.unique(group_of_row_Q[inside_Q])
        if present.size == 0:
            continue
        positive_QLF = (
            rows["row_positive_count"].isel(question=block).transpose("question", "layer", "neuron").to_numpy()
        )
        for group in present:
            # the sum widens to int64 as it goes, so the block is never copied in a wider type
            positive_GLF[group] += positive_QLF[inside_Q & (group_of_row_Q == group)].sum(axis=0, dtype=np.int64)

    def total(values_Q: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(group_Q[wanted_Q], weights=values_Q[wanted_Q], minlength=len(groups)).astype(np.int64)

    return xr.Dataset(
        {
            "positive_count": (("group", "layer", "neuron"), positive_GLF),
            "token_count": ("group", total(tokens_Q)),
            "question_count": ("group", total((tokens_Q > 0).astype(np.int64))),
        },
        coords={"group": groups, "layer": rows["layer"].to_numpy(), "neuron": rows["neuron"].to_numpy()},
    )


def counts_of_group(counts: xr.Dataset, group: str) -> tuple[NDArray[np.int64], int]:
    """One group's on-counts, shape (layer, neuron), and its number of tokens.

    Raises SelectionError if there is no such group.
    """
    groups = [str(name) for name in counts["group"].to_numpy()]
    if group not in groups:
        raise SelectionError(f"group {group!r} was not captured; the captured ones are {', '.join(groups)}")
    one = counts.isel(group=groups.index(group))
    return one["positive_count"].to_numpy(), int(one["token_count"])


def _needs_rows(half: Half) -> NeedsRows:
    return NeedsRows(
        f"the {half} half of the questions needs per-question rows and this capture has none; "
        "set `capture: {rows: full}` and run `value-harvest capture` again, or set `split: false`"
    )


def _groups_of(rows: xr.Dataset) -> tuple[list[str], NDArray[np.int64]]:
    """The groups in order of appearance, and each row's index among them, shape (question,)."""
    names = [str(name) for name in rows["group"].to_numpy()]
    groups = list(dict.fromkeys(names))
    index = {group: at for at, group in enumerate(groups)}
    return groups, np.array([index[name] for name in names], np.int64)


def _blocks(rows: xr.Dataset) -> Iterator[slice]:
    row_bytes = rows["row_positive_count"].dtype.itemsize * rows.sizes["layer"] * rows.sizes["neuron"]
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, rows.sizes["question"], step):
        yield slice(start, min(start + step, rows.sizes["question"]))
