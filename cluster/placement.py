"""How many actors fit on the machines. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.errors import PlacementImpossible

_SLACK = 1e-6  # 3 × 0.1 CPUs fit into 0.3


@dataclass(frozen=True, slots=True)
class Node:
    """What one machine offers in all."""

    num_cpus: float
    num_gpus: float


def replicas_on(node: Node, num_cpus: float, num_gpus: float) -> int:
    """How many actors of this size fit on one node; a fraction of a GPU lies on one GPU."""
    rooms = []
    if num_cpus > 0:
        rooms.append(math.floor(node.num_cpus / num_cpus + _SLACK))
    if 0 < num_gpus < 1:
        rooms.append(math.floor(node.num_gpus) * math.floor(1 / num_gpus + _SLACK))
    elif num_gpus >= 1:
        rooms.append(math.floor(node.num_gpus / num_gpus + _SLACK))
    if not rooms:
        raise ValueError("an actor must ask for some CPU or GPU, or any number of them would fit")
    return min(rooms)


def check_fit(nodes: Sequence[Node], num_replicas: int, num_cpus: float, num_gpus: float) -> None:
    """Raises PlacementImpossible, saying what is lacking, unless all replicas fit, none split over nodes."""
    room = sum(replicas_on(node, num_cpus, num_gpus) for node in nodes)
    if room >= num_replicas:
        return
    have = f"{sum(n.num_cpus for n in nodes):g} CPUs and {sum(n.num_gpus for n in nodes):g} GPUs"
    missing = num_replicas - room
    raise PlacementImpossible(
        f"{num_replicas} actors of {num_cpus:g} CPUs and {num_gpus:g} GPUs each do not fit: {len(nodes)} node(s) with "
        f"{have} have room for {room}; ask for {missing} fewer, or add {missing * num_cpus:g} CPUs and "
        f"{missing * num_gpus:g} GPUs"
    )
