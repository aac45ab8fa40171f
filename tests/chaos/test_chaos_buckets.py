"""A bucket whose service goes away in mid-run, for a moment or until the run has given up."""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from places import S3, new_prefix, serving

from chaos.calm import Calm
from chaos.drives import Chaos, check_kept
from chaos.journal import wait_until
from chaos.machines import Machines
from chaos.table import Row, scaled

NUM_UNITS = 16
PATIENT_S, HASTY_S = 60, 2
# how long the store's client tries again


def is_gone(server: S3) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) != 0


def test_a_service_that_goes_away_loses_nothing(
    row: Callable[[str, str], Row], calm: Calm, dice: random.Random, machines: Machines, tmp_path: Path
) -> None:
    line = row("S3 service gone in mid-run, and back", "goes on, or a typed error and resume identical")
    expected, ends = (calm.sha256(NUM_UNITS), calm.tokens(NUM_UNITS)), {True: 0, False: 0}
    with serving(tmp_path) as server:
        for index in range(scaled(10)):
            patient = index % 2 == 1
            place = new_prefix(server)

            def commits(files=place.files) -> dict[str, bytes]:
                return {name: files.read(name) for name in files.names() if name.startswith("commits/")}

            more = {"address": machines.address, "pace_s": 0.05, "environment": server.environment}
            chaos = Chaos(tmp_path / str(index), [list(range(NUM_UNITS))], more=more, place=place.root)
            chaos.more = {**more, "retry_s": PATIENT_S if patient else HASTY_S}
            with chaos.drive() as drive:
                drive.hear("connected")
                with chaos.journal.after_progress():
                    before = commits()
                    server.process.send_signal(signal.SIGUSR1)
                    wait_until(partial(is_gone, server), 10, "the service is gone")
                    chaos.journal.note("gone")
                if patient:
                    time.sleep(dice.uniform(0.5, 3))
                    server.process.send_signal(signal.SIGUSR2)
                told = drive.hear("round")
                if patient:
                    assert (told["done"], told["failures"]) == (NUM_UNITS, [])
                    answer = drive.hear("sha256")
                    drive.finish()
            if not patient:
                said = [told["message"]] if "error" in told else [reason for _, _, reason in told["failures"]]
                assert said, told
                assert all("cannot be reached" in one for one in said), told
                ends["error" in told] += 1
                server.process.send_signal(signal.SIGUSR2)
                wait_until(lambda: not is_gone(server), 10, "the service is back")
                chaos.more = {**more, "retry_s": PATIENT_S}
                with chaos.drive() as drive:
                    drive.hear("round")
                    answer = drive.hear("sha256")
                    drive.finish()
            check_kept(before, commits())
            assert (answer["sha256"], answer["tokens"]) == expected
            line.hold()
    line.say(f"{ends[True]} runs ended, {ends[False]} gave their units up, the others waited")
