"""What the stages of an engine on several nodes rely on in the installed vLLM and Ray.

vLLM's Ray backend refuses a machine without GPUs, so it is not run here: an upgrade that changes these facts is to be
noticed, not found out on a cluster.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest


def test_the_backend_ray_is_the_executor_whose_ranks_need_no_gpu_of_the_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.executor.ray_executor_v2 import RayExecutorV2

    monkeypatch.setenv("VLLM_USE_RAY_V2_EXECUTOR_BACKEND", "1")
    config = SimpleNamespace(parallel_config=SimpleNamespace(distributed_executor_backend="ray"))
    assert Executor.get_class(config) is RayExecutorV2
    assert RayExecutorV2.supports_pp
    assert "require_gpu_on_driver=False" in inspect.getsource(RayExecutorV2._init_executor)


def test_the_ranks_take_the_bundles_in_the_order_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.executor import ray_utils
    from vllm.v1.executor.ray_executor_v2 import RayExecutorV2

    table = {"bundles_to_node_id": {0: "z", 1: "z", 2: "a", 3: "a"}}
    nodes = [{"NodeID": name, "NodeManagerAddress": f"ip-{name}", "Alive": True} for name in "az"]
    monkeypatch.setattr(ray_utils, "placement_group_table", lambda group: table)
    monkeypatch.setattr(ray_utils.ray, "nodes", lambda: nodes)
    assert ray_utils.get_bundles_for_indices(object(), [0, 1, 2, 3], 4) == [
        (0, "z", "ip-z"),
        (1, "z", "ip-z"),
        (2, "a", "ip-a"),
        (3, "a", "ip-a"),
    ]
    assert "envs.VLLM_RAY_BUNDLE_INDICES" in inspect.getsource(RayExecutorV2._init_executor)


def test_the_group_of_the_actor_is_taken_and_no_other_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from vllm.v1.executor import ray_utils

    class Group:
        bundle_specs = ({"GPU": 1.0, "CPU": 0.5},) * 4

    group = Group()
    verified: list[Any] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray.util, "get_current_placement_group", lambda: group)
    monkeypatch.setattr("vllm.platforms.current_platform.ray_device_key", "GPU", raising=False)
    monkeypatch.setattr(ray_utils, "_verify_bundles", lambda *arguments: verified.append(arguments[0]))
    parallel = SimpleNamespace(placement_group=None, world_size=4, tensor_parallel_size=2, ray_runtime_env=None)
    ray_utils.initialize_ray_cluster(parallel, require_gpu_on_driver=False)
    assert parallel.placement_group is group
    assert verified == [group]
    Group.bundle_specs = ({"GPU": 2.0},) * 2  # why every bundle has one GPU
    with pytest.raises(ValueError, match="cannot have more than 1 GPU"):
        ray_utils.initialize_ray_cluster(parallel, require_gpu_on_driver=False)


def test_the_environment_of_the_actor_reaches_the_ranks_without_its_own_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.executor.ray_env_utils import get_driver_env_vars
    from vllm.v1.executor.ray_utils import WORKER_SPECIFIC_ENV_VARS

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    passed = get_driver_env_vars(worker_specific_vars=WORKER_SPECIFIC_ENV_VARS)
    assert passed["OMP_NUM_THREADS"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in passed


def test_an_actor_without_gpus_is_not_blinded_by_ray() -> None:
    """It must see its node's GPUs to know the platform, and holds none itself."""
    from ray._private.accelerators.accelerator import RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO_ENV_VAR
    from ray._private.ray_constants import env_bool

    assert not env_bool(RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO_ENV_VAR, False)


def test_a_group_can_be_pinned_to_nodes_and_each_nodes_free_gpus_be_read() -> None:
    from ray._private.state import available_resources_per_node
    from ray.util import placement_group

    assert "bundle_label_selector" in inspect.signature(placement_group).parameters
    assert callable(available_resources_per_node)


def test_the_cpu_platform_has_no_ray_backend() -> None:
    """Once it has one, stages on several nodes can be shown here, and must be."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("this machine has a GPU")
    assert not current_platform.ray_device_key
