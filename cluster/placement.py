"""How many actors fit on the machines, and which nodes one of them takes. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.errors import PlacementImpossible

_SLACK = 1e-6  # 3 × 0.1 CPUs fit into 0.3
_SHOWN = 8  # nodes that an error names


@dataclass(frozen=True, slots=True)
class Node:
    """What one machine offers."""

    num_cpus: float
    num_gpus: float
    name: str = ""
    # as its owner knows it
    node_id: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one actor takes, in equal parts that each lie on one node."""

    num_cpus: float
    num_gpus: float = 0
    # a fraction lies on one GPU
    num_parts: int = 1
    # more than one: on as many nodes as it takes, each part of whole GPUs

    def __post_init__(self) -> None:
        if max(self.num_cpus, self.num_gpus) <= 0:
            raise ValueError("an actor must ask for some CPU or GPU, or any number of them would fit")
        if self.num_parts > 1 and (self.num_gpus < 1 or self.num_gpus % self.num_parts):
            raise ValueError(f"{self.num_gpus:g} GPUs cannot be cut into {self.num_parts} parts of whole GPUs")

    @property
    def part(self) -> Shape:
        """What one of the parts takes."""
        return Shape(self.num_cpus / self.num_parts, self.num_gpus / self.num_parts)

    def __str__(self) -> str:
        whole = f"{self.num_cpus:g} CPUs and {self.num_gpus:g} GPUs"
        if self.num_parts == 1:
            return f"{whole} each"
        return f"{whole} each, in {self.num_parts} parts that each lie on one node,"


def parts_on(node: Node, shape: Shape) -> int:
    """How many parts of such an actor fit on one node."""
    part, rooms = shape.part, []
    if part.num_cpus > 0:
        rooms.append(math.floor(node.num_cpus / part.num_cpus + _SLACK))
    if 0 < part.num_gpus < 1:
        rooms.append(math.floor(node.num_gpus) * math.floor(1 / part.num_gpus + _SLACK))
    elif part.num_gpus >= 1:
        rooms.append(math.floor(node.num_gpus / part.num_gpus + _SLACK))
    return min(rooms)


def room(nodes: Sequence[Node], shape: Shape) -> int:
    """How many such actors fit on all nodes."""
    return sum(parts_on(node, shape) for node in nodes) // shape.num_parts


def choose(nodes: Sequence[Node], shape: Shape) -> list[Node] | None:
    """The node of each part, as few different ones as possible; None where they do not fit."""
    rooms = [(parts_on(node, shape), node) for node in nodes]
    # the smallest that holds them all, or else the largest ones
    whole = [(parts, node) for parts, node in rooms if parts >= shape.num_parts]
    ordered = [min(whole, key=_by_room)] if whole else sorted(rooms, key=_by_room, reverse=True)
    seats = [node for parts, node in ordered for _ in range(parts)]
    return seats[: shape.num_parts] if len(seats) >= shape.num_parts else None


def _by_room(pair: tuple[int, Node]) -> tuple[int, str]:
    return pair[0], pair[1].node_id


def check_fit(nodes: Sequence[Node], num_actors: int, shape: Shape) -> None:
    """Raises PlacementImpossible, saying what is lacking and what each node has, unless all actors fit."""
    fitting = room(nodes, shape)
    missing = num_actors - fitting
    if missing <= 0:
        return
    ask = f"ask for {missing} fewer, or add" if fitting else "add"
    part = shape.part
    # parts that are left over on the nodes there are complete the first of the missing actors
    parts = num_actors * shape.num_parts - sum(parts_on(node, shape) for node in nodes)
    rest = f"{parts * part.num_cpus:g} CPUs and {parts * part.num_gpus:g} GPUs"
    each = f", {part.num_gpus:g} GPUs to a node" if part.num_gpus > 1 else ""
    raise PlacementImpossible(
        f"{num_actors} actors of {shape} do not fit: {_offer(nodes, shape)}, room for {fitting}; {ask} {rest}{each}"
    )


def _offer(nodes: Sequence[Node], shape: Shape) -> str:
    """What each node has, and how much of the shape it holds."""
    what = "actors" if shape.num_parts == 1 else "parts"
    texts = [
        f"{node.name or 'a node'} ({node.num_cpus:g} CPUs, {node.num_gpus:g} GPUs) holds {parts_on(node, shape)} {what}"
        for node in nodes[:_SHOWN]
    ]
    if len(nodes) > _SHOWN:
        texts.append(f"{len(nodes) - _SHOWN} more nodes hold {sum(parts_on(n, shape) for n in nodes[_SHOWN:])} {what}")
    return ", ".join(texts) or "there is no node"
