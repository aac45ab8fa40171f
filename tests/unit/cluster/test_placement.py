"""How many actors fit, where the parts of one go, and the sentence when they do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import PlacementImpossible
from cluster.placement import Node, Shape, check_fit, choose, parts_on, room


@pytest.mark.parametrize(
    ("node", "num_cpus", "num_gpus", "replicas"),
    [
        (Node(2, 0), 1, 0, 2),
        (Node(0.3, 0), 0.1, 0, 3),
        (Node(64, 8), 1, 1, 8),
        (Node(64, 8), 1, 3, 2),
        (Node(4, 8), 1, 1, 4),
        (Node(64, 2), 1, 0.25, 8),
        (Node(64, 2), 1, 0.4, 4),  # two on each GPU: the fifth would have to lie across both
        (Node(64, 0), 1, 1, 0),
    ],
)
def test_replicas_on_a_node(node: Node, num_cpus: float, num_gpus: float, replicas: int) -> None:
    assert parts_on(node, Shape(num_cpus, num_gpus)) == replicas


def test_a_replica_is_not_split_over_nodes() -> None:
    check_fit([Node(8, 4), Node(8, 4)], 2, Shape(1, 4))
    with pytest.raises(PlacementImpossible):
        check_fit([Node(8, 4), Node(8, 4)], 1, Shape(1, 8))


def test_one_in_parts_is_split_between_them_alone() -> None:
    check_fit([Node(8, 4), Node(8, 4)], 1, Shape(1, 8, num_parts=2))
    with pytest.raises(PlacementImpossible):  # six GPUs and two left over: the second part would lie on two nodes
        check_fit([Node(8, 6), Node(8, 2)], 1, Shape(1, 8, num_parts=2))


def test_what_does_not_fit_says_what_it_lacks() -> None:
    with pytest.raises(PlacementImpossible, match=r"3 actors of 1 CPUs and 2 GPUs each .* room for 1; .* 4 GPUs"):
        check_fit([Node(8, 3)], 3, Shape(1, 2))


def test_a_large_model_on_too_small_a_machine_is_told_what_each_node_holds() -> None:
    with pytest.raises(PlacementImpossible) as refused:
        check_fit([Node(96, 8, "gpu-1"), Node(4, 0, "head")], 1, Shape(16, 16, num_parts=2))
    assert str(refused.value) == (
        "1 actors of 16 CPUs and 16 GPUs each, in 2 parts that each lie on one node, do not fit: gpu-1 (96 CPUs, "
        "8 GPUs) holds 1 parts, head (4 CPUs, 0 GPUs) holds 0 parts, room for 0; add 8 CPUs and 8 GPUs, 8 GPUs to a "
        "node"
    )


def test_hundreds_of_nodes_make_no_page_of_error() -> None:
    with pytest.raises(PlacementImpossible, match="292 more nodes hold 292 actors") as refused:
        check_fit([Node(8, 1, f"gpu-{i}") for i in range(300)], 301, Shape(1, 1))
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(("num_cpus", "num_gpus", "num_parts"), [(0, 0, 1), (1, 3, 2), (1, 0.5, 2), (1, 0, 2)])
def test_a_shape_that_means_nothing_is_refused(num_cpus: float, num_gpus: float, num_parts: int) -> None:
    with pytest.raises(ValueError, match=r"some CPU or GPU|parts of whole GPUs"):
        Shape(num_cpus, num_gpus, num_parts)


nodes = st.lists(st.builds(Node, st.integers(0, 16), st.integers(0, 8)), max_size=6).map(
    lambda found: [Node(node.num_cpus, node.num_gpus, f"n{i}", f"{i}") for i, node in enumerate(found)]
)


@given(nodes, st.integers(1, 4), st.integers(1, 4))
def test_every_actor_that_has_room_is_placed_and_no_other(offers: list[Node], size: int, num_parts: int) -> None:
    shape = Shape(num_parts, size * num_parts, num_parts)
    left, placed = offers, 0
    while (chosen := choose(left, shape)) is not None:
        assert len(chosen) == num_parts
        left = [_less(node, [part.node_id for part in chosen].count(node.node_id), size) for node in left]
        assert min(min(node.num_cpus, node.num_gpus) for node in left) >= 0, "more was taken than there is"
        placed += 1
    assert placed == room(offers, shape)


def _less(node: Node, parts: int, size: int) -> Node:
    return Node(node.num_cpus - parts, node.num_gpus - parts * size, node.name, node.node_id)


@given(nodes, st.integers(1, 4), st.integers(1, 4))
def test_an_actor_lies_on_as_few_nodes_as_can_hold_it(offers: list[Node], size: int, num_parts: int) -> None:
    shape = Shape(num_parts, size * num_parts, num_parts)
    chosen = choose(offers, shape)
    if chosen is None:
        return
    most = sorted((parts_on(node, shape) for node in offers), reverse=True)
    fewest = next(number for number in range(1, num_parts + 1) if sum(most[:number]) >= num_parts)
    assert len({node.node_id for node in chosen}) == fewest
    assert [node.node_id for node in chosen] == sorted(
        (node.node_id for node in chosen), key=[node.node_id for node in chosen].index
    ), "a node's parts stand together"
