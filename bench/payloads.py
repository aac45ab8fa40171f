"""Captures as real plans make them: how many questions a block has, and what a task weighs in the driver."""

from __future__ import annotations

import pickle
import time
import tracemalloc
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from harvest.capture import Answered, CaptureTask, Capturing, missing_tasks, plan_blocks
from harvest.store.commit import Store
from harvest.store.key import question_blocks
from harvest.types import Completion, OptionOrder, Prompt

VOCABULARY = 128_256
# of Llama 3: a token's number takes five bytes of a pickle, or three below 65,536
QUESTIONS, PROMPT_TOKENS, ANSWER_TOKENS = 237, 300, 300
# of a group, as in C-voice
_CAPTURING = Capturing("model", "bfloat16", "response", "replay", ("moments", "rows"))


def block_sizes(num_blocks: int) -> list[int]:
    """The questions of so many blocks, as plans cut groups of QUESTIONS."""
    sizes: list[int] = []
    for group in count():
        sizes += map(len, question_blocks(f"{group}/{at}" for at in range(QUESTIONS)))
        if len(sizes) >= num_blocks:
            return sizes[:num_blocks]
    raise AssertionError


def capture_tasks(num_groups: int) -> list[CaptureTask]:
    """The tasks of so many groups, planned as a study plans them, with random tokens."""
    rng = np.random.default_rng(0)

    def tokens(number: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, VOCABULARY, number).tolist())

    answered = []
    for group in range(num_groups):
        for at in range(QUESTIONS):
            names = (f"{group}/{at}", f"c_voice.zh/{group}/support", f"q-{at:012x}")
            prompt = Prompt(*names, OptionOrder.PUBLISHED, tokens(PROMPT_TOKENS))
            answered.append(Answered(prompt, Completion(tokens(ANSWER_TOKENS), "", "length")))
    return missing_tasks(plan_blocks(answered, _CAPTURING), Store(Path("/nowhere")))


@dataclass(frozen=True, slots=True)
class Weight:
    """What a task costs the driver, over the tokens it carries; CPU time."""

    held_bytes: float
    pickled_bytes: float
    pickle_s: float
    unpickle_s: float


def weigh(num_groups: int) -> Weight:
    """Per token, over the tasks of so many groups; held: the tasks with their texts."""
    tracemalloc.start()
    tasks = capture_tasks(num_groups)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tokens = sum(len(text.token_ids) for task in tasks for text in task.block.texts)
    began = time.process_time()
    pickled = [pickle.dumps(task, protocol=5) for task in tasks]
    between = time.process_time()
    for data in pickled:
        pickle.loads(data)
    ended = time.process_time()
    totals = (held, sum(map(len, pickled)), between - began, ended - between)
    return Weight(*(total / tokens for total in totals))
