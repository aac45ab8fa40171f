"""How many actors fit, and the sentence when they do not."""

from __future__ import annotations

import pytest

from cluster.errors import PlacementImpossible
from cluster.placement import Node, check_fit, replicas_on


@pytest.mark.parametrize(
    ("node", "num_cpus", "num_gpus", "replicas"),
    [
        (Node(2, 0), 1, 0, 2),
        (Node(0.3, 0), 0.1, 0, 3),
        (Node(64, 8), 1, 1, 8),
        (Node(64, 8), 1, 3, 2),
        (Node(4, 8), 1, 1, 4),
        (Node(64, 2), 1, 0.4, 4),  # two on each GPU: the fifth would have to lie across both
        (Node(64, 0), 1, 1, 0),
    ],
)
def test_replicas_on_a_node(node: Node, num_cpus: float, num_gpus: float, replicas: int) -> None:
    assert replicas_on(node, num_cpus, num_gpus) == replicas


def test_a_replica_is_not_split_over_nodes() -> None:
    check_fit([Node(8, 4), Node(8, 4)], 2, 1, 4)
    with pytest.raises(PlacementImpossible):
        check_fit([Node(8, 4), Node(8, 4)], 1, 1, 8)


def test_what_does_not_fit_says_what_it_lacks() -> None:
    with pytest.raises(PlacementImpossible, match=r"3 actors of 1 CPUs and 2 GPUs each .* room for 1; .* 4 GPUs"):
        check_fit([Node(8, 3)], 3, 1, 2)


def test_an_actor_that_asks_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="some CPU or GPU"):
        replicas_on(Node(2, 0), 0, 0)
