"""What the store costs: how long an engine waits for it, and how fast units are merged and read.

A stand-in for a GPU sleeps for as long as a forward would take; rows, folding, Zarr and commits are the real ones.

    python -m bench.store             # units of an 8B model, about 4 minutes and 6 GB of disk
    python -m bench.store --quick     # a look, under a minute
    python -m bench.store --write     # puts its section into bench/RESULTS.md as well
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.machine import machine_lines
from bench.merging import Asked, merging_lines
from bench.overlap import Pace, disk_line, overlap_lines, step_lines
from bench.paced import MODELS
from bench.results import listed, write_section

_NOTES = """
- Least / median / greatest of the rounds, whose contenders take turns after all have warmed up. Two tasks in flight,
  one thread with the engine, as in an engine's seat. `engine idle`: 1 − units × forward ÷ time from the first forward's
  start to the last one's end; what it is with nothing kept is taken off. `by CPU time`: what it comes to where keeping
  takes its CPU time and no more, as on a machine that is not busy with anything else.
- The forward takes no CPU here. The copy from the GPU, and the check that all is finite, belong to it and are left out.
- Copies are `shutil.copyfile` of the same files in the same round. `MB/s` is over the bytes that are merged, or of the
  view of which one group is read; files are hashed as they are read.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parse(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    shown = sys.argv[1:] if arguments is None else arguments
    model = MODELS[given.model]
    head = [*machine_lines(), f"command: python -m bench.store {shlex.join(shown)}".rstrip()]
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        head.append(disk_line(folder, given.disk_mib << 20))
        head.append(
            f"work: {model.num_layers} layers of {model.num_neurons} neurons, {given.questions} questions a unit, "
            f"{given.forward_s:g} s a forward; {given.units} units, {given.rounds} rounds"
        )
        steps = step_lines(model, given.questions, given.rounds, folder)
        pace = Pace(given.questions, given.forward_s, given.units, given.rounds)
        waits, below = overlap_lines(model, pace, folder)
        merges = [
            merging_lines(model, Asked(kind, number, given.questions), given.rounds, folder)
            for kind, numbers in (("moments", given.merge_moments), ("rows", given.merge_rows))
            for number in numbers
        ]
    body = "\n\n".join([waits, steps, *merges])
    page = f"# What the store costs\n\n{listed(head)}\n\n{body}\n{_NOTES}\n{listed(below)}\n"
    print(page)
    if given.write:
        write_section(page)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured (default: the temporary one)")
    parser.add_argument("--model", choices=MODELS, default="8B")
    parser.add_argument("--questions", type=int, default=64, help="of a unit")
    parser.add_argument("--forward-s", type=float, default=1.0, help="of a unit, as on a GPU at 20,000 tokens/s")
    parser.add_argument("--units", type=int, help="whose commits overlap forwards")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--merge-moments", type=int, nargs="*", help="numbers of units")
    parser.add_argument("--merge-rows", type=int, nargs="*", help="numbers of units")
    parser.add_argument("--disk-mib", type=int, help="written to measure the disk")
    given = parser.parse_args(arguments)
    quick = {"units": 3, "rounds": 1, "merge_moments": [8], "merge_rows": [2], "disk_mib": 64}
    full = {"units": 12, "rounds": 3, "merge_moments": [80], "merge_rows": [8], "disk_mib": 512}
    for name, value in (quick if given.quick else full).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


if __name__ == "__main__":
    main()
