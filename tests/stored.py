"""Units on disk that many tests share, and what they should add up to, by two plain passes over all tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harvest.store.arrays import write_group
from harvest.store.commit import Commit, Store
from harvest.store.key import unit_name
from harvest.store.merge import merge_moments, merge_rows
from harvest.store.schema import MOMENTS, ROWS

Question = NDArray[np.float64]
# one answer's activations (tokens, layer, neuron)


def random_questions(seed: int, lengths: Sequence[int], layers: int = 2, neurons: int = 5) -> list[Question]:
    rng = np.random.default_rng(seed)
    return [rng.normal(3.0, 2.0, (length, layers, neurons)) for length in lengths]


def plain_moments(questions: Sequence[Question]) -> dict[str, NDArray[Any]]:
    """The variables of MOMENTS, in float64, of at least one token."""
    answered = [question for question in questions if len(question)]
    tokens = np.concatenate(answered)
    means = np.stack([question.mean(axis=0) for question in answered])
    rates = np.stack([(question > 0).mean(axis=0) for question in answered])
    return {
        "mean": tokens.mean(axis=0),
        "m2": np.square(tokens - tokens.mean(axis=0)).sum(axis=0),
        "min": tokens.min(axis=0),
        "max": tokens.max(axis=0),
        "positive_count": (tokens > 0).sum(axis=0),
        "question_mean": means.mean(axis=0),
        "question_m2": np.square(means - means.mean(axis=0)).sum(axis=0),
        "question_rate_mean": rates.mean(axis=0),
        "question_rate_m2": np.square(rates - rates.mean(axis=0)).sum(axis=0),
    }


def commit_moments(store: Store, name: str, group: str, questions: Sequence[Question]) -> Commit:
    counts = {"token_count": sum(map(len, questions)), "question_count": sum(len(each) > 0 for each in questions)}
    shape = questions[0].shape[1:]
    values = plain_moments(questions) if counts["token_count"] else {key: np.full(shape, np.nan) for key in MOMENTS}
    values["positive_count"] = np.nan_to_num(values["positive_count"])
    arrays = {key: (spec.dims, values[key].astype(spec.dtype)) for key, spec in MOMENTS.items()}
    layers = {"layer": list(range(shape[0]))}
    unit = unit_name("moments", {"name": name})
    return store.commit(
        unit, ".zarr", lambda path: write_group(path, arrays, {"group": group, **layers, **counts}), {"by": "test"}
    )


def commit_rows(store: Store, name: str, group: str, questions: Sequence[Question]) -> Commit:
    values = {
        "row_mean": np.stack(
            [each.mean(axis=0) if len(each) else np.full(each.shape[1:], np.nan) for each in questions]
        ),
        "row_positive_count": np.stack([(each > 0).sum(axis=0) for each in questions]),
    }
    arrays = {key: (spec.dims, values[key].astype(spec.dtype)) for key, spec in ROWS.items()}
    attributes = {
        "group": group,
        "layer": list(range(questions[0].shape[1])),
        "question_id": [f"{name}/问{index}" for index in range(len(questions))],
        "description_id": [""] * len(questions),
        "num_tokens": [len(each) for each in questions],
    }
    unit = unit_name("rows", {"name": name})
    return store.commit(unit, ".zarr", lambda path: write_group(path, arrays, attributes), {"by": "test"})


def finished_store(root: Path | str) -> Store:
    """Two groups, an answers unit, two plans and both merged views."""
    store = Store(root).prepare()
    units: dict[str, list[str]] = {"moments": [], "rows": []}
    for seed in range(2):
        group, questions = f"voice.zh/和谐/{['support', 'conflict'][seed]}", random_questions(seed, [3, 1, 4])
        units["moments"].append(commit_moments(store, f"block {seed}", group, questions).unit)
        units["rows"].append(commit_rows(store, f"block {seed}", group, questions).unit)
    answers = unit_name("answers", {"name": "all"})
    store.commit(answers, ".parquet", lambda path: path.write_bytes(b"PAR1 stands for any file"), {}, ["a", "b"])
    store.write_plan({"units": units})
    store.write_plan({"units": [answers]})
    merge_moments(store, units["moments"], {"model": "m"})
    merge_rows(store, units["rows"], {"model": "m"})
    return store
