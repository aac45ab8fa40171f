"""What every contender is given: the same texts, prompts and groups; and what they all do with the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np

from harvest.stats.rows import RequestRows
from harvest.stats.unit import fold_unit
from harvest.types import Completion, Sampling, Text

PROMPT_TOKENS = 48
MAX_MODEL_LEN = 512
_SHORTEST, _LONGEST = 128, 256
# of a text, in tokens

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Workload:
    """Texts to capture, of which the second half counts, and as many prompts to answer; the work of a unit or two."""

    texts: tuple[Text, ...]
    prompts: tuple[tuple[int, ...], ...]
    sampling: Sampling

    @property
    def text_tokens(self) -> int:
        return sum(len(text.token_ids) for text in self.texts)

    @property
    def counted_tokens(self) -> int:
        return sum(text.planned for text in self.texts)

    @property
    def answer_tokens(self) -> int:
        return len(self.prompts) * self.sampling.max_tokens

    def group_numbers(self) -> tuple[int, ...]:
        """1, 24 and 64, or as many groups as there are texts."""
        return tuple(sorted({min(number, len(self.texts)) for number in (1, 24, 64)}))

    @property
    def many(self) -> int:
        """24 groups: the twelve values of C-voice, each under two roles."""
        return min(24, len(self.texts))


def make_workload(num_texts: int, new_tokens: int) -> Workload:
    rng = np.random.default_rng(0)

    def tokens(number: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, 256, number).tolist())

    lengths = rng.integers(_SHORTEST, _LONGEST + 1, num_texts).tolist()
    texts = tuple(Text(tokens(length), length // 2, length) for length in lengths)
    prompts = tuple(tokens(PROMPT_TOKENS) for _ in range(num_texts))
    return Workload(texts, prompts, Sampling(new_tokens, repetition_penalty=1.1))


def grouped(members: Sequence[T], groups: int) -> list[Sequence[T]]:
    """The members in order, dealt to `groups` groups of sizes that differ by 1 at most."""
    bounds = [len(members) * at // groups for at in range(groups + 1)]
    return [members[start:stop] for start, stop in pairwise(bounds)]


def fold_groups(rows: RequestRows, groups: int) -> None:
    """Fold the rows of each group by itself, as a capture folds a unit."""
    for members in grouped(range(len(rows.num_tokens_Q)), groups):
        fold_unit(rows.of(slice(members[0], members[-1] + 1)))


def check_lengths(completions: Sequence[Completion], sampling: Sampling) -> None:
    """No answer ended early: all contenders did the same work."""
    assert all(len(done.token_ids) == sampling.max_tokens for done in completions)
