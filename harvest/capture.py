"""Answers become units of statistics: one group × one block of questions, each committed exactly once.

A unit's key is its content; each kind of statistics is a unit of its own, so that asking for one more never renames
another. The plan is written before anything runs.

Moments, rows and maxima come from one pass over a block's texts, a histogram from a second pass. Axes: N neurons of
the histogram, B bins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cluster.task import Task
from harvest.fleet import Fleet
from harvest.provenance import provenance
from harvest.stats.histogram import HistogramPlan
from harvest.stats.rows import RequestRows
from harvest.store.arrays import write_group
from harvest.store.commit import Store
from harvest.store.key import digest, question_blocks, unit_name
from harvest.store.units import Content, Labels, histogram_unit, maxima_unit, moments_unit, rows_unit, sites
from harvest.types import Completion, Prompt, Text, phase_span

if TYPE_CHECKING:
    from harvest.engine.engine import Engine

Source = dict[str, object]
# where a result came from

ACTIVATION = "act(gate)"
# before the product with up, before this layer's edit, in the model's dtype
_VERSION = {"moments": 2, "rows": 2, "maxima": 1, "histogram": 1}
# of a kind's meaning: raise it when the same tokens would give other numbers, or a unit would say other things
_OF_ROWS = {"moments": moments_unit, "rows": rows_unit, "maxima": maxima_unit}
# the kinds that come from one pass


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
    return Text(tokens, *phase_span(phase, len(prompt), len(tokens)))


@dataclass(frozen=True, slots=True)
class Capturing:
    """All that a unit's numbers depend on beside its texts."""

    model: str
    # names all of the checkpoint that an activation depends on
    dtype: str
    phase: str
    mode: str
    # "replay", or "online"
    kinds: tuple[str, ...]
    # "moments", and of "rows", "maxima", "histogram" those that are asked for
    histogram: HistogramPlan | None = None
    # of the kind "histogram"

    def content(self) -> dict[str, object]:
        """All of it as JSON, the histogram's neurons and edges as their digest."""
        plain = {name: getattr(self, name) for name in ("model", "dtype", "phase", "mode", "kinds")}
        return plain | {"histogram": None if self.histogram is None else digest(sites(self.histogram))}


@dataclass(frozen=True, slots=True)
class Block:
    """One group × one block of questions, with the names of its units by kind."""

    group: str
    question_ids: tuple[str, ...]
    description_ids: tuple[str, ...]
    texts: tuple[Text, ...]
    units: Mapping[str, str]
    histogram: HistogramPlan | None = None
    # of the unit of that kind

    @property
    def planned(self) -> int:
        """Tokens that must be counted."""
        return sum(text.planned for text in self.texts)

    def labels(self, layers: tuple[int, ...]) -> Labels:
        return Labels(self.group, self.question_ids, self.description_ids, layers)


def commit_rows(store: Store, block: Block, rows: RequestRows, layers: tuple[int, ...], source: Source) -> None:
    """Commit every unit of the block that comes from its rows."""
    for kind in (kind for kind in block.units if kind in _OF_ROWS):
        _commit(store, block.units[kind], _OF_ROWS[kind](block.labels(layers), rows), source)


def _commit(store: Store, unit: str, content: Content, source: Source) -> None:
    arrays, attributes = content
    store.commit(unit, ".zarr", partial(write_group, arrays=arrays, attributes=attributes), source)


@dataclass(frozen=True, slots=True)
class CaptureTask:
    """A block for one engine; running it commits the units that are asked for."""

    block: Block
    units: Mapping[str, str]
    # those of the block that are not committed yet
    store: Store

    def run(self, engine: Engine) -> int:
        """Tokens counted."""
        source = provenance(engine.provenance, mode="replay")
        for kind, content in self._measured(engine):
            _commit(self.store, self.units[kind], content, source)
        return self.block.planned

    def _measured(self, engine: Engine) -> Iterator[tuple[str, Content]]:
        """Each kind that is asked for, with what its unit holds; a pass that none of them needs is not made."""
        block = self.block
        of_rows = [kind for kind in self.units if kind in _OF_ROWS]
        if of_rows:
            rows = engine.capture(block.texts)
            for kind in of_rows:
                yield kind, _OF_ROWS[kind](block.labels(engine.layers), rows)
        if "histogram" in self.units:
            assert block.histogram is not None
            counts_NB = engine.histogram(block.texts, block.histogram)
            yield "histogram", histogram_unit(block.group, block.histogram, counts_NB, block.planned)


def plan_blocks(answered: Iterable[Answered], capturing: Capturing) -> list[Block]:
    """The blocks in key order: by group, then by the questions' hashes. Opposing aspects share their blocks."""
    by_group: dict[str, dict[str, Answered]] = defaultdict(dict)
    for each in answered:
        by_group[each.prompt.group][each.prompt.question_id] = each
    own = {kind: _own(kind, capturing) for kind in capturing.kinds}
    blocks = []
    for group, by_question in sorted(by_group.items()):
        for question_ids in question_blocks(by_question):
            members = [by_question[question_id] for question_id in question_ids]
            blocks.append(_block(group, question_ids, members, capturing, own))
    return blocks


def _own(kind: str, capturing: Capturing) -> dict[str, object]:
    """What the units of one kind depend on and those of the others do not."""
    version: dict[str, object] = {"version": _VERSION[kind]}
    return version | ({"histogram": capturing.content()["histogram"]} if kind == "histogram" else {})


def _block(
    group: str,
    question_ids: tuple[str, ...],
    members: Sequence[Answered],
    capturing: Capturing,
    own: Mapping[str, Mapping[str, object]],
) -> Block:
    texts = tuple(text_of(member, capturing.phase) for member in members)
    description_ids = tuple(member.description_id for member in members)
    content = {
        "model": capturing.model,
        "dtype": capturing.dtype,
        "activation": ACTIVATION,
        "phase": capturing.phase,
        "mode": capturing.mode,
        "group": group,
        "questions": list(question_ids),
        "descriptions": list(description_ids),
        "texts": [[list(text.token_ids), text.count_start, text.count_stop] for text in texts],
    }
    units = {kind: unit_name(kind, {**content, **own[kind]}) for kind in capturing.kinds}
    return Block(group, question_ids, description_ids, texts, units, capturing.histogram)


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
