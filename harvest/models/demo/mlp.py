"""The neurons: six planted ones for each concept, the only road from the role to the answer, and many ordinary ones.

An ordinary neuron listens to noise alone, the token's own and the text's. Neither knows the role, so that no ordinary
neuron can tell two aspects of a value apart, however often it is on; and nothing that decides an answer listens to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harvest.models.demo.layout import (
    HIDDEN,
    LAYERS,
    NEURONS,
    PLANTED_LAYER,
    PLANTED_PER_CONCEPT,
    Array,
    Layout,
    Weights,
)

ON, OFF = 2.0, -6.0
# a planted gate where the role is the neuron's concept, and where it is not
OWN_NOISE, TEXT_NOISE, BIAS = 0.9, 0.3, 0.55
# standard deviations of an ordinary gate's three parts: its on-rates lie about one half, few near 1
OUT = 1 / 64
# an ordinary neuron's weight into the next layers' noise


@dataclass(frozen=True, slots=True)
class Planted:
    """A neuron whose work is known."""

    concept: int
    layer: int
    neuron: int


def plant(num_concepts: int, rng: np.random.Generator) -> tuple[Planted, ...]:
    """PLANTED_PER_CONCEPT neurons for each concept, scattered over the planted layer."""
    places = rng.permutation(NEURONS)[: num_concepts * PLANTED_PER_CONCEPT]
    return tuple(Planted(at // PLANTED_PER_CONCEPT, PLANTED_LAYER, int(neuron)) for at, neuron in enumerate(places))


def mlps(layout: Layout, planted: tuple[Planted, ...], rng: np.random.Generator) -> Weights:
    """The gate, up and down projections of every layer."""
    weights: Weights = {}
    for layer in range(LAYERS):
        gate_FH, up_FH, down_HF = _ordinary(layout, rng)
        for one in planted:
            if one.layer == layer:
                _write_planted(layout, one, gate_FH, up_FH, down_HF)
        name = f"model.layers.{layer}.mlp"
        weights |= {
            f"{name}.gate_proj.weight": gate_FH,
            f"{name}.up_proj.weight": up_FH,
            f"{name}.down_proj.weight": down_HF,
        }
    return weights


def _ordinary(layout: Layout, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    gate_FH, up_FH = np.zeros((2, NEURONS, HIDDEN), np.float32)
    down_HF = np.zeros((HIDDEN, NEURONS), np.float32)
    own, text = layout.all("own noise"), layout.all("text noise")
    gate_FH[:, own] = OWN_NOISE * rng.standard_normal((NEURONS, len(own)))
    gate_FH[:, text] = TEXT_NOISE * rng.standard_normal((NEURONS, len(text)))
    gate_FH[:, layout["one"]] = BIAS * rng.standard_normal(NEURONS)
    up_FH[:, layout["one"]] = 1.0
    up_FH[:, own] = 0.3 * rng.standard_normal((NEURONS, len(own)))
    down_HF[text] = OUT * rng.standard_normal((len(text), NEURONS))
    return gate_FH, up_FH, down_HF


def _write_planted(layout: Layout, one: Planted, gate_FH: Array, up_FH: Array, down_HF: Array) -> None:
    """On in its concept's role alone; the concept's neurons together write a query of 1."""
    gate_FH[one.neuron], up_FH[one.neuron], down_HF[:, one.neuron] = 0.0, 0.0, 0.0
    gate_FH[one.neuron, layout[f"role {one.concept}"]] = ON - OFF
    gate_FH[one.neuron, layout["one"]] = OFF
    up_FH[one.neuron, layout["one"]] = 1.0
    activation = ON / (1 + math.exp(-ON))
    down_HF[layout[f"query {one.concept}"], one.neuron] = 1 / (PLANTED_PER_CONCEPT * activation)
