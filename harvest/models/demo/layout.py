"""Where everything lies: the residual stream's named dimensions and the checkpoint's sizes.

Every dimension means one thing, so that each weight can be written down. A normalisation would mix them; its epsilon
is so large beside any activation that it only divides by a constant, and its gain undoes that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harvest.models.demo.concepts import Concept
from harvest.models.demo.vocabulary import Token

Array = NDArray[np.float32]
Weights = dict[str, Array]

HIDDEN, LAYERS, NEURONS, HEADS, HEAD_DIM = 256, 3, 640, 4, 64
POSITIONS = 8192
NUM_BYTES = 256
NORM_EPS, NORM_GAIN = 2.0**20, 2.0**10
ROPE_THETA = 1e30
NOISE = 24
# dimensions each, of a token's own noise and of the text's
PLANTED_LAYER = 1
PLANTED_PER_CONCEPT = 6

# The rotary pairs 8 to 31 of a head turn by less than 0.001 over all positions: what is compared lies there.
STILL = (*range(8, 32), *range(40, 64))


@dataclass(frozen=True, slots=True)
class Layout:
    """The dimensions of the residual stream by name, and the tokens and concepts they were made for."""

    tokens: tuple[Token, ...]
    concepts: tuple[Concept, ...]
    dims: dict[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        return self.dims[name]

    def all(self, name: str) -> list[int]:
        """The dimensions `name 0`, `name 1`, … in order."""
        return [at for full, at in self.dims.items() if full.rpartition(" ")[0] == name]

    @property
    def vocabulary_size(self) -> int:
        return NUM_BYTES + len(self.tokens)


def lay_out(tokens: tuple[Token, ...], concepts: tuple[Concept, ...]) -> Layout:
    """A layout for these tokens; a dimension for each code that one of them leaves behind."""
    frames = dict.fromkeys(token.votes for token in tokens if token.votes)
    names = [
        *("one", "bos", "rank", "word"),
        *("opens role", "opens a", "opens b", "in role", "in a", "in b"),
        *(f"votes {frame}" for frame in frames),
        *(f"frame {frame}" for frame in frames),
        *(f"{part} {at}" for part in ("concept", "role", "query") for at in range(len(concepts))),
        *("choice", "share"),
        *(f"{part} {at}" for part in ("own noise", "text noise") for at in range(NOISE)),
        *(f"code {code}" for code in dict.fromkeys(token.code for token in tokens if token.code)),
    ]
    assert len(names) <= HIDDEN, f"{len(names)} names for {HIDDEN} dimensions"
    return Layout(tokens, concepts, {name: at for at, name in enumerate(names)})
