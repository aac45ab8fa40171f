"""On a disk of any size that is too small nothing is committed, and with room the same run succeeds."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from stored import commit_moments, random_questions

from harvest.errors import StoreError
from harvest.store.commit import Store
from harvest.store.key import unit_name
from harvest.store.merge import merge_moments
from harvest.store.verify import orphans, verify_store


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small tmpfs")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("free_kib", [0, 4, 20, 40, 60, 80])
def test_a_full_disk_commits_nothing_and_leaves_nothing(small_disk: Path, free_kib: int):
    store = Store(small_disk / "store").prepare()
    kept = commit_moments(store, "kept", "g", random_questions(0, [2]))
    filler = small_disk / "filler"
    free = shutil.disk_usage(small_disk).free - (free_kib << 10)
    filler.write_bytes(b"x" * free)
    with pytest.raises(StoreError, match=r"no space left on .*; what is committed is safe"):
        commit_moments(store, "too big", "g", random_questions(1, [2], layers=8, neurons=1000))
    assert store.find(unit_name("moments", {"name": "too big"})) is None
    assert verify_store(store.root) == []
    assert orphans(store.root) == []
    filler.unlink()
    commit = commit_moments(store, "too big", "g", random_questions(1, [2], layers=8, neurons=1000))
    assert store.open(commit).differences() == store.open(kept).differences() == []


def test_a_full_disk_publishes_no_view(small_disk: Path):
    store = Store(small_disk / "store").prepare()
    units = [commit_moments(store, str(i), f"g{i}", random_questions(i, [2], neurons=1000)).unit for i in range(2)]
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - (60 << 10)))
    with pytest.raises(StoreError, match="no space left"):
        merge_moments(store, units, {})
    assert orphans(store.root) == []
    filler.unlink()
    assert Path(merge_moments(store, units, {})).exists()
    assert verify_store(store.root) == []
