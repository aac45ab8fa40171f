"""What ten thousand units and a thousand engines cost the driver.

The pool is the real one on real Ray, with engines that sleep; then its decisions alone, with a clock that is made up.

    python -m bench.scale             # 10,000 units on 20 actors, then on 1,000 simulated ones: about 4 minutes
    python -m bench.scale --quick     # a look, under a minute
    python -m bench.scale --write     # puts its section into bench/RESULTS.md as well
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace

from bench.machine import machine_lines
from bench.payloads import ANSWER_TOKENS, PROMPT_TOKENS, QUESTIONS, block_sizes, weigh
from bench.results import listed, table, write_section
from bench.simulation import Simulated, World, simulate
from bench.sleepers import Drove, drive
from harvest.store.key import MAX_BLOCK

UNIT_S = 60.0
# of engine time, on average, in the simulation: 26 questions of 600 tokens at 260 tokens/s, a large model

FEW = 3
# units an engine

WORLDS = {
    "no faults": World(0),
    "an actor lives 2 h on average": World(0, life_s=2 * 3600),
    "1 of 20 engines is 3 times slower": World(0, slow=0.05),
    "both": World(0, life_s=2 * 3600, slow=0.05),
}

_NOTES = """
- CPU is the driver's, of all its threads, Ray's too. Memory on Ray: the most that was resident during a run beyond what
  was resident before it; of the schedule: all that it holds with every task in it. In flight: by driver, tasks that had
  been pickled for an actor and whose result had not arrived; by worker, calls that were in it at once.
- Lower bound: Σ of the units' time ÷ engines, or the longest unit if that is more. Starting the actors is left out: an
  engine takes minutes to load, whoever schedules it, and a run has it once. The simulated makespan begins with the
  first task handed out; the start of an engine that replaces a lost one counts.
- Units have as many questions as real plans give their blocks, and take time in proportion. Payloads are real capture
  tasks with the token ids of their texts, few of them distinct. In the simulation a unit takes 60 s of an engine on
  average, and committing it 0.4 times as long, beside the next one's.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parse(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    shown = sys.argv[1:] if arguments is None else arguments
    head = [*machine_lines(), f"command: python -m bench.scale {shlex.join(shown)}".rstrip()]
    drove = drive(given.actors, given.tasks, given.mean_s)
    sizes = block_sizes(given.units)
    costs_s = [UNIT_S * size * len(sizes) / sum(sizes) for size in sizes]
    found = {name: simulate(costs_s, replace(world, num_actors=given.engines)) for name, world in WORLDS.items()}
    few = costs_s[: FEW * given.engines]
    found["no faults, but few units"] = simulate(few, World(given.engines))
    tables = (_drove_table(drove, given.actors), _simulated_table(found, given.engines), _weight(given.groups))
    body = "\n\n".join(tables)
    page = f"# What ten thousand units cost\n\n{listed(head)}\n\n{body}\n{_NOTES}\n{listed(_targets(drove, found))}\n"
    print(page)
    if given.write:
        write_section(page)


def _drove_table(drove: Drove, num_actors: int) -> str:
    header = (
        "real Ray",
        "CPU ms a unit",
        "memory MB",
        "in flight by driver",
        "by worker",
        "makespan s",
        "÷ lower bound",
    )
    name = f"{drove.num_tasks:,} units on {num_actors} actors"
    cells = (f"{1e3 * drove.cpu_s:.2f}", f"{drove.growth_bytes / 1e6:.0f}", drove.in_flight_driver)
    times = (f"{drove.makespan_s:.1f}", f"{drove.stretch:.3f}")
    return table(header, [(name, *cells, drove.in_flight_worker, *times)])


def _simulated_table(found: dict[str, Simulated], num_engines: int) -> str:
    header = ("schedule alone", "CPU µs a unit", "memory MB", "in flight", "actors lost", "wasted", "÷ lower bound")
    lines = []
    for name, one in found.items():
        cells = (f"{1e6 * one.schedule_s:.0f}", f"{one.held_bytes / 1e6:.0f}", one.most_in_flight, one.lost)
        title = f"{one.num_tasks:,} units on {num_engines:,} engines, {name}"
        lines.append((title, *cells, f"{one.wasted:.3f}", f"{one.stretch:.3f}"))
    return table(header, lines)


def _weight(num_groups: int) -> str:
    weight = weigh(num_groups)
    tokens = MAX_BLOCK * (PROMPT_TOKENS + ANSWER_TOKENS)
    lines = [("a token", f"{weight.held_bytes:.1f}", f"{weight.pickled_bytes:.2f}", "", "")]
    for number in (1, 10_000):
        sizes = (f"{number * tokens * one / 1e6:,.2f} M" for one in (weight.held_bytes, weight.pickled_bytes))
        seconds = (f"{1e3 * number * tokens * one:,.2f}" for one in (weight.pickle_s, weight.unpickle_s))
        lines.append((f"{number:,} × {MAX_BLOCK} texts of {PROMPT_TOKENS + ANSWER_TOKENS} tokens", *sizes, *seconds))
    header = (
        f"capture tasks, {num_groups} groups of {QUESTIONS}",
        "bytes held",
        "bytes pickled",
        "ms to pickle",
        "ms to unpickle",
    )
    return table(header, lines)


def _targets(drove: Drove, found: dict[str, Simulated]) -> list[str]:
    calm = found["no faults"]
    return [
        f"driver's CPU: target ≤ 2 ms a unit, seen {1e3 * drove.cpu_s:.2f}",
        f"driver's memory: target < 200 MB more, seen {drove.growth_bytes / 1e6:.0f}",
        f"in flight per actor: target ≤ 2, seen {drove.in_flight_driver} by driver, {drove.in_flight_worker} by worker",
        f"makespan ÷ lower bound: target ≤ 1.05, seen {drove.stretch:.3f} on Ray, {calm.stretch:.3f} simulated",
    ]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--actors", type=int, help="on Ray")
    parser.add_argument("--tasks", type=int, help="on Ray")
    parser.add_argument("--mean-s", type=float, default=0.2, help="of a task on Ray")
    parser.add_argument("--engines", type=int, help="simulated")
    parser.add_argument("--units", type=int, help="simulated")
    parser.add_argument("--groups", type=int, help="whose tasks are weighed")
    given = parser.parse_args(arguments)
    quick = {"actors": 8, "tasks": 800, "engines": 100, "units": 1000, "groups": 1}
    full = {"actors": 20, "tasks": 10_000, "engines": 1000, "units": 10_000, "groups": 4}
    for name, value in (quick if given.quick else full).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


if __name__ == "__main__":
    main()
