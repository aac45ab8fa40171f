"""Online capture: a block's answers and their statistics in one pass.

A unit is named by the tokens it counts, here as in replay, so it gets its name when its answers are there. A block's
statistics are committed before its answers: whoever finds the answers finds the statistics too. What a study finds
without them (answers of a block that was cut otherwise, a kind that was not asked for then) is replayed, under the same
name; each commit says which it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.task import Task
from harvest.capture import Answered, Capturing, commit_rows, plan_blocks
from harvest.fleet import Fleet
from harvest.generate import Generation, answers_unit, commit_answers, generate, pending
from harvest.provenance import provenance
from harvest.store.commit import Store
from harvest.store.key import question_blocks
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


@dataclass(frozen=True, slots=True)
class OnlineTask:
    """Some blocks of prompts for one engine; running it commits their statistics, then their answers."""

    blocks: tuple[tuple[Asked, ...], ...]
    generation: Generation
    capturing: Capturing
    store: Store

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for block in self.blocks for key in _keys(block, self.generation))

    def run(self, engine: Engine) -> int:
        """Tokens counted."""
        prompts = [asked.prompt.token_ids for block in self.blocks for asked in block]
        completions, rows = engine.answer_and_capture(prompts, self.generation.sampling, self.capturing.phase)
        source = provenance(engine.provenance, mode="online")
        done = 0
        for block in self.blocks:
            here = slice(done, done + len(block))
            answered = [
                Answered(asked.prompt, completion, asked.description_id)
                for asked, completion in zip(block, completions[here], strict=True)
            ]
            (planned,) = plan_blocks(answered, self.capturing)
            commit_rows(self.store, planned, rows.of(here), engine.layers, source)
            done = here.stop
        commit_answers(self.store, self.keys, completions, source)
        return int(rows.num_tokens_Q.sum())


def answer_online(
    asked: Sequence[Asked], generation: Generation, capturing: Capturing, store: Store, fleet: Fleet
) -> list[Completion]:
    """The answers in the order asked; what the store lacks is generated, whole blocks with their statistics.

    Raises UnitsFailed if some could not be generated; the others are kept.
    """
    requests = [Request(each.prompt.token_ids) for each in asked]
    missing = pending(requests, generation, store)
    blocks = _without_repeats(
        [block for block in _blocks(asked) if all(key in missing for key in _keys(block, generation))], generation
    )
    tasks = [OnlineTask(some, generation, capturing, store) for some in _packed(blocks)]
    fleet.run(
        "respond",
        [Task(answers_unit(task.keys), task, cost=float(sum(map(len, task.blocks)))) for task in tasks],
    )
    return generate("respond", requests, generation, store, fleet)


def _without_repeats(blocks: Iterable[tuple[Asked, ...]], generation: Generation) -> list[tuple[Asked, ...]]:
    """The blocks that ask something no block before them asks; an answer is generated once, and replayed elsewhere."""
    seen: set[str] = set()
    kept = []
    for block in blocks:
        keys = set(_keys(block, generation))
        if not keys & seen:
            kept.append(block)
        seen |= keys
    return kept


def _keys(block: Iterable[Asked], generation: Generation) -> list[str]:
    return [generation.key(Request(asked.prompt.token_ids)) for asked in block]


def _blocks(asked: Iterable[Asked]) -> list[tuple[Asked, ...]]:
    """The blocks that capture will have, each in the order of its questions."""
    by_group: dict[str, dict[str, Asked]] = defaultdict(dict)
    for each in asked:
        by_group[each.prompt.group][each.prompt.question_id] = each
    return [
        tuple(by_question[question_id] for question_id in question_ids)
        for _, by_question in sorted(by_group.items())
        for question_ids in question_blocks(by_question)
    ]


def _packed(blocks: Iterable[tuple[Asked, ...]]) -> list[tuple[tuple[Asked, ...], ...]]:
    """Blocks side by side in as few tasks as keep their order and the bound."""
    tasks: list[list[tuple[Asked, ...]]] = []
    room = 0
    for block in blocks:
        if not tasks or len(block) > room:
            tasks.append([])
            room = REQUESTS_PER_TASK
        tasks[-1].append(block)
        room -= len(block)
    return [tuple(task) for task in tasks]
