"""The nouns that travel between rooms. All frozen; arrays are read-only by convention.

Axes: Q questions of a unit, L layers, F neurons of a layer (`intermediate_size`).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

OPPOSITE_ASPECT = {"support": "conflict", "conflict": "support", "positive": "opposing", "opposing": "positive"}


def compact(token_ids: Sequence[int]) -> Sequence[int]:
    """The same tokens in 4 bytes each; as ints of a tuple they take 36, and a study has hundreds of millions."""
    return token_ids if isinstance(token_ids, array) else array("i", token_ids)


class OptionOrder(StrEnum):
    """Which of a dilemma's two options is shown as A."""

    PUBLISHED = "published"
    SWAPPED = "swapped"


class Half(StrEnum):
    """The half of the questions that a step may look at."""

    IDENTIFY = "identify"
    EVALUATE = "evaluate"
    ALL = "all"


def question_bits(question_id: str) -> int:
    """A 64-bit number that depends on the question's id alone; orders, blocks and halves come from it."""
    return int.from_bytes(blake2b(question_id.encode(), digest_size=8).digest(), "big")


_REPEAT = re.compile(r"(q-[0-9a-f]{12})~\d+")
# the id of a question whose contents stood in its file before, as harvest.benchmarks gives it


def half_of(question_id: str) -> Half:
    """The half a question belongs to, for ever: the lowest bit of its hash.

    A question that stands twice in a file goes where the first one goes: it must not be found on and judged by.
    """
    repeat = _REPEAT.fullmatch(question_id)
    return Half.EVALUATE if question_bits(repeat.group(1) if repeat else question_id) & 1 else Half.IDENTIFY


@dataclass(frozen=True, slots=True)
class Item:
    """One question asked under one aspect of a value."""

    question_id: str
    # the same under every aspect the question is asked under
    benchmark: str
    # "<name>.<language>", e.g. "c_voice.zh"
    value: str
    aspect: str
    # a key of OPPOSITE_ASPECT
    language: str
    question: str
    # the dilemma, or the situational question
    prized: str = ""
    # the value's name that the role is raised to prize; "" where a description does that
    options: tuple[str, str] | None = None
    # (the value's option, the conflicting one), as published; None for an open question
    description: str = ""
    description_id: str = ""

    @property
    def group(self) -> str:
        return f"{self.benchmark}/{self.value}/{self.aspect}"

    @property
    def item_id(self) -> str:
        return f"{self.group}/{self.question_id}"


def opposite_group(group: str) -> str:
    """The group of the same benchmark and value under the opposing aspect.

    Raises KeyError if the group's aspect has no opposite.
    """
    head, _, aspect = group.rpartition("/")
    return f"{head}/{OPPOSITE_ASPECT[aspect]}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """An item as the model reads it: token ids, rendered once by its chat template, unpadded."""

    item_id: str
    group: str
    question_id: str
    option_order: OptionOrder
    token_ids: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", compact(self.token_ids))


class EditPhase(StrEnum):
    """The tokens an edit touches; the last prompt token belongs to the prompt."""

    PROMPT = "prompt"
    RESPONSE = "response"
    BOTH = "both"


def phase_span(phase: str, answer_start: int, end: int) -> tuple[int, int]:
    """Positions [start, stop) of a phase in a text whose answer starts at `answer_start`, and that ends at `end`.

    Raises KeyError for a phase that is none of EditPhase.
    """
    return {"prompt": (0, answer_start), "response": (answer_start, end), "both": (0, end)}[phase]


@dataclass(frozen=True, slots=True)
class EditRow:
    """One condition's edits of the activation g: y = clip(g * scale + shift, floor, ceiling).

    All arrays have shape (edits,); an empty row is the identity. A (layer, neuron) stands at most once.
    """

    layer: NDArray[np.int32]
    neuron: NDArray[np.int32]
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]
    floor: NDArray[np.float32]
    ceiling: NDArray[np.float32]
    phase: EditPhase = EditPhase.BOTH

    @staticmethod
    def identity() -> EditRow:
        ints, floats = np.zeros(0, np.int32), np.zeros(0, np.float32)
        return EditRow(ints, ints, floats, floats, floats, floats)

    def __len__(self) -> int:
        return len(self.layer)


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, as sampled."""

    token_ids: Sequence[int]
    text: str
    finish_reason: str
    # "stop" or "length"

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", compact(self.token_ids))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is sampled; greedy unless a temperature is given."""

    max_tokens: int
    repetition_penalty: float = 1.0
    temperature: float = 0.0
    seed: int = 0

    def content(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit row and its fingerprint, which keys answers and salts the KV cache."""

    fingerprint: str
    row: EditRow


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to be answered under an edit; None leaves the model as it is."""

    prompt_token_ids: Sequence[int]
    edit: Edit | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A text to capture: the tokens to forward, and the positions [start, stop) that count."""

    token_ids: Sequence[int]
    count_start: int
    count_stop: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", compact(self.token_ids))

    @property
    def planned(self) -> int:
        """Tokens that must be counted."""
        return max(0, self.count_stop - self.count_start)
