"""What the probe costs: bare vLLM prefill against ours, idle and capturing, on the same checkpoint and token ids.

Each engine lives in a process of its own, and they take turns, so that a noisy neighbour hits all alike. Printed are
medians over the rounds and ratios to bare vLLM, by the process's CPU time and by wall time.

    python bench/capture.py [--rounds 9] [--texts 16] [--length 256]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent.parent / "tests")]

CASES = ("bare vLLM", "probe, counting nothing", "probe, moments and rows")


def serve(case: str, model: Path, texts: list[tuple[int, ...]], pipe: Connection) -> None:
    """Open the case's engine, then answer every message with (CPU s, wall s) of one pass over the texts."""
    from harvest.engine.options import EngineOptions
    from harvest.engine.seat import open_engine
    from harvest.types import Request, Sampling, Text

    # without a prefix cache: a second pass over the same texts must do the same work
    options = EngineOptions(
        model, "float32", probe=case != CASES[0], extra={"enable_prefix_caching": False, "tokenizer": str(model)}
    )
    engine = open_engine(options)
    counted = [Text(ids, len(ids) // 2, len(ids)) for ids in texts]
    requests = [Request(ids) for ids in texts]
    pipe.send("ready")
    while pipe.recv() == "go":
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        if case == CASES[2]:
            engine.capture(counted)
        else:
            engine.run(requests, Sampling(max_tokens=1))
        pipe.send((time.process_time() - cpu_s, time.perf_counter() - wall_s))
    engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    from checkpoints import write_checkpoint

    rng = np.random.default_rng(0)
    texts = [tuple(int(one) for one in rng.integers(0, 256, arguments.length)) for _ in range(arguments.texts)]
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        model = write_checkpoint(
            Path(folder), "llama", hidden_size=512, intermediate_size=2816, num_hidden_layers=8, num_attention_heads=8
        )
        pipes: dict[str, Connection] = {}
        for case in CASES:
            pipes[case], theirs = context.Pipe()
            context.Process(target=serve, args=(case, model, texts, theirs), daemon=True).start()
            pipes[case].recv()
        seconds: dict[str, list[tuple[float, float]]] = {case: [] for case in CASES}
        for round_ in range(arguments.rounds + 1):
            for case, pipe in pipes.items():
                pipe.send("go")
                taken = pipe.recv()
                if round_:  # the first warms up
                    seconds[case].append(taken)
        for pipe in pipes.values():
            pipe.send("stop")
    _print(seconds, arguments.texts * arguments.length)


def _print(seconds: dict[str, list[tuple[float, float]]], tokens: int) -> None:
    print(f"{'':26}{'CPU s':>8}{'ratio':>8}{'wall s':>9}{'ratio':>8}{'tokens/s':>10}")
    bare = seconds[CASES[0]]
    for case, taken in seconds.items():
        cpu_s, wall_s = (statistics.median(one[at] for one in taken) for at in (0, 1))
        ratios = [
            statistics.median(one[at] / other[at] for one, other in zip(taken, bare, strict=True)) for at in (0, 1)
        ]
        print(f"{case:26}{cpu_s:8.2f}{ratios[0]:8.2f}{wall_s:9.2f}{ratios[1]:8.2f}{tokens / wall_s:10.0f}")


if __name__ == "__main__":
    main()
