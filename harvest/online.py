"""Online capture: a block's answers and their statistics in one pass.

A unit is named by the tokens it counts, here as in replay, so it gets its name when its answers are there. A block's
statistics are committed before its answers: whoever finds the answers finds the statistics too. What a study finds
without them (answers of a block that was cut otherwise, a kind that was not asked for then) is replayed, under the same
name; each commit says which it was.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.task import Task
from harvest.capture import KINDS_OF_ROWS, Answered, Capturing, Measured, commit_measured, cut_blocks, plan_blocks
from harvest.fleet import Fleet
from harvest.generate import Generation, answered_by_now, answers_unit, commit_answers, generate, pending
from harvest.provenance import Pass, Source, provenance, timed
from harvest.stats.rows import RequestRows
from harvest.store.commit import Store
from harvest.types import Completion, Prompt, Request

if TYPE_CHECKING:
    from harvest.engine.engine import Engine

REQUESTS_PER_TASK = 128
# as many are counted at once, so this sizes the probe's memory


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt to be answered."""

    prompt: Prompt
    description_id: str = ""


Block = tuple[Asked, ...]


@dataclass(frozen=True, slots=True)
class Answering:
    """What one pass gave: the answers of some blocks, one after the other, and a row of each."""

    blocks: tuple[Block, ...]
    completions: list[Completion]
    rows: RequestRows
    layers: tuple[int, ...]
    source: Source
    tokens: int
    # forwarded and sampled


@dataclass(frozen=True, slots=True)
class OnlineTask:
    """Some blocks of prompts for one engine; keeping it commits their statistics, then their answers."""

    blocks: tuple[Block, ...]
    generation: Generation
    capturing: Capturing
    store: Store

    @property
    def keys(self) -> tuple[str, ...]:
        return _keys(self.blocks, self.generation)

    def wanted(self) -> tuple[Block, ...]:
        """The blocks of which nobody has answered a prompt since the task was made."""
        there = answered_by_now(self.store, self.keys)
        return tuple(block for block in self.blocks if there.isdisjoint(_keys([block], self.generation)))

    def measure(self, engine: Engine, wanted: tuple[Block, ...]) -> Answering:
        """Their answers and rows."""
        prompts = [asked.prompt.token_ids for block in wanted for asked in block]
        sampling, phase = self.generation.sampling, self.capturing.phase
        (completions, rows), wall_s = timed(lambda: engine.answer_and_capture(prompts, sampling, phase))
        work = Pass("online", wall_s, sum(map(len, prompts)), sum(len(done.token_ids) for done in completions))
        source = provenance(engine.provenance, work)
        return Answering(wanted, completions, rows, engine.layers, source, work.tokens)

    def keep(self, measured: Answering) -> int:
        """Commit what was measured; the tokens that were forwarded and sampled for it."""
        done = 0
        for block in measured.blocks:
            here = slice(done, done + len(block))
            answered = [
                Answered(asked.prompt, completion, asked.description_id)
                for asked, completion in zip(block, measured.completions[here], strict=True)
            ]
            (planned,) = plan_blocks(answered, self.capturing)
            kinds = tuple(kind for kind in planned.units if kind in KINDS_OF_ROWS)
            counted = Measured(kinds, measured.rows.of(here), measured.layers, measured.source, measured.tokens)
            commit_measured(self.store, planned, counted)
            done = here.stop
        commit_answers(self.store, _keys(measured.blocks, self.generation), measured.completions, measured.source)
        return measured.tokens


def answer_online(
    asked: Sequence[Asked], generation: Generation, capturing: Capturing, store: Store, fleet: Fleet
) -> list[Completion]:
    """The answers in the order asked; what the store lacks is generated, whole blocks with their statistics.

    Raises UnitsFailed if some could not be generated; the others are kept.
    """
    requests = [Request(each.prompt.token_ids) for each in asked]
    missing = pending(requests, generation, store)
    blocks = unanswered_blocks(asked, missing, generation)
    tasks = [OnlineTask(some, generation, capturing, store) for some in _packed(blocks)]
    fleet.run("respond", [Task(answers_unit(task.keys), task, cost=_cost(task)) for task in tasks])
    return generate("respond", requests, generation, store, fleet)


def unanswered_blocks(asked: Iterable[Asked], missing: Container[str], generation: Generation) -> list[Block]:
    """The blocks that are answered and counted at once: all of their answers are missing.

    Of blocks that ask the same, the first: an answer is generated once, and replayed elsewhere.
    """
    seen: set[str] = set()
    kept = []
    for block in cut_blocks(asked):
        keys = _keys([block], generation)
        if all(key in missing for key in keys):
            if seen.isdisjoint(keys):
                kept.append(block)
            seen.update(keys)
    return kept


def _keys(blocks: Iterable[Block], generation: Generation) -> tuple[str, ...]:
    return tuple(generation.key(Request(asked.prompt.token_ids)) for block in blocks for asked in block)


def _cost(task: OnlineTask) -> float:
    """Tokens, at most."""
    return float(
        sum(
            len(asked.prompt.token_ids) + task.generation.sampling.max_tokens
            for block in task.blocks
            for asked in block
        )
    )


def _packed(blocks: Iterable[Block]) -> list[tuple[Block, ...]]:
    """Blocks side by side in as few tasks as keep their order and the bound."""
    tasks: list[list[Block]] = []
    room = 0
    for block in blocks:
        if not tasks or len(block) > room:
            tasks.append([])
            room = REQUESTS_PER_TASK
        tasks[-1].append(block)
        room -= len(block)
    return [tuple(task) for task in tasks]
