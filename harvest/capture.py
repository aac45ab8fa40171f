"""Answers become units of statistics: one group × one block of questions, each committed exactly once.

A unit's key is its content; each kind of statistics is a unit of its own, so that asking for one more never renames
another. The plan is written before anything runs.

Moments, rows and maxima come from one pass over a block's texts, a histogram from a second pass. Axes: N neurons of
the histogram, B bins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cluster.task import Task
from harvest.fleet import Fleet
from harvest.provenance import Pass, Source, provenance, timed
from harvest.stats.histogram import HistogramPlan
from harvest.stats.rows import RequestRows
from harvest.store.arrays import write_group
from harvest.store.commit import Store
from harvest.store.key import digest, question_blocks, unit_name
from harvest.store.units import Labels, histogram_unit, maxima_unit, moments_unit, rows_unit, sites
from harvest.types import Completion, Prompt, Text, phase_span

if TYPE_CHECKING:
    from harvest.engine.engine import Engine

ACTIVATION = "act(gate)"
# before the product with up, before this layer's edit, in the model's dtype
_VERSION = {"moments": 2, "rows": 2, "maxima": 1, "histogram": 1}
# of a kind's meaning: raise it when the same tokens would give other numbers, or a unit would say other things
_OF_ROWS = {"moments": moments_unit, "rows": rows_unit, "maxima": maxima_unit}
KINDS_OF_ROWS = tuple(_OF_ROWS)
# the kinds that come from one pass
_OF_PLAN = ("histogram",)
# and the one that has a pass of its own


class Prompted(Protocol):
    """Whatever has a prompt."""

    @property
    def prompt(self) -> Prompt: ...


Member = TypeVar("Member", bound=Prompted)


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt with its answer."""

    prompt: Prompt
    completion: Completion
    description_id: str = ""


def text_of(answered: Answered, phase: str) -> Text:
    """What is forwarded and counted; the answer's last token is never forwarded when sampled, so it never counts."""
    prompt = answered.prompt.token_ids
    tokens = [*prompt, *answered.completion.token_ids[:-1]]
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

    @property
    def forwarded(self) -> int:
        """Tokens that a pass forwards; a text with nothing to count is left out."""
        return sum(len(text.token_ids) for text in self.texts if text.planned)

    def labels(self, layers: tuple[int, ...]) -> Labels:
        return Labels(self.group, self.question_ids, self.description_ids, layers)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one pass over a block's texts gave, and the kinds it was made for."""

    kinds: tuple[str, ...]
    result: RequestRows | NDArray[np.int64]
    # the histogram's counts_NB, where it is for that kind
    layers: tuple[int, ...]
    source: Source
    tokens: int
    # forwarded


def commit_measured(store: Store, block: Block, measured: Measured) -> None:
    """Commit the block's units of the kinds that the pass was made for."""
    for kind in measured.kinds:
        if isinstance(measured.result, RequestRows):
            arrays, attributes = _OF_ROWS[kind](block.labels(measured.layers), measured.result)
        else:
            assert block.histogram is not None
            arrays, attributes = histogram_unit(block.group, block.histogram, measured.result, block.planned)
        write = partial(write_group, arrays=arrays, attributes=attributes)
        store.commit(block.units[kind], ".zarr", write, measured.source)


@dataclass(frozen=True, slots=True)
class CaptureTask:
    """One pass over a block, for one engine: the histogram's, or the one that all other kinds come from."""

    block: Block
    kinds: tuple[str, ...]
    # not committed yet when the task was made
    store: Store

    @property
    def unit(self) -> str:
        """Names the task."""
        return self.block.units[self.kinds[0]]

    def wanted(self) -> tuple[str, ...]:
        """The kinds that nobody has committed since the task was made, or had all but committed when he was stopped."""
        return tuple(kind for kind in self.kinds if self.store.settle(self.block.units[kind]) is None)

    def measure(self, engine: Engine, wanted: tuple[str, ...]) -> Measured:
        """The pass, for these kinds."""
        result, wall_s = timed(partial(self._pass, engine))
        work = Pass("replay", wall_s, self.block.forwarded)
        return Measured(wanted, result, engine.layers, provenance(engine.provenance, work), work.tokens)

    def _pass(self, engine: Engine) -> RequestRows | NDArray[np.int64]:
        block = self.block
        if self.kinds != _OF_PLAN:
            return engine.capture(block.texts)
        assert block.histogram is not None
        return engine.histogram(block.texts, block.histogram)

    def keep(self, measured: Measured) -> int:
        """Commit what was measured; the tokens that were forwarded for it."""
        commit_measured(self.store, self.block, measured)
        return measured.tokens


def plan_blocks(answered: Iterable[Answered], capturing: Capturing) -> list[Block]:
    """The blocks in key order: by group, then by the questions' hashes. Opposing aspects share their blocks."""
    own = {kind: _own(kind, capturing) for kind in capturing.kinds}
    return [_block(members, capturing, own) for members in cut_blocks(answered)]


def cut_blocks(every: Iterable[Member]) -> list[tuple[Member, ...]]:
    """Prompts, answered or not, in the blocks that capture has, each in the order of its questions."""
    by_group: dict[str, dict[str, Member]] = defaultdict(dict)
    for each in every:
        by_group[each.prompt.group][each.prompt.question_id] = each
    return [
        tuple(by_question[question_id] for question_id in question_ids)
        for _, by_question in sorted(by_group.items())
        for question_ids in question_blocks(by_question)
    ]


def _own(kind: str, capturing: Capturing) -> dict[str, object]:
    """What the units of one kind depend on and those of the others do not."""
    version: dict[str, object] = {"version": _VERSION[kind]}
    return version | ({"histogram": capturing.content()["histogram"]} if kind == "histogram" else {})


def _block(members: Sequence[Answered], capturing: Capturing, own: Mapping[str, Mapping[str, object]]) -> Block:
    group = members[0].prompt.group
    question_ids = tuple(member.prompt.question_id for member in members)
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
    """One task for each pass over a block of which a unit is not committed."""
    committed = store.committed(unit for block in blocks for unit in block.units.values())
    tasks = []
    for block in blocks:
        missing = [kind for kind, unit in block.units.items() if unit not in committed]
        for of_pass in (KINDS_OF_ROWS, _OF_PLAN):
            kinds = tuple(kind for kind in missing if kind in of_pass)
            if kinds:
                tasks.append(CaptureTask(block, kinds, store))
    return tasks


def capture(blocks: Sequence[Block], store: Store, fleet: Fleet) -> None:
    """Commit every unit of the blocks that is not committed yet.

    Raises UnitsFailed if some could not be captured; the others are kept.
    """
    tasks = missing_tasks(blocks, store)
    fleet.run("capture", [Task(task.unit, task, cost=float(task.block.forwarded)) for task in tasks])
