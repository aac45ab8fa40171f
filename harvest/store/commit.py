"""Exactly-once storage, blind to what it stores: any number of attempts at a unit, and one that counts.

    plans/<hash>.json, .sha256         what was planned
    attempts/<unit>/<uuid><suffix>     one attempt, written whole, never changed
    attempts/<unit>/<uuid>.json        its record
    commits/<unit>.json                the winner's record: a hard link, made once

The link is the one atomic step. An attempt without it means nothing, so killed writers, retries and zombies are
harmless. This survives the death of processes; nothing is forced to the disk against a power cut.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from harvest.store.key import is_unit
from harvest.store.plan import read_plan, write_plan
from harvest.store.record import Commit, read_record, write_record
from harvest.store.sealed import damaged, told
from harvest.store.tree import differences, listing, sha256_of

__all__ = ["Commit", "Store"]


@dataclass(frozen=True)
class Store:
    """A folder of committed units. Holds no state, so it travels to workers as a path does."""

    root: Path

    def __post_init__(self) -> None:
        # a worker has another working directory
        object.__setattr__(self, "root", self.root.absolute())

    def commit_path(self, unit: str) -> Path:
        """Where a unit's commit record stands, once there is one."""
        if not is_unit(unit):
            raise ValueError(f"unit {unit!r}: not a name that unit_name gives")
        return self.root / "commits" / f"{unit}.json"

    def attempt_path(self, commit: Commit) -> Path:
        """Where a committed attempt stands, unverified."""
        return self.root / "attempts" / commit.unit / commit.attempt

    def commit(
        self,
        unit: str,
        suffix: Literal[".zarr", ".parquet"],
        write: Callable[[Path], None],
        provenance: Mapping[str, object],
        members: Sequence[str] = (),
    ) -> Commit:
        """The unit's commit: this attempt's, or an earlier one's if this came too late and was thrown away.

        `write` makes the attempt, a file or a folder, at the path it is given. Raises StoreError if the disk is full
        or the store cannot be written; then nothing is committed and the attempt is removed.
        """
        path = self.commit_path(unit)
        attempt = self.root / "attempts" / unit / f"{uuid4().hex}{suffix}"
        with told(self.root):
            try:
                attempt.parent.mkdir(parents=True, exist_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                write(attempt)
                write_record(_record(unit, attempt, provenance, members), attempt.with_suffix(".json"))
                # who won is read below: over NFS a link can be made and reported as failed
                with suppress(FileExistsError):
                    os.link(attempt.with_suffix(".json"), path)
            finally:
                winner = self.find(unit)
                # asked, not assumed: an interrupt right after the link must not remove what it committed
                if winner is None or winner.attempt != attempt.name:
                    _remove(attempt)
        assert winner is not None
        return winner

    def find(self, unit: str) -> Commit | None:
        """The unit's commit, or None; raises DamagedStore if its record was changed."""
        with told(self.root):
            try:
                return read_record(self.commit_path(unit))
            except FileNotFoundError:
                return None

    def committed(self, units: Iterable[str]) -> set[str]:
        """Those of the units that have a commit."""
        return set(units) & {path.stem for path in self.root.glob("commits/*.json")}

    def commits(self, kind: str, known: Container[str] = ()) -> list[Commit]:
        """Every commit of a kind but those of the known units, in the order in which they were made."""
        with told(self.root):
            paths = [path for path in self.root.glob(f"commits/{kind}-*.json") if path.stem not in known]
            read = [read_record(path) for path in paths]
        return sorted(read, key=lambda one: (one.created_ns, one.unit))

    def open(self, commit: Commit) -> Path:
        """The path of the committed attempt, after reading all of it; raises DamagedStore, naming the damaged file."""
        with told(self.root):
            wrong = differences(commit.files, self.attempt_path(commit))
        for file, what in wrong:
            raise damaged(file, what, self.commit_path(commit.unit))
        return self.attempt_path(commit)

    def write_plan(self, plan: Mapping[str, object]) -> str:
        """Keeps a plan under its own hash, which comes back; writing it again changes nothing."""
        with told(self.root):
            return write_plan(self.root / "plans", plan)

    def has_plan(self, key: str) -> bool:
        """Whether the plan of that hash is there; says nothing about its bytes."""
        with told(self.root):
            return (self.root / "plans" / f"{key}.json").is_file()

    def read_plan(self, key: str) -> dict[str, Any]:
        """The plan of that hash; raises DamagedStore if it is missing or was changed."""
        with told(self.root):
            return read_plan(self.root / "plans" / f"{key}.json")


def _record(unit: str, attempt: Path, provenance: Mapping[str, object], members: Sequence[str]) -> Commit:
    files = listing(attempt)
    size_bytes = sum(one.size_bytes for one in files)
    return Commit(
        unit, attempt.name, sha256_of(files), size_bytes, files, dict(provenance), tuple(members), time.time_ns()
    )


def _remove(attempt: Path) -> None:
    attempt.with_suffix(".json").unlink(missing_ok=True)
    if attempt.is_dir():
        shutil.rmtree(attempt)
    else:
        attempt.unlink(missing_ok=True)
