"""What an engine takes of the machines, and how its ranks find one another there. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cluster.placement import Node, Shape, room
from harvest.engine.options import EngineOptions
from harvest.errors import EngineError


def placed(
    options: EngineOptions, nodes: Sequence[Node], num_engines: int, gpus_per_engine: float
) -> tuple[EngineOptions, Shape]:
    """The options and the shape of engines for these nodes: on one node each where all of them fit so, or in stages.

    On GPUs if any node has one; `gpus_per_engine` is then the share of an engine of one rank. Raises EngineError for a
    stage that no node can hold; whether there is room for all engines is for the pool to say.
    """
    num_cpus = float(options.cpu_threads * options.num_ranks)
    most = max(nodes, key=lambda node: node.num_gpus, default=Node(0, 0))
    if most.num_gpus == 0:
        return options, Shape(num_cpus)
    if options.num_ranks == 1:
        return replace(options, device="gpu", gpu_share=gpus_per_engine), Shape(num_cpus, gpus_per_engine)
    if options.tensor_parallel > most.num_gpus:
        raise EngineError(
            f"model.tensor_parallel: {options.tensor_parallel} GPUs have to be on one node, and {most.name}, which has "
            f"the most, has {most.num_gpus:g}; lower it, and raise model.pipeline_parallel, whose stages may lie on "
            "several nodes"
        )
    whole = Shape(num_cpus, options.num_ranks)
    if options.pipeline_parallel == 1 or room(nodes, whole) >= num_engines:
        return replace(options, device="gpu"), whole
    # all of them then: engines that run alike give the same last bits
    in_stages = Shape(num_cpus, options.num_ranks, options.pipeline_parallel)
    return replace(options, device="gpu", executor="ray"), in_stages
