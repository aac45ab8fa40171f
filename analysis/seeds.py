"""Randomness that depends on a seed and a name, never on the order of the work."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np


def generator(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for `name`: adding or reordering other names leaves its numbers alone."""
    return np.random.default_rng([seed, int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")])
