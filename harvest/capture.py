"""Answers become units of statistics: one group × one block of questions, each committed exactly once.

A unit's key is its content; moments and rows are units of their own, so that asking for one more kind never renames
another. The plan is written before anything runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cluster.task import Task
from harvest.errors import CaptureError
from harvest.fleet import Fleet
from harvest.provenance import provenance
from harvest.stats.rows import RequestRows
from harvest.stats.unit import fold_unit
from harvest.store.arrays import Dimensioned, write_group
from harvest.store.commit import Store
from harvest.store.key import question_blocks, unit_name
from harvest.store.schema import MOMENTS, ROWS, Variable
from harvest.types import Completion, Prompt, Text

if TYPE_CHECKING:
    from harvest.engine.engine import Engine

ACTIVATION = "act(gate)"
# before the product with up, before this layer's edit, in the model's dtype
_VERSION = {"moments": 1, "rows": 1}
# of a kind's meaning: raise it when the same tokens would give other numbers


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt with its answer."""

    prompt: Prompt
    completion: Completion
    description_id: str = ""


def text_of(answered: Answered, phase: str) -> Text:
    """What is forwarded and counted; the answer's last token is never forwarded when sampled, so it never counts."""
    prompt = answered.prompt.token_ids
    tokens = prompt + answered.completion.token_ids[:-1]
    start, stop = {
        "prompt": (0, len(prompt)),
        "response": (len(prompt), len(tokens)),
        "both": (0, len(tokens)),
    }[phase]
    return Text(tokens, start, stop)


@dataclass(frozen=True, slots=True)
class Capturing:
    """All that a unit's numbers depend on beside its texts."""

    model: str
    # names all of the checkpoint that an activation depends on
    dtype: str
    phase: str
    kinds: tuple[str, ...]
    # of "moments", "rows"


@dataclass(frozen=True, slots=True)
class Block:
    """One group × one block of questions, with the names of its units by kind."""

    group: str
    question_ids: tuple[str, ...]
    description_ids: tuple[str, ...]
    texts: tuple[Text, ...]
    units: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CaptureTask:
    """A block for one engine; running it commits the units that are asked for."""

    block: Block
    units: Mapping[str, str]
    # those of the block that are not committed yet
    store: Store

    def run(self, engine: Engine) -> int:
        """Tokens counted."""
        rows = engine.capture(self.block.texts)
        source = provenance(engine.options.provenance())
        for kind, unit in self.units.items():
            self.store.commit(unit, ".zarr", _WRITERS[kind](self.block, rows), source)
        return int(rows.num_tokens_Q.sum())


def plan_blocks(answered: Iterable[Answered], capturing: Capturing) -> list[Block]:
    """The blocks in key order: by group, then by the questions' hashes. Opposing aspects share their blocks."""
    by_group: dict[str, dict[str, Answered]] = defaultdict(dict)
    for each in answered:
        by_group[each.prompt.group][each.prompt.question_id] = each
    blocks = []
    for group, by_question in sorted(by_group.items()):
        for question_ids in question_blocks(by_question):
            members = [by_question[question_id] for question_id in question_ids]
            blocks.append(_block(group, question_ids, members, capturing))
    return blocks


def _block(group: str, question_ids: tuple[str, ...], members: Sequence[Answered], capturing: Capturing) -> Block:
    texts = tuple(text_of(member, capturing.phase) for member in members)
    description_ids = tuple(member.description_id for member in members)
    content = {
        "model": capturing.model,
        "dtype": capturing.dtype,
        "activation": ACTIVATION,
        "phase": capturing.phase,
        "mode": "replay",
        "group": group,
        "questions": list(question_ids),
        "descriptions": list(description_ids),
        "texts": [[list(text.token_ids), text.count_start, text.count_stop] for text in texts],
    }
    units = {kind: unit_name(kind, {**content, "version": _VERSION[kind]}) for kind in capturing.kinds}
    return Block(group, question_ids, description_ids, texts, units)


def missing_tasks(blocks: Sequence[Block], store: Store) -> list[CaptureTask]:
    """One task for each block of which a unit is not committed."""
    committed = store.committed(unit for block in blocks for unit in block.units.values())
    tasks = []
    for block in blocks:
        wanted = {kind: unit for kind, unit in block.units.items() if unit not in committed}
        if wanted:
            tasks.append(CaptureTask(block, wanted, store))
    return tasks


def capture(blocks: Sequence[Block], store: Store, fleet: Fleet) -> None:
    """Commit every unit of the blocks that is not committed yet.

    Raises UnitsFailed if some could not be captured; the others are kept.
    """
    tasks = [
        Task(task.block.units["moments"], task, cost=float(sum(len(text.token_ids) for text in task.block.texts)))
        for task in missing_tasks(blocks, store)
    ]
    fleet.run("capture", tasks)


def _write_moments(block: Block, rows: RequestRows) -> Callable[[Path], None]:
    moments = fold_unit(rows)
    attributes = {
        "group": block.group,
        "token_count": moments.token_count,
        "question_count": moments.question_count,
    }
    arrays = _as_stored(MOMENTS, moments.variables)
    return lambda path: write_group(path, arrays, attributes)


def _write_rows(block: Block, rows: RequestRows) -> Callable[[Path], None]:
    largest = np.iinfo(ROWS["row_positive_count"].dtype).max
    if rows.num_tokens_Q.max(initial=0) > largest:
        raise CaptureError(
            f"{block.group}: an answer has more than {largest} counted tokens; "
            "lower respond.max_tokens or set capture.rows: none"
        )
    attributes = {
        "group": block.group,
        "question_id": list(block.question_ids),
        "description_id": list(block.description_ids),
        "num_tokens": rows.num_tokens_Q.tolist(),
    }
    arrays = _as_stored(ROWS, {"row_mean": rows.mean_QLF, "row_positive_count": rows.positive_QLF})
    return lambda path: write_group(path, arrays, attributes)


def _as_stored(schema: Mapping[str, Variable], values: Mapping[str, NDArray[Any]]) -> dict[str, Dimensioned]:
    return {name: (variable.dims, values[name].astype(variable.dtype)) for name, variable in schema.items()}


_WRITERS = {"moments": _write_moments, "rows": _write_rows}
