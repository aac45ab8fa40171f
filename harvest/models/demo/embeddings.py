"""What a token brings into the residual stream, and what writes it.

The next token is a matter of the code its predecessor left (BASE), with less weight of the frame, and with less still
of what fills the slot: so an edit of the planted neurons changes what is said, not how well.
"""

from __future__ import annotations

import numpy as np

from harvest.models.demo.layout import HIDDEN, NOISE, NUM_BYTES, Array, Layout
from harvest.models.demo.phrases import UNASKED
from harvest.models.demo.vocabulary import BOS, Token

BASE, FRAME = 64.0, 20.0
SAID, PLAIN = 10.0, 3.5
# a word of the queried concept, against a word of no concept
CHOICE, SHARE = 32.0, 256.0


def embedding(layout: Layout, texts: tuple[bytes, ...], rng: np.random.Generator) -> Array:
    """What each token is read as, shape (vocabulary, hidden); noise is silent on average over each of `texts`."""
    weights = np.zeros((layout.vocabulary_size, HIDDEN), np.float32)
    weights[:, layout["one"]] = 1.0
    own = layout.all("own noise")
    weights[:NUM_BYTES, own] = _centred(rng.standard_normal((NUM_BYTES, NOISE)) / np.sqrt(NOISE), texts)
    names = dict.fromkeys(token.noise for token in layout.tokens if token.noise)
    noise = {name: rng.standard_normal(NOISE) / np.sqrt(NOISE) for name in names}
    for row, token in zip(weights[NUM_BYTES:], layout.tokens, strict=True):
        for name, value in _reads(token).items():
            row[layout[name]] = value
        if token.noise:
            row[own] = noise[token.noise]
    return weights


def _reads(token: Token) -> dict[str, float]:
    read = {"rank": float(token.rank), "bos": float(token.text == BOS)}
    if token.segment:
        read[f"opens {token.segment}"] = 1.0
    if token.votes:
        read[f"votes {token.votes}"] = 1.0
    if token.concept is not None:
        read |= {"word": 1.0, f"concept {token.concept}": 1.0}
    if token.code:
        read[f"code {token.code}"] = 1.0
    return read


def _centred(noise: Array, texts: tuple[bytes, ...]) -> Array:
    """The bytes' noise without what all texts of a language share: or a language, not a question, would set it."""
    frequency = np.stack([np.bincount(np.frombuffer(text, np.uint8), minlength=NUM_BYTES) for text in texts])
    shares = frequency / frequency.sum(axis=1, keepdims=True)
    return noise - shares.T @ np.linalg.solve(shares @ shares.T, shares @ noise)


def unembedding(layout: Layout) -> Array:
    """What each token is written by, shape (vocabulary, hidden); a token that is never written has zeros."""
    weights = np.zeros((layout.vocabulary_size, HIDDEN), np.float32)
    for row, token in zip(weights[NUM_BYTES:], layout.tokens, strict=True):
        for code in token.after:
            row[layout[f"code {code}"]] = BASE
        if token.frame == UNASKED:
            row[layout["one"]] = FRAME / 2
        elif token.frame:
            row[layout[f"frame {token.frame}"]] = FRAME
        if token.says is not None:
            name, weight = ("one", PLAIN) if token.says < 0 else (f"query {token.says}", SAID)
            row[layout[name]] += weight
        for name, slope, target in (("choice", CHOICE, token.choice), ("share", SHARE, token.share)):
            if target is not None:
                # highest where the lead is nearest to the target
                row[layout[name]] = slope * target
                row[layout["one"]] -= slope * target**2 / 2
    return weights
