"""Drivers that die in mid-run, again and again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from chaos.calm import Calm
from chaos.drives import Chaos, check_kept
from chaos.job import unit_of
from chaos.journal import is_alive, wait_until
from chaos.machines import Machines
from chaos.table import Row, scaled


def kill_once(chaos: Chaos, dice: random.Random) -> None:
    """A driver that is killed once it has committed something more; then its workers are waited for."""
    before, born = chaos.commits(), len(chaos.journal.read())
    with chaos.drive() as drive:
        drive.hear("connected")
        with chaos.journal.after_progress():
            time.sleep(dice.uniform(0, 0.3))
            assert drive.running, "the run ended before it could be killed"
            chaos.journal.note("struck", detail=f"{chaos.journal.num_kept()} driver", pid=drive.pid)
            drive.kill()
    run = chaos.journal.read()[born:]
    again = {unit_of(entry.number) for entry in run if entry.what == "measure"} & {Path(one).stem for one in before}
    assert not again, f"measured by this run though an earlier one committed it: {again}"
    workers = {entry.pid for entry in run if entry.what == "born"}
    assert workers
    wait_until(lambda: not any(map(is_alive, workers)), 60, "the driver's workers are gone")
    # they died with their driver: none of them may have measured what another did, unless neither could commit it
    for pid in workers:
        chaos.journal.note("struck", detail=f"{chaos.journal.num_kept()} with its driver", pid=pid)
    after = chaos.commits()
    check_kept(before, after)
    assert len(after) > len(before)
    assert len(after) < chaos.num_units, "nothing was left to go on with"


def test_killed_drivers_pay_for_no_unit_twice(
    row: Callable[[str, str], Row], calm: Calm, dice: random.Random, machines: Machines, tmp_path: Path
) -> None:
    line = row("SIGKILL the driver, run again", "identical, no committed unit computed twice")
    num_kills, num_private = scaled(50), scaled(10)
    # a driver of a private Ray takes it along; one of a cluster leaves it
    units = list(range(10 * num_kills + 5))
    chaos = Chaos(tmp_path, [units])
    for index in range(num_kills):
        where = {} if index < num_private else {"address": machines.address}
        chaos.more = {"pace_s": 0.1, "actors": 1 + index % 2, **where}
        kill_once(chaos, dice)
    before = chaos.commits()
    with chaos.drive() as drive:
        told, answer = drive.hear("round"), drive.hear("sha256")
        drive.finish()
    assert told["tasks"] == told["done"] == len(units) - len(before)
    check_kept(before, chaos.commits())
    chaos.check(answer, calm.sha256(chaos.num_units), calm.tokens(chaos.num_units))
    killed = sum("driver" in entry.detail for entry in chaos.journal.read() if entry.what == "struck")
    assert killed >= num_kills
    line.hold(num_kills)
    line.say(f"{num_private} with a private Ray; {len(before)} of {len(units)} units came from killed runs")
