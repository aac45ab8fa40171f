"""How an engine is opened. Nothing here imports vLLM: a driver plans engines that other processes open."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from harvest.errors import EngineError


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """An engine's settings; what changes an answer or an activation beyond rounding is in the content keys too."""

    model: Path
    dtype: str = "bfloat16"
    max_model_len: int = 2048
    # tokens, prompt and answer together
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    # stages; each holds some of the layers
    max_num_seqs: int = 256
    # requests decoded at once
    max_num_batched_tokens: int = 8192
    num_slots: int = 65
    # the sink, and one for each request that is counted at once; a unit has at most 64 questions
    holds: int = 16
    # single tokens that a slot holds back before they are folded together
    fold: Literal["auto", "native", "torch", "triton"] = "auto"
    # how activations are folded: compiled for the processor or the GPU, or in plain torch; auto takes the fastest
    product: Literal["stock", "fused"] = "stock"
    # fused: the Triton fold computes act(gate) * up too, once it is proven to give the stock module's bits
    compiled: bool = False
    own_process: bool = False
    # the engine's core beside this process instead of in it; a unit's rows must fit in one message of 4 GiB
    routed_experts: Literal["refuse", "skip"] = "refuse"
    probe: bool = True
    # False opens the stock worker: the control of the no-op tests
    cpu_threads: int = 1
    device: Literal["cpu", "gpu"] = "cpu"
    # what the ranks' threads are bound for: a GPU's are not
    gpu_share: float = 1
    # of one GPU, where several engines share it
    executor: Literal["mp", "ray"] = "mp"
    # of several ranks: processes of one node, or Ray actors in this actor's placement group, on as many as it has
    kv_cache_gib: int = 1
    # on the CPU; a GPU gives what is left
    extra: dict[str, object] = field(default_factory=dict)
    # passed to vllm.LLM as they are
    fingerprint: str | None = None
    # of the checkpoint that was planned for, and no other is run; None: whatever is there
    tokenizer: str | None = None
    # digest of the one that was planned for, likewise

    @property
    def num_ranks(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel

    def provenance(self) -> dict[str, object]:
        return {**asdict(self), "model": str(self.model)}


def engine_environment(options: EngineOptions) -> dict[str, str]:
    """What must be in the environment before torch and vLLM are imported, whatever the machine."""
    environment = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(options.own_process)),
        # an actor's process is the engine's own already
        "VLLM_USE_V2_MODEL_RUNNER": os.environ.get("VLLM_USE_V2_MODEL_RUNNER", "0"),
        # V1 unless somebody asks: the probe reads both, but only V1 was shown in whole studies
        "VLLM_CPU_KVCACHE_SPACE": str(options.kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(options.cpu_threads),
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if options.executor == "ray":
        environment["VLLM_USE_RAY_V2_EXECUTOR_BACKEND"] = "1"
        # rank i in bundle i: vLLM would sort the nodes by their ids, and a stage could begin in the middle of one
        environment["VLLM_RAY_BUNDLE_INDICES"] = ",".join(map(str, range(options.num_ranks)))
    return environment


def bound_cores(options: EngineOptions, place: int) -> dict[str, str]:
    """The environment that binds each rank's threads to cores of its own; empty for one rank, and on GPUs.

    They are cores that this process may use; engines at other places take others, while there are enough. Raises
    EngineError if there are too few for one engine.
    """
    if options.num_ranks == 1 or options.device == "gpu":
        return {}
    cores = sorted(os.sched_getaffinity(0))
    size = options.num_ranks * options.cpu_threads
    if len(cores) < size:
        raise EngineError(
            f"{options.num_ranks} ranks of {options.cpu_threads} threads need {size} cores, and this process may use "
            f"{len(cores)}; lower model.tensor_parallel, model.pipeline_parallel or cluster.cpu_threads"
        )
    start = place % (len(cores) // size) * size
    ranks = [cores[at : at + options.cpu_threads] for at in range(start, start + size, options.cpu_threads)]
    return {"VLLM_CPU_OMP_THREADS_BIND": "|".join(",".join(map(str, rank)) for rank in ranks)}
