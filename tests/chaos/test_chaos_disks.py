"""Disks that fill up at every stage of a job."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chaos.calm import Calm
from chaos.drives import Chaos, check_kept
from chaos.machines import Machines
from chaos.table import Row, scaled

NUM_UNITS = 24
AMPLE_KB = 16_384
# more than they and their view need


@contextmanager
def small_disk(folder: Path, size_kb: int) -> Iterator[Callable[[int], None]]:
    """A tmpfs of its own, and a call that gives it another size."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", folder], check=True)
    try:
        yield lambda kb: _resize(folder, kb)
    finally:
        subprocess.run(["umount", folder], check=True)


def _resize(folder: Path, size_kb: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size_kb}k", folder], check=True)


def needed_kb(disk: Path) -> int:
    """What the whole job needs, in whole pages."""
    with small_disk(disk, AMPLE_KB):
        Calm(disk / "store").sha256(NUM_UNITS)
        return shutil.disk_usage(disk).used // 1024


def is_typed(told: dict[str, Any]) -> bool:
    """Whether a run said that it is the disk: by ending, or by each of its failures."""
    if "error" in told:
        return "StoreError" in (told["error"], told["cause"]) and "no space left" in told["message"]
    return bool(told["failures"]) and all("no space left" in reason for _, _, reason in told["failures"])


@pytest.mark.skipif(os.geteuid() != 0, reason="a small tmpfs is mounted by root alone")
def test_a_full_disk_is_a_typed_error_and_the_run_goes_on_where_it_was(
    row: Callable[[str, str], Row], calm: Calm, machines: Machines, tmp_path: Path
) -> None:
    line = row("disk full", "typed error, resume identical")
    num_sizes, kept, all_kb = scaled(10), [], needed_kb(tmp_path / "measured")
    for index in range(num_sizes):
        size_kb = all_kb * (2 * index + 1) // (2 * num_sizes)
        chaos = Chaos(
            tmp_path / str(index),
            [list(range(NUM_UNITS))],
            more={"address": machines.address, "pace_s": 0},
            place=str(tmp_path / f"disk-{index}" / "store"),
        )
        with small_disk(tmp_path / f"disk-{index}", size_kb) as resize:
            with chaos.drive() as drive:
                told = drive.hear("round")
                if not is_typed(told):
                    assert told["done"] == NUM_UNITS, told
                    told = drive.hear("sha256")
                assert is_typed(told), told
            before = chaos.commits()
            resize(AMPLE_KB)
            with chaos.drive() as drive:
                drive.hear("round")
                answer = drive.hear("sha256")
                drive.finish()
            check_kept(before, chaos.commits())
            assert (answer["sha256"], answer["tokens"]) == (calm.sha256(NUM_UNITS), calm.tokens(NUM_UNITS))
        kept.append(len(before))
        line.hold()
    line.say(f"full with {', '.join(map(str, kept))} of {NUM_UNITS} units committed; all of it is {all_kb} kB")
