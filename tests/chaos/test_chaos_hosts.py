"""Two hosts, one of which is cut off in mid-run, works on unheard, and comes back."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.calm import Calm
from chaos.drives import Chaos, Drive, check_kept
from chaos.hosts import Hosts, why_not
from chaos.journal import Entry, is_alive, wait_until
from chaos.table import Row, scaled

RECOVERY_S = 30.0
ROUND = 24
# units a round; in each b is cut off once
DISASTERS = [
    ("silent", "cut off"), ("link down", "back"), ("one way", "cut off"),
    ("silent", "back"), ("link down", "cut off"), ("one way", "back"),
]  # fmt: skip
# how b is cut off, and where it is when its attempts are written to their end


class CutOff:
    """One round in which b is cut off while it writes."""

    def __init__(self, chaos: Chaos, hosts: Hosts, numbers: list[int], how: str, released: str) -> None:
        self._chaos, self._hosts, self._how, self._released = chaos, hosts, how, released
        self._numbers = set(numbers)

    def _told(self, what: str) -> list[Entry]:
        return [one for one in self._chaos.journal.read() if one.what == what and one.number in self._numbers]

    def endure(self, drive: Drive) -> tuple[float, int]:
        """Seconds until all that b held is committed by a, and how many zombies came to their end and lost."""
        chaos, hosts = self._chaos, self._hosts
        wait_until(lambda: self._told("holding"), 90, "b holds an attempt in mid-write")
        with chaos.journal.after_progress():
            before = chaos.commits()
            hosts.cut(self._how)
            began = time.monotonic()
            assert not hosts.hears(), "b is not cut off"
        wait_until(lambda: chaos.is_committed(self._held()), 120, "a commits what b held")
        recovery_s = time.monotonic() - began
        zombies = {one.pid for one in self._told("holding")}
        if self._released == "cut off":
            self._release()
            wait_until(lambda: {one.pid for one in self._told("lost")} >= zombies, 60, "the zombies have lost")
        told = drive.hear("round")
        assert (told["done"], told["failures"], told["left"]) == (ROUND, [], 0), told
        hosts.mend(self._how)
        wait_until(hosts.hears, 20, "b is back")
        self._release()
        wait_until(lambda: not any(map(is_alive, zombies)), 90, "the workers of the lost node are gone")
        wait_until(lambda: not hosts.raylets("b"), 90, "the lost node has left of itself")
        for pid in zombies:
            chaos.journal.note("struck", detail=f"{chaos.journal.num_kept()} {self._how}", pid=pid)
        assert not any(one.pid in zombies for one in self._told("kept") if one.number in self._held())
        check_kept(before, chaos.commits())
        return recovery_s, len(self._told("lost"))

    def _held(self) -> set[int]:
        return {one.number for one in self._told("holding")}

    def _release(self) -> None:
        for number in self._numbers:
            (self._chaos.root / "evidence" / f"release-{number}").touch()


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a_host_that_is_cut_off_and_comes_back_does_no_harm(
    row: Callable[[str, str], Row], calm: Calm, dice: random.Random, tmp_path: Path
) -> None:
    line = row("two hosts, one cut off", f"completes on the other in < {RECOVERY_S:g} s; zombies lose")
    disasters = DISASTERS[: max(1, scaled(6))]
    rounds = [list(range(ROUND * index, ROUND * (index + 1))) for index in range(len(disasters) + 1)]
    dooms = {number: ("holding", 0.5, "b") for numbers in rounds[:-1] for number in numbers[2:]}
    recovery_s, num_zombies = [], 0
    with Hosts(Path(f"/tmp/chaos-{os.getpid()}")) as hosts:
        chaos = Chaos(tmp_path, rounds, dooms, {"address": hosts.address, "pace_s": 0.2})
        with chaos.drive(hosts.on("a")) as drive:
            for numbers, (how, released) in zip(rounds, disasters, strict=False):
                seconds, zombies = CutOff(chaos, hosts, numbers, how, released).endure(drive)
                assert seconds < RECOVERY_S
                recovery_s.append(seconds)
                num_zombies += zombies
                line.hold()
                line.say(f"{how}: {seconds:.1f} s")
                hosts.start("b")
                drive.go_on()
            told, answer = drive.hear("round"), drive.hear("sha256")
            drive.finish()
    assert told["failures"] == []
    chaos.check(answer, calm.sha256(chaos.num_units), calm.tokens(chaos.num_units))
    last = [one for one in chaos.journal.read() if one.what == "kept" and one.number in rounds[-1]]
    assert {one.detail for one in last} == {"a", "b"}, "the host that came back was not used again"
    assert num_zombies >= 1
    line.say(f"{num_zombies} late attempts lost")
