"""Where a pool's actors sit, as Ray sees it: an actor's options, and the placement group of one in several parts.

A group's bundles hold one GPU each and stand in the order of the parts; each is pinned to a node, because no strategy
of Ray's keeps a part together and lets the next one lie elsewhere. The actor sits in the first bundle.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from cluster.placement import Node, Shape, check_fit, choose, room

_LOOK_S = 2.0  # between two looks at the nodes; Ray itself takes some seconds to miss one


def machines() -> list[Node]:
    """What each living node of the cluster offers in all."""
    import ray

    return [_node(node, node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _idle() -> list[Node]:
    """What of that nobody has taken."""
    import ray
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    return [_node(node, free.get(node["NodeID"], {})) for node in ray.nodes() if node["Alive"]]


def _node(node: dict[str, Any], resources: dict[str, float]) -> Node:
    name = node.get("NodeName") or node["NodeManagerAddress"]
    return Node(resources.get("CPU", 0.0), resources.get("GPU", 0.0), name, node["NodeID"])


class Seats:
    """The placement groups of a pool's actors, by the actors' numbers; none where an actor has one part."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._groups: dict[int, tuple[Any, list[Node]]] = {}
        # and the node of each part
        self._looked = 0.0

    def check_fit(self, num_actors: int) -> None:
        """Raises PlacementImpossible unless the cluster, when idle, has room for so many."""
        check_fit(machines(), num_actors, self._shape)

    def room(self) -> int:
        """How many actors the machines that are up could hold, if nobody else used them."""
        return room(machines(), self._shape)

    def take(self, actor_id: int) -> dict[str, Any] | None:
        """An actor's options for Ray; None while no set of nodes could ever hold its parts."""
        shape = self._shape
        if shape.num_parts == 1:
            return {"num_cpus": shape.num_cpus, "num_gpus": shape.num_gpus}
        # nodes that others hold now are waited for
        nodes = choose(self._unclaimed(), shape) or choose(machines(), shape)
        if nodes is None:
            return None
        return self._seat(actor_id, nodes)

    def _seat(self, actor_id: int, nodes: list[Node]) -> dict[str, Any]:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        num_gpus = int(self._shape.part.num_gpus)
        num_cpus = self._shape.part.num_cpus / num_gpus
        places = [{"ray.io/node-id": node.node_id} for node in nodes for _ in range(num_gpus)]
        bundles = [{"GPU": 1.0, "CPU": num_cpus} for _ in places]
        group = ray.util.placement_group(bundles, strategy="PACK", bundle_label_selector=places)
        self._groups[actor_id] = (group, nodes)
        strategy = PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
        )
        # the GPUs are for the processes that the actor starts in its group
        return {"num_cpus": num_cpus, "num_gpus": 0, "scheduling_strategy": strategy}

    def _unclaimed(self) -> list[Node]:
        """Idle nodes, less what our own groups have asked for and not got yet."""
        part = self._shape.part
        waiting = [node.node_id for group, nodes in self._groups.values() if not _is_ready(group) for node in nodes]
        return [
            Node(
                node.num_cpus - waiting.count(node.node_id) * part.num_cpus,
                node.num_gpus - waiting.count(node.node_id) * part.num_gpus,
                node.name,
                node.node_id,
            )
            for node in _idle()
        ]

    def leave(self, actor_id: int) -> None:
        """Gives an actor's group back, and with it whatever still runs in it; does nothing if it has none."""
        import ray

        group, _ = self._groups.pop(actor_id, (None, []))
        if group is not None:
            ray.util.remove_placement_group(group)

    def look_is_due(self) -> bool:
        """Whether it is time to look at the nodes again: every few seconds, and only for actors of several parts."""
        now = time.monotonic()
        if self._shape.num_parts == 1 or now - self._looked < _LOOK_S:
            return False
        self._looked = now
        return True

    def broken(self) -> Iterator[tuple[int, str]]:
        """The actors with a part on a node that is gone, and why they cannot go on.

        Ray keeps such a group for ever, and the actor with it where only another part was lost.
        """
        alive = {node.node_id for node in machines()}
        for actor_id, (_, nodes) in list(self._groups.items()):
            gone = next((node for node in nodes if node.node_id not in alive), None)
            if gone is not None:
                yield actor_id, f"node {gone.name}, which held a part of it, is gone"


def _is_ready(group: Any) -> bool:
    import ray

    return bool(ray.util.placement_group_table(group)["state"] == "CREATED")
