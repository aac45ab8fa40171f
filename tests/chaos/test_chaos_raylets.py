"""Nodes that die under their workers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from chaos.calm import Calm
from chaos.drives import Chaos, check_kept, living_workers
from chaos.journal import wait_until
from chaos.machines import Machines
from chaos.table import Row, scaled

RECOVERY_S = 30.0


def strike_node(chaos: Chaos, made: Machines, index: int, dice: random.Random) -> float:
    """Kills a node that is at work, its raylet or all of it in turn; seconds until all that it held is committed."""
    node = dice.choice(made.nodes)
    raylet = made.raylet(node)

    def at_work() -> frozenset[int]:
        entries = chaos.journal.read()
        workers = living_workers(entries, str(raylet))
        return frozenset(pid for pid in workers if any(one.pid == pid and one.what == "kept" for one in entries))

    wait_until(at_work, 60, "the node has committed a unit")
    time.sleep(dice.uniform(0, 0.5))
    with chaos.journal.after_progress() as kept:
        victims, before = at_work(), chaos.commits()
        wait_until(lambda: chaos.open_measures(victims, time.time_ns()), 30, "the node holds a unit", 0.002)
        struck_ns, began = time.time_ns(), time.monotonic()
        if index % 2:
            made.remove(node)
        else:
            made.kill_raylet(node)
        for pid in victims:
            chaos.journal.note("struck", detail=f"{kept} node", pid=pid)
    held = chaos.open_measures(victims, struck_ns)
    assert held, "the node had just committed all it held"
    wait_until(lambda: chaos.is_committed(held), 120, f"units {held} of the killed node are committed")
    recovery_s = time.monotonic() - began
    wait_until(lambda: not living_workers(chaos.journal.read(), str(raylet)), 60, "the node's workers are gone")
    check_kept(before, chaos.commits())
    made.replace(node)
    return recovery_s


def test_a_killed_node_costs_seconds_and_nothing_else(
    row: Callable[[str, str], Row], calm: Calm, dice: random.Random, machines: Machines, tmp_path: Path
) -> None:
    line = row("SIGKILL a raylet; remove a node", f"identical, recovery < {RECOVERY_S:g} s")
    num_kills = scaled(20)
    recovery_s: list[float] = []
    chaos = Chaos(tmp_path, [list(range(25 * num_kills))], more={"address": machines.address, "pace_s": 0.25})
    with chaos.drive() as drive:
        for index in range(num_kills):
            recovery_s.append(strike_node(chaos, machines, index, dice))
            assert recovery_s[-1] < RECOVERY_S
            assert drive.running
        told = drive.hear("round")
        answer = drive.hear("sha256")
        drive.finish()
    assert (told["failures"], told["left"]) == ([], 0)
    chaos.check(answer, calm.sha256(chaos.num_units), calm.tokens(chaos.num_units))
    line.hold(num_kills)
    line.say(f"recovery {min(recovery_s):.1f}–{max(recovery_s):.1f} s; {chaos.num_units} units")
