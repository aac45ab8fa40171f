"""What engines take of the machines: one node each where they fit so, stages on several where they don't."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import PlacementImpossible
from cluster.placement import Node, Shape, check_fit
from harvest.engine.options import EngineOptions, bound_cores, engine_environment
from harvest.engine.shape import placed
from harvest.errors import EngineError

ONE = EngineOptions(Path("m"), cpu_threads=2)
EIGHT = [Node(96, 8, "gpu-1"), Node(96, 8, "gpu-2")]


def test_without_a_gpu_an_engine_takes_its_threads() -> None:
    assert placed(ONE, [Node(8, 0)], 2, 1) == (ONE, Shape(2))
    cut = replace(ONE, tensor_parallel=2)
    assert placed(cut, [Node(8, 0)], 2, 1) == (cut, Shape(4))


def test_a_small_model_takes_the_share_of_a_gpu_that_the_study_gives_it() -> None:
    options, shape = placed(ONE, EIGHT, 64, 0.25)
    assert (options.gpu_share, options.executor, shape) == (0.25, "mp", Shape(2, 0.25))
    check_fit(EIGHT, 64, shape)
    with pytest.raises(PlacementImpossible, match="room for 64"):
        check_fit(EIGHT, 65, shape)


@pytest.mark.parametrize(
    ("tensor", "pipeline", "num_engines", "executor", "num_parts"),
    [
        (8, 1, 2, "mp", 1),
        (4, 2, 2, "mp", 1),
        (8, 2, 1, "ray", 2),
        (2, 6, 1, "ray", 6),
        (2, 3, 2, "mp", 1),
        (4, 1, 9, "mp", 1),  # too many, which the pool refuses
    ],
)
def test_stages_leave_a_node_only_where_they_must(
    tensor: int, pipeline: int, num_engines: int, executor: str, num_parts: int
) -> None:
    options = replace(ONE, tensor_parallel=tensor, pipeline_parallel=pipeline)
    found, shape = placed(options, EIGHT, num_engines, 1)
    assert (found.executor, shape.num_parts) == (executor, num_parts)
    assert shape.num_gpus == tensor * pipeline
    assert shape.part.num_gpus == (tensor if num_parts > 1 else tensor * pipeline)


def test_405b_on_one_machine_says_what_is_missing_and_where() -> None:
    options = replace(ONE, tensor_parallel=8, pipeline_parallel=2)
    _, shape = placed(options, EIGHT[:1], 1, 1)
    with pytest.raises(PlacementImpossible, match=r"gpu-1 \(96 CPUs, 8 GPUs\) holds 1 parts, .* add 16 CPUs and 8"):
        check_fit(EIGHT[:1], 1, shape)


def test_a_stage_that_no_node_holds_is_refused_with_the_way_out() -> None:
    with pytest.raises(EngineError, match=r"tensor_parallel: 16 GPUs .* gpu-1, which has the most, has 8; lower it"):
        placed(replace(ONE, tensor_parallel=16), EIGHT, 1, 1)


def test_ranks_in_a_placement_group_stand_in_the_order_of_its_bundles() -> None:
    options = replace(ONE, tensor_parallel=2, pipeline_parallel=2)
    assert "VLLM_RAY_BUNDLE_INDICES" not in engine_environment(options)
    environment = engine_environment(replace(options, executor="ray", device="gpu"))
    assert environment["VLLM_RAY_BUNDLE_INDICES"] == "0,1,2,3"


def test_a_driver_with_few_cores_may_start_wide_engines_elsewhere() -> None:
    wide = replace(ONE, tensor_parallel=512)
    engine_environment(wide)
    assert bound_cores(replace(wide, device="gpu"), 0) == {}
    with pytest.raises(EngineError, match="need 1024 cores"):
        bound_cores(wide, 0)
