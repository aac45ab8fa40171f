"""Any number of attempts at one thing, of which one counts: units and merged views are both made so.

    <folder>/<uuid><suffix>   an attempt, written whole, never changed
    <folder>/<uuid>.json      its record, or its tombstone: created once, whichever comes first
    <commit>.json             the winner's record, created once

An attempt without a record is being written, or its writer is gone: nobody can tell, so gc claims it by creating its
tombstone, and a writer that finds one writes again under another name. An attempt with a record is whole and stays
until another's commit is there. See docs/adr/0011.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from harvest.errors import DamagedStore, StoreError
from harvest.store.folder import FULL
from harvest.store.place import Place
from harvest.store.record import Commit, parse_record, read_record, sealed_commit
from harvest.store.sealed import damaged
from harvest.store.tree import listing, sha256_of
from harvest.store.verified import Tree


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the attempts at one thing stand."""

    name: str
    # of the unit or the view
    folder: str
    commit: str
    # the key of the winner's record


@dataclass(frozen=True, slots=True)
class Draft:
    """What an attempt will be."""

    suffix: str
    write: Callable[[Path], None]
    # makes it, a file or a folder, at the fresh local path it is given; called again for another attempt
    provenance: Mapping[str, object]
    members: tuple[str, ...] = ()


def unit_slot(unit: str) -> Slot:
    return Slot(unit, f"attempts/{unit}", f"commits/{unit}.json")


def view_slot(view: str) -> Slot:
    return Slot(view, f"merged/{view}", f"merged/{view}.json")


def find(place: Place, slot: Slot) -> Commit | None:
    """The commit, or None; raises DamagedStore if its record was changed."""
    try:
        commit = read_record(place, slot.commit)
    except FileNotFoundError:
        return None
    if commit is None:
        raise damaged(place.at(slot.commit), "was changed", place.at(slot.commit))
    return commit


def tree_of(place: Place, slot: Slot, commit: Commit) -> Tree:
    """The committed attempt, of which nothing has been read."""
    return Tree(place, f"{slot.folder}/{commit.attempt}", commit.files, place.at(slot.commit))


def commit(place: Place, slot: Slot, draft: Draft) -> Commit:
    """The commit: of an attempt made now, or an earlier one's.

    What is raised is what stood in the way, and then nothing was committed: if another's commit is there by now, that
    comes back instead.
    """
    winner = find(place, slot) or adopt(place, slot)
    while winner is None:
        try:
            winner = _attempt(place, slot, draft)
        except Exception:
            # asked, not assumed: what was sent may have been done, or another may have committed meanwhile
            with suppress(StoreError):
                winner = find(place, slot)
            if winner is None:
                raise
    return winner


def _attempt(place: Place, slot: Slot, draft: Draft) -> Commit | None:
    """The commit after one attempt, or None if that was collected while it was written."""
    stem = uuid4().hex
    key, record_key = f"{slot.folder}/{stem}{draft.suffix}", f"{slot.folder}/{stem}.json"
    try:
        with place.staged(key) as path:
            draft.write(path)
            record = _record(slot, path, draft)
            place.land(path, key, record.files)
    except BaseException as error:
        # no record was asked for, so nobody adopts it; what can't be removed now is left to gc
        with suppress(StoreError):
            place.remove(key)
            if isinstance(error, Exception) and place.exists(record_key):
                return None
        raise
    data = sealed_commit(record)
    if not _is_recorded(place, key, record_key, data):
        place.remove(key)
        return None
    if place.create(slot.commit, data):
        return record
    winner = find(place, slot)
    if winner is not None and winner.stem != stem:
        place.remove(key)
        place.remove(record_key)
    return winner


def _is_recorded(place: Place, key: str, record_key: str, data: bytes) -> bool:
    try:
        return place.create(record_key, data)
    except StoreError as error:
        # over a network it may be made yet, and adopted; a full disk has not made it, and needs the room
        if getattr(error.__cause__, "errno", None) in FULL:
            place.remove(key)
        raise


def _record(slot: Slot, path: Path, draft: Draft) -> Commit:
    files = listing(path)
    size_bytes = sum(one.size_bytes for one in files)
    provenance = dict(draft.provenance)
    return Commit(slot.name, path.name, sha256_of(files), size_bytes, files, provenance, draft.members, time.time_ns())


def adopt(place: Place, slot: Slot) -> Commit | None:
    """The commit of an attempt whose writer was stopped between record and commit, if there is a whole one."""
    for entry in place.list(slot.folder):
        if not entry.key.endswith(".json") or "/" in entry.key.removeprefix(f"{slot.folder}/"):
            continue
        with suppress(FileNotFoundError, DamagedStore):
            data = place.read(entry.key)
            record = parse_record(data, entry.key, place.at(entry.key))
            if record is None or (tree := tree_of(place, slot, record)).differences():
                continue
            place.settle(tree.key)
            place.create(slot.commit, data)
            return find(place, slot)
    return None
