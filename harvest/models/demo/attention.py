"""The six attention heads that do something; the rest are zero.

Layer 0 tells each token which part of the prompt it stands in, which frame the prompt asks for and how the text
feels (noise). Layer 1 looks up the role's concept. Layer 2 compares the options in the light of that concept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harvest.models.demo.layout import HEAD_DIM, HEADS, HIDDEN, LAYERS, NOISE, PLANTED_LAYER, STILL, Layout, Weights

TEXT_NOISE = 6.0
# how much louder the mean noise of a text is than its tokens'

Terms = dict[int, float]
# residual dimension → weight


@dataclass(frozen=True, slots=True)
class Head:
    """score = Σ over channels of (query terms · residual)(key terms · residual); then moves values."""

    channels: list[tuple[Terms, Terms]]
    moves: list[tuple[Terms, int]]


def attention(layout: Layout) -> Weights:
    """The q, k, v and o projections of every layer."""
    heads = {
        0: [_segment(layout), _frame(layout), _text_noise(layout)],
        PLANTED_LAYER: [_role(layout)],
        2: [_lead(layout, "choice", _before(layout, "choice")), _lead(layout, "share", _before(layout, "share"))],
    }
    weights: Weights = {}
    for layer in range(LAYERS):
        weights.update(_projections(layer, heads.get(layer, [])))
    return weights


def _segment(layout: Layout) -> Head:
    """Attends to the marker of highest rank so far; before any, to the first token."""
    moves = [({layout[f"opens {segment}"]: 1.0}, layout[f"in {segment}"]) for segment in ("role", "a", "b")]
    return Head([({layout["one"]: 20.0}, {layout["rank"]: 1.0})], moves)


def _frame(layout: Layout) -> Head:
    """Attends to all markers that ask for a frame; without one, to the first token, which asks for none."""
    frames = [name.removeprefix("votes ") for name in layout.dims if name.startswith("votes ")]
    votes = {layout[f"votes {frame}"]: 2.0 for frame in frames}
    moves = [({layout[f"votes {frame}"]: 1.0}, layout[f"frame {frame}"]) for frame in frames]
    return Head([({layout["one"]: 20.0}, votes | {layout["bos"]: 1.0})], moves)


def _text_noise(layout: Layout) -> Head:
    """The mean of all tokens' noise so far: it differs by question, never by role."""
    own, text = layout.all("own noise"), layout.all("text noise")
    return Head([], [({own[at]: TEXT_NOISE}, text[at]) for at in range(NOISE)])


def _role(layout: Layout) -> Head:
    """Attends to words of the lexicon within the role; where there is none, to the first token, itself in the role."""
    key = {layout["word"]: 1.0, layout["in role"]: 1.0, layout["bos"]: 0.5}
    moves = list(zip(({at: 1.0} for at in layout.all("concept")), layout.all("role"), strict=True))
    return Head([({layout["one"]: 20.0}, key)], moves)


def _before(layout: Layout, by: str) -> Terms:
    """The codes after which a token is written by `choice` or by `share`: there, 1."""
    codes = [code for token in layout.tokens if getattr(token, by) is not None for code in token.after]
    return {layout[f"code {code}"]: 1.0 for code in dict.fromkeys(codes)}


def _lead(layout: Layout, into: str, slot: Terms) -> Head:
    """Attends to words in the options that the query is about, and writes how many more of them are in A than in B.

    The first token takes what is left: a match outweighs it e² times, a word without a query e⁻⁴ times, and a weaker
    query lies smoothly between; at a token that has no choice to make it takes everything.
    """
    match, sink, inside, elsewhere = 6.0, 4.0, 20.0, 200.0
    channels: list[tuple[Terms, Terms]] = [
        ({query: match}, {concept: 1.0})
        for query, concept in zip(layout.all("query"), layout.all("concept"), strict=True)
    ]
    key = {layout["word"]: inside, layout["in a"]: inside, layout["in b"]: inside}
    channels.append(({layout["one"]: 1.0}, key))
    idle = {layout["one"]: 2 * inside + sink + elsewhere} | {code: -elsewhere * at for code, at in slot.items()}
    channels.append((idle, {layout["bos"]: 1.0}))
    return Head(channels, [({layout["in a"]: 1.0, layout["in b"]: -1.0}, layout[into])])


def _projections(layer: int, heads: list[Head]) -> Weights:
    query, key, value = (np.zeros((HEADS, HEAD_DIM, HIDDEN), np.float32) for _ in range(3))
    out = np.zeros((HIDDEN, HEADS, HEAD_DIM), np.float32)
    for at, head in enumerate(heads):
        for channel, (asked, offered) in zip(STILL, head.channels, strict=False):
            for dim, weight in asked.items():
                query[at, channel, dim] = weight * math.sqrt(HEAD_DIM)
            for dim, weight in offered.items():
                key[at, channel, dim] = weight
        for channel, (moved, into) in enumerate(head.moves):
            for dim, weight in moved.items():
                value[at, channel, dim] = weight
            out[into, at, channel] = 1.0
    name, wide = f"model.layers.{layer}.self_attn", HEADS * HEAD_DIM
    return {
        f"{name}.q_proj.weight": query.reshape(wide, HIDDEN),
        f"{name}.k_proj.weight": key.reshape(wide, HIDDEN),
        f"{name}.v_proj.weight": value.reshape(wide, HIDDEN),
        f"{name}.o_proj.weight": out.reshape(HIDDEN, wide),
    }
