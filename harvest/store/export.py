"""A verified copy of what a store holds: commits, the attempts they name, plans and views; itself a store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from harvest.errors import InputError, StoreError
from harvest.store.attempts import Slot, find, tree_of
from harvest.store.commit import Store
from harvest.store.gc import slots
from harvest.store.marker import require
from harvest.store.place import Place, in_parallel, is_url
from harvest.store.plan import is_plan, read_plan, write_plan
from harvest.store.record import Commit, read_record, sealed_commit


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has copied."""

    num_copied: int
    # units and views
    num_there: int
    # that an earlier export had copied, or the store had anyway
    size_bytes: int
    # of what was copied now


def export(source: Store, target: Store) -> Exported:
    """Copies all that is committed, in either direction between folders and buckets; run again, it goes on.

    Each file is compared with its record as it is read, and what it belongs to is committed last. Raises DamagedStore,
    naming the file, if the source is damaged, InputError if the target is no store of this layout, or has another
    commit of one of the units.
    """
    require(source.place)
    if source.root == target.root:
        raise InputError(f"export: {target.root} is the store itself; name another place")
    shorter, longer = sorted(map(_below, (source.root, target.root)), key=len)
    if longer.startswith(shorter):
        raise InputError(f"export: of {source.root} and {target.root} one is inside the other; name another place")
    target.prepare()
    sizes = []
    entries = source.place.list("")
    for slot in slots(entries):
        commit = find(source.place, slot)
        if commit is not None:
            sizes.append(_copy(source, target, slot, commit))
    plans = {entry.key.removeprefix("plans/").partition(".")[0] for entry in entries if entry.key.startswith("plans/")}
    for key in sorted(filter(is_plan, plans)):
        write_plan(target.place, read_plan(source.place, key))
    copied = [size for size in sizes if size is not None]
    return Exported(len(copied), len(sizes) - len(copied), sum(copied))


def _below(root: str) -> str:
    """What the names of all that is in a store begin with."""
    return f"{root if is_url(root) else Path(root).resolve()}".rstrip("/") + "/"


def _copy(source: Store, target: Store, slot: Slot, commit: Commit) -> int | None:
    """The bytes copied; None if they were there."""
    place = target.place
    there = find(place, slot)
    if there is not None:
        if replace(there, attempt=commit.attempt) != commit:
            raise InputError(
                f"export: {target.root} has another commit of {slot.name}; export to an empty place, or use that store"
            )
        return None
    tree = tree_of(source.place, slot, commit)
    commit = _placed(place, slot, commit)
    data = sealed_commit(commit)
    key = f"{slot.folder}/{commit.attempt}"
    in_parallel(lambda name: place.put(f"{key}/{name}".rstrip("/"), tree.read(name)), tree.files)
    place.settle(key)
    if not place.create(f"{slot.folder}/{commit.stem}.json", data):
        raise StoreError(f"export: {place.at(key)} was collected meanwhile; run again")
    if not place.create(slot.commit, data):
        raise InputError(f"export: {target.root} was given another commit of {slot.name} meanwhile; use that store")
    return commit.size_bytes


def _placed(place: Place, slot: Slot, commit: Commit) -> Commit:
    """The commit at the target: under another name where gc has collected what a stopped export left of it."""
    try:
        is_collected = read_record(place, f"{slot.folder}/{commit.stem}.json") is None
    except FileNotFoundError:
        is_collected = False
    return replace(commit, attempt=commit.attempt.replace(commit.stem, uuid4().hex)) if is_collected else commit
