"""Contenders in processes of their own that take strict turns: one works, the others wait at their pipes.

One vLLM engine lives per process. What a neighbour on the machine does to one round it does to all of its lines.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.lines import Bench, Line
from bench.workload import Workload
from harvest.errors import RunError

PEERS = ("bare", "ours", "hooks", "reference_practice")
# modules of bench.peers, each with an `open_bench(model, workload)`


Offer = tuple[Sequence[Line], Sequence[str]]
# a contender's lines and remarks


@dataclass(frozen=True, slots=True)
class Taken:
    """What one pass took."""

    cpu_s: float
    # of all threads of the process
    wall_s: float


@dataclass(frozen=True, slots=True)
class Rounds:
    """What each line took in each round, and the contenders' remarks."""

    taken: dict[Line, list[Taken]]
    remarks: tuple[str, ...]


def take_turns(
    model: Path, workload: Workload, rounds: int, say: Callable[[str], None], who: Sequence[str] = ()
) -> Rounds:
    """All lines of all contenders, measured in so many rounds, after each contender has done each kind of work once.

    `who` leaves out every line that is neither bare vLLM's nor one of theirs; none: all lines.
    Each round starts one line later than the one before, so that no line always follows the same one.
    """
    with _opened(model, workload) as pipes:
        offers: dict[str, Offer] = {peer: _received(pipe, peer) for peer, pipe in pipes.items()}
        every = [(line, peer) for peer, (lines, _) in offers.items() for line in lines]
        bare = {line.bare for line, _ in every if line.who in who}
        turns = [(line, peer) for line, peer in every if not who or line.who in who or line in bare]

        def take(line: Line, peer: str) -> Taken:
            pipes[peer].send(line)
            took: Taken = _received(pipes[peer], peer)
            return took

        first = {(peer, line.work): line for line, peer in reversed(turns)}
        for (peer, _), line in first.items():
            take(line, peer)
        taken: dict[Line, list[Taken]] = {line: [] for line, _ in turns}
        for number in range(rounds):
            start, at = time.perf_counter(), number % len(turns)
            for line, peer in turns[at:] + turns[:at]:
                taken[line].append(take(line, peer))
            say(f"round {number + 1} of {rounds}: {time.perf_counter() - start:.0f} s")
        return Rounds(taken, tuple(remark for _, remarks in offers.values() for remark in remarks))


@contextmanager
def _opened(model: Path, workload: Workload) -> Iterator[dict[str, Connection]]:
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for peer in PEERS:
        pipes[peer], theirs = context.Pipe()
        process = context.Process(target=_serve, args=(peer, model, workload, theirs), daemon=True)
        process.start()
        # only the process's own end is open then, so that its death is seen here
        theirs.close()
        processes.append(process)
        pipes[peer].poll(None)
    yield pipes
    for pipe in pipes.values():
        pipe.send(None)
    for process in processes:
        process.join()


def _received(pipe: Connection, peer: str) -> Any:
    try:
        return pipe.recv()
    except EOFError as lost:
        raise RunError(f"bench/peers/{peer}.py: its process ended; what it said stands above") from lost


def _serve(peer: str, model: Path, workload: Workload, pipe: Connection) -> None:
    """Open the contender, say what it offers, then answer every line with what one pass took, until None comes."""
    bench: Bench = import_module(f"bench.peers.{peer}").open_bench(model, workload)
    offer: Offer = list(bench.passes), bench.remarks
    pipe.send(offer)
    while (line := pipe.recv()) is not None:
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        bench.passes[line]()
        pipe.send(Taken(time.process_time() - cpu_s, time.perf_counter() - wall_s))
