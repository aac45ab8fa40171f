"""What a capture costs: value-harvest beside bare vLLM, hooks in transformers and the published practice.

Everything runs on the same checkpoint, token ids and machine, one thread each, in interleaved rounds. Times are a
process's CPU time and wall time; ratios to bare vLLM are taken within the round.

    python -m bench.capture            # both sizes, about 25 minutes on two cores
    python -m bench.capture --quick    # a look, about 2 minutes
    python -m bench.capture --write    # puts its section into bench/RESULTS.md as well
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.checkpoint import SHAPES, Shape, write_checkpoint
from bench.floor import floor_lines
from bench.lines import CONTENDERS
from bench.machine import machine_lines
from bench.results import listed, write_section
from bench.table import HEADER, table_lines, target_lines
from bench.turns import Rounds, take_turns
from bench.workload import PROMPT_TOKENS, Workload, make_workload

_NOTES = """
- Contenders warm up, then take strict turns, one process at work at a time. Least / median / greatest of the rounds.
  `÷ bare`: within each round, over bare vLLM in one call, for our prefill in the same calls. `calls`: how many batches
  the texts were submitted in.
- vLLM runs eagerly for all, in bfloat16, without a prefix cache; the end token cannot be sampled, so that all answers
  are equally long. Prefill: one unit a group, a unit a call; the second half of each text counts. Ours is what a
  capture computes, rows and moments; writing the store is left out.
- Generation: greedy, repetition penalty 1.1. `ours, online` serves all groups in one call, since rows are kept per
  request. `ours, respond + replay` answers in one call and replays a unit a group. `reference practice` holds one group
  at a time, in batches of 32 prompts; with 1 group its batches are full, as in a study of many questions a group.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parse(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    shown = sys.argv[1:] if arguments is None else arguments
    head = [*machine_lines(), f"command: python -m bench.capture {shlex.join(shown)}".rstrip()]
    workload = make_workload(given.texts, given.new_tokens)
    table, below = list(HEADER), []
    for shape in (SHAPES[name] for name in given.sizes):
        parameters, rounds = measure(shape, workload, given.rounds, given.who)
        table += table_lines(shape.name, rounds.taken, workload)
        below += [*floor_lines(shape, parameters, workload), *target_lines(shape.name, rounds.taken, workload)]
        below += [f"{shape.name}: {remark}" for remark in rounds.remarks]
    page = _page([*head, _work(workload, given.rounds)], table, below)
    print(page)
    if given.write:
        write_section(page)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=["3M", "95M"])
    parser.add_argument("--who", nargs="+", choices=CONTENDERS, default=[], help="these alone, beside bare vLLM")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--texts", type=int)
    parser.add_argument("--new-tokens", type=int)
    given = parser.parse_args(arguments)
    rounds, texts, new_tokens = (1, 16, 16) if given.quick else (9, 64, 64)
    given.rounds = given.rounds or rounds
    given.texts = given.texts or texts
    given.new_tokens = given.new_tokens or new_tokens
    return given


def measure(shape: Shape, workload: Workload, rounds: int, who: Sequence[str] = ()) -> tuple[int, Rounds]:
    """The number of parameters, and the rounds; progress goes to standard error."""
    with tempfile.TemporaryDirectory() as folder:
        parameters = write_checkpoint(Path(folder), shape)

        def say(text: str) -> None:
            print(f"{shape.name}: {text}", file=sys.stderr, flush=True)

        return parameters, take_turns(Path(folder), workload, rounds, say, who)


def _work(workload: Workload, rounds: int) -> str:
    return (
        f"work: {len(workload.texts)} texts of {workload.text_tokens:,} tokens, {workload.counted_tokens:,} counted; "
        f"{len(workload.prompts)} prompts of {PROMPT_TOKENS} tokens, {workload.sampling.max_tokens} new tokens each; "
        f"{rounds} rounds"
    )


def _page(head: Sequence[str], table: Sequence[str], below: Sequence[str]) -> str:
    rows = "\n".join(table)
    return f"# What a capture costs\n\n{listed(head)}\n\n{rows}\n{_NOTES}\n{listed(below)}\n"


if __name__ == "__main__":
    main()
