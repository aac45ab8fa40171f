"""Exactly-once storage, blind to what it stores: any number of attempts at a unit, and one that counts.

    store.json                         what this is
    plans/<hash>.json, .sha256         what was planned
    attempts/<unit>/<uuid><suffix>     one attempt, written whole, never changed
    attempts/<unit>/<uuid>.json        its record
    commits/<unit>.json                the winner's record, created once
    merged/…                           views: view.py

Creating the commit is the one atomic step. An attempt without it means nothing, so killed writers, retries and zombies
are harmless. This survives the death of processes; a power cut only in a bucket, or with `fsync`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harvest.errors import ConfigError, StoreError
from harvest.store import attempts, marker
from harvest.store.attempts import Draft, unit_slot
from harvest.store.key import is_unit
from harvest.store.place import Place, in_parallel
from harvest.store.places import place_at
from harvest.store.plan import plan_key, read_plan, write_plan
from harvest.store.record import Commit
from harvest.store.verified import Tree

__all__ = ["Commit", "Store"]

_NO_FOLDER = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)


@dataclass(frozen=True, init=False)
class Store:
    """Committed units in a folder or a bucket. Holds no state, so it travels to workers as a path does.

    Only `prepare` makes it: where it is gone, or not mounted, nothing is written.
    """

    root: str
    # an absolute path, or s3://BUCKET/PREFIX
    fsync: bool
    place: Place = field(compare=False, repr=False)

    def __init__(self, root: str | Path, fsync: bool = False) -> None:
        """Raises InputError on a URL that isn't s3://BUCKET/PREFIX; looks at nothing yet."""
        place = place_at(root, fsync)
        for name, value in (("root", place.root), ("fsync", fsync), ("place", place)):
            object.__setattr__(self, name, value)

    def prepare(self) -> Store:
        """This store, made if it isn't there.

        Raises ConfigError if it can't be made, InputError on something else or a store of another layout, DamagedStore
        if its marker was changed, StoreError if it can't be reached.
        """
        try:
            marker.prepare(self.place)
        except ValueError as error:
            # a name that no file can have, such as one with a NUL
            raise ConfigError(f"store: {self.root!r} cannot be written ({error}); choose another folder") from error
        except StoreError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in _NO_FOLDER:
                raise ConfigError(
                    f"store: {self.root!r} cannot be written ({cause.strerror}); choose another folder"
                ) from error
            raise
        return self

    def check(self) -> None:
        """Raises InputError unless this is a store of this layout, DamagedStore if its marker is lost or changed."""
        marker.require(self.place)

    def commit(
        self,
        unit: str,
        suffix: Literal[".zarr", ".parquet"],
        write: Callable[[Path], None],
        provenance: Mapping[str, object],
        members: Sequence[str] = (),
    ) -> Commit:
        """The unit's commit: this attempt's, or an earlier one's if this came too late and was thrown away.

        `write` makes the attempt, a file or a folder, at the local path it is given. Raises StoreError if the disk is
        full, or the store isn't there or can't be written or reached; then nothing is committed.
        """
        slot = unit_slot(_known(unit))
        marker.expect(self.place)
        return attempts.commit(self.place, slot, Draft(suffix, write, provenance, tuple(members)))

    def find(self, unit: str) -> Commit | None:
        """The unit's commit, or None; raises DamagedStore if its record was changed."""
        return attempts.find(self.place, unit_slot(_known(unit)))

    def settle(self, unit: str) -> Commit | None:
        """The unit's commit, after committing a whole attempt whose writer was stopped one step before; or None.

        Raises as find does, and StoreError if the store can't be written.
        """
        slot = unit_slot(_known(unit))
        return attempts.find(self.place, slot) or attempts.adopt(self.place, slot)

    def find_all(self, units: Iterable[str]) -> list[Commit | None]:
        """The commits of many units, in their order."""
        return in_parallel(self.find, units)

    def committed(self, units: Iterable[str]) -> set[str]:
        """Those of the units that have a commit."""
        return set(units) & {name for name in self._committed() if is_unit(name)}

    def commits(self, kind: str, known: Container[str] = ()) -> list[Commit]:
        """Every commit of a kind but those of the known units, in an order that all who see the same agree on.

        By the time that each writer's clock showed, then by name: about the order in which they were made. Two runs
        that make the same answers at the same time commit both, and as clocks differ and jump, the later one can come
        to stand first.
        """
        every = (name for name in self._committed() if name not in known)
        names = [name for name in every if name.startswith(f"{kind}-") and is_unit(name)]
        found = [one for one in self.find_all(names) if one is not None]
        return sorted(found, key=lambda one: (one.created_ns, one.unit))

    def _committed(self) -> list[str]:
        keys = (one.key.removeprefix("commits/") for one in self.place.list("commits"))
        return [key.removesuffix(".json") for key in keys if key.endswith(".json")]

    def open(self, commit: Commit) -> Tree:
        """The committed attempt, whose files are compared with the commit as they are read."""
        return attempts.tree_of(self.place, unit_slot(commit.unit), commit)

    def write_plan(self, plan: Mapping[str, object]) -> str:
        """Keeps a plan under its own hash, which comes back; writing it again changes nothing.

        Raises StoreError if the store isn't there.
        """
        marker.expect(self.place)
        return write_plan(self.place, plan)

    def has_plan(self, key: str) -> bool:
        """Whether the plan of that hash is there; says nothing about its bytes. Raises ValueError on no hash."""
        return self.place.exists(plan_key(key))

    def read_plan(self, key: str) -> dict[str, Any]:
        """The plan of that hash; raises DamagedStore if it is missing or was changed."""
        return read_plan(self.place, key)


def _known(unit: str) -> str:
    if not is_unit(unit):
        raise ValueError(f"unit {unit!r}: not a name that unit_name gives")
    return unit
