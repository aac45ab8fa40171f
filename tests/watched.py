"""An engine whose every step is watched: what the adapter tells is held against the runner's own positions.

A program, because the model runner is chosen by environment variables that vLLM and Triton read when imported. The
V2 runner's kernels are Triton's; without a GPU they run in Triton's interpreter, which vLLM has to be told is there.
"""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np


def open_the_way(runner: str, is_async: bool) -> None:
    """Before vLLM is imported: which runner, and that the CPU may schedule ahead, which its platform turns off."""
    os.environ.update({"VLLM_USE_V2_MODEL_RUNNER": str(int(runner == "v2")), "VLLM_CPU_KVCACHE_SPACE": "1"})
    os.environ.update({"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"})
    if runner == "v2":
        os.environ["TRITON_INTERPRET"] = "1"
        from triton.backends import backends

        backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True))
    if is_async:
        from vllm.platforms.cpu import CpuPlatform

        stock = CpuPlatform.check_and_update_config

        def ahead(config: Any) -> None:
            stock(config)
            config.scheduler_config.async_scheduling = True

        CpuPlatform.check_and_update_config = staticmethod(ahead)


def watching_worker() -> type:
    """The CPU's worker, which notes what it is told; made late, see above."""
    from vllm.v1.worker.cpu_worker import CPUWorker

    from harvest.engine.batches import arrivals, attach

    class WatchedWorker(CPUWorker):
        def compile_or_warm_up_model(self) -> Any:
            times = super().compile_or_warm_up_model()
            self.clear()
            attach(self.model_runner, self.before, self.after)
            self.model_runner._dummy_run(4)
            return times

        def clear(self) -> None:
            self.steps: list[list[tuple[str, int, int]]] = []
            self.num_after = 0
            self.keys: dict[str, int] = {}
            self.preempted: set[str] = set()

        def execute_model(self, scheduler_output: Any) -> Any:
            self.keys |= {name: ticket.key for name, ticket in arrivals(scheduler_output).items()}
            self.preempted |= scheduler_output.preempted_req_ids
            return super().execute_model(scheduler_output)

        def before(self, stretches: list[Any]) -> None:
            told = [np.arange(each.position, each.position + each.length) for each in stretches]
            runner = self.model_runner
            holder = getattr(runner, "input_buffers", runner)
            own = holder.positions[: sum(map(len, told))].numpy()
            np.testing.assert_array_equal(np.concatenate(told), own)
            self.steps.append([(each.request_id, each.position, each.length) for each in stretches])

        def after(self) -> None:
            self.num_after += 1

        def watched(self) -> dict[str, Any]:
            steps = [[(self.keys[name], *at) for name, *at in step] for step in self.steps]
            preempted = sorted(self.keys[name] for name in self.preempted)
            runner = "v2" if hasattr(self.model_runner, "model_state") else "v1"
            found = {"runner": runner, "steps": steps, "after": self.num_after, "preempted": preempted}
            self.clear()
            return found

    return WatchedWorker


def __getattr__(name: str) -> type:
    if name == "WatchedWorker":
        return watching_worker()
    raise AttributeError(name)


def main(checkpoint: str, runner: str, scheduling: str, lengths: list[int]) -> None:
    """Three rounds of prompts of these lengths: prefilled only, with 40 tokens each, and stopped at a token."""
    open_the_way(runner, scheduling == "async")
    from vllm import LLM, SamplingParams

    from harvest.probe.router import Ticket

    llm = LLM(
        checkpoint, dtype="float32", max_model_len=160, max_num_seqs=8, max_num_batched_tokens=48, enforce_eager=True,
        seed=0, worker_cls="watched.WatchedWorker", block_size=32, num_gpu_blocks_override=8,
    )  # fmt: skip
    prompts = [
        {"prompt_token_ids": [(7 * key + at * (key + 1)) % 256 for at in range(length)]}
        for key, length in enumerate(lengths)
    ]

    def ask(max_tokens: int, stop: list[int]) -> dict[str, Any]:
        common = SamplingParams(
            temperature=0, max_tokens=max_tokens, ignore_eos=True, stop_token_ids=stop, detokenize=False,
            skip_reading_prefix_cache=True,
        )  # fmt: skip
        params = [common.clone() for _ in lengths]
        for key, each in enumerate(params):
            each.extra_args = Ticket(key).to_extra_args()
        answers = [list(output.outputs[0].token_ids) for output in llm.generate(prompts, params, use_tqdm=False)]
        (watched,) = llm.collective_rpc("watched")
        return {**watched, "answers": answers}

    prefilled, answered = ask(1, []), ask(40, [])
    stopped = ask(40, [answered["answers"][0][3]])
    print(json.dumps({"prefilled": prefilled, "answered": answered, "stopped": stopped}))


if __name__ == "__main__":
    main(*sys.argv[1:4], json.loads(sys.argv[4]))
