"""Workers that die: where they work, where they write, and where they do nothing."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from chaos.calm import Calm
from chaos.drives import Chaos, check_kept, living_workers
from chaos.job import unit_of
from chaos.journal import is_alive, wait_until
from chaos.machines import Machines
from chaos.table import Row, scaled

INSIDE = ("measuring", "writing", "linking", "answering")
OUTSIDE = 2
# kills a round
TAIL = 30
# units of a round after its last doomed one, for whoever comes from outside
EACH = 5
# units from one doomed unit to the next: something is left that can go on


def strike_outside(chaos: Chaos, times: int, dice: random.Random, ended: Event) -> None:
    """SIGKILLs workers from outside at times that nobody planned, each after progress since the last kill."""
    for _ in range(times):
        wait_until(lambda: ended.is_set() or living_workers(chaos.journal.read()), 60, "a worker lives")
        time.sleep(dice.uniform(0, 0.3))
        with chaos.journal.after_progress() as kept:
            # chosen only now: whoever lived before the wait may have met its doom since
            entries = chaos.journal.read()
            victims = living_workers(entries)
            if ended.is_set():
                return
            if victims:
                victim = dice.choice(victims)
                last = [entry.what for entry in entries if entry.pid == victim][-1]
                chaos.journal.note("struck", detail=f"{kept} outside:{last}", pid=victim)
                os.kill(victim, signal.SIGKILL)


def plan(num_kills: int, dice: random.Random) -> tuple[list[list[int]], dict[int, tuple[str, float]], int]:
    """Rounds of units, the dooms among them, and how many kills a round come from outside at most.

    Those inside, and the idle ones between rounds, make up the number; a round may end before all from outside came.
    """
    num_rounds = max(2, num_kills // 10)
    inside = num_kills - (num_rounds - 1)
    rounds, dooms, first = [], {}, 0
    for index in range(num_rounds):
        here = inside * (index + 1) // num_rounds - inside * index // num_rounds
        for one in range(here):
            dooms[first + EACH * one + 2] = (INSIDE[len(dooms) % len(INSIDE)], dice.random())
        size = EACH * here + TAIL
        rounds.append(list(range(first, first + size)))
        first += size
    return rounds, dooms, OUTSIDE


def test_killed_workers_lose_nothing_and_count_nothing_twice(
    row: Callable[[str, str], Row], calm: Calm, dice: random.Random, tmp_path: Path
) -> None:
    line = row("SIGKILL a worker", "identical; nothing lost, nor computed twice")
    rounds, dooms, outside = plan(scaled(50), dice)
    # chance may hit one unit three times, which is quarantine's own row
    chaos = Chaos(tmp_path, rounds, dooms, {"pace_s": 0.03, "policy": {"max_attempts": 10}})
    with chaos.drive() as drive:
        for index in range(len(rounds)):
            ended = Event()
            striker = Thread(target=strike_outside, args=(chaos, outside, dice, ended))
            striker.start()
            told = drive.hear("round")
            ended.set()
            striker.join()
            assert (told["failures"], told["left"], told["done"]) == ([], 0, len(rounds[index])), told
            if index + 1 < len(rounds):
                idle = dice.choice(living_workers(chaos.journal.read()))
                chaos.journal.strike(idle, -1, "idle")
                drive.go_on()
            kept = chaos.commits()
        answer = drive.hear("sha256")
        drive.finish()
    check_kept(kept, chaos.commits())
    chaos.check(answer, calm.sha256(chaos.num_units), calm.tokens(chaos.num_units))
    struck = [entry for entry in chaos.journal.read() if entry.what == "struck"]
    where = Counter(entry.detail.split()[1].partition(":")[0] for entry in struck)
    assert len({entry.pid for entry in struck}) == len(struck) >= scaled(50)
    assert not any(is_alive(entry.pid) for entry in struck)
    assert all(where[point] for point in ("idle", "outside", *INSIDE))
    line.hold(len(struck))
    line.say(", ".join(f"{point} {count}" for point, count in sorted(where.items())))
    line.say(f"{chaos.num_units} units")


def test_a_poison_unit_is_named_and_the_rest_completes(
    row: Callable[[str, str], Row], dice: random.Random, machines: Machines, tmp_path: Path
) -> None:
    line = row("a unit that kills its worker each time", "quarantined after 3, named; the rest completes")
    poison = [EACH * index + 3 for index in range(scaled(10))]
    units = list(range(EACH * len(poison) + 2 * EACH))
    chaos = Chaos(
        tmp_path,
        [units],
        {one: ("poison", dice.random()) for one in poison},
        {"merge": False, "address": machines.address},
    )
    with chaos.drive() as drive:
        told = drive.hear("round")
        drive.finish()
    assert {task_id for task_id, _, _ in told["failures"]} == {unit_of(one) for one in poison}
    assert all(attempts in (3, 4) and "was lost" in reason for _, attempts, reason in told["failures"]), told
    assert told["done"] == len(units) - len(poison)
    assert chaos.is_committed(set(units) - set(poison))
    assert not any(chaos.is_committed({one}) for one in poison)
    chaos.check_computed_once()
    struck = [entry for entry in chaos.journal.read() if entry.what == "struck"]
    deaths = Counter(entry.number for entry in struck)
    assert all(3 <= deaths[one] <= 5 for one in poison), deaths
    line.hold(len(poison))
    line.say(f"{len(struck)} workers died, {told['done']} other units kept")
