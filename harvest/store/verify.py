"""Every byte of a store, compared with the records: whatever was changed, deleted, swapped or added is named."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harvest.errors import DamagedStore
from harvest.store.attempts import Slot, tree_of
from harvest.store.commit import Store
from harvest.store.gc import by_stem, is_unfinished, leftovers, slots, twin_key
from harvest.store.key import is_unit
from harvest.store.marker import MARKER, ROOMS, require
from harvest.store.place import Place, in_parallel
from harvest.store.plan import checksum, is_plan, plan_bytes
from harvest.store.record import STEM, Commit, parse_record, tombstone

GRACE_S = 2.0


@dataclass(frozen=True, slots=True, order=True)
class Damage:
    """A damaged file."""

    path: str
    # or its URL
    what: str
    # reads on after the path


Check = Callable[[], list[Damage]]


def verify_store(root: str | Path, grace_s: float = GRACE_S) -> list[Damage]:
    """All damage in the store, by path; empty if every file is what was written.

    A store can be written meanwhile: what looks amiss is looked at again after `grace_s`, which is longer than a
    writer is between the two files of a commit or a plan. Raises InputError if no store of this layout is there.
    """
    place = Store(root).place
    try:
        require(place)
    except DamagedStore:
        marker = Damage(place.at(MARKER), "was changed" if place.exists(MARKER) else "is missing")
        return sorted({marker, *_settled(list(_checks(place)), grace_s)})
    return _settled(list(_checks(place)), grace_s)


def orphans(root: str | Path) -> list[str]:
    """The paths, or URLs, of what killed or beaten writers left, or what is being written now: all harmless."""
    store = Store(root)
    try:
        return [store.place.at(one.key) for one in leftovers(store)]
    except DamagedStore:
        # its marker is lost, and verify says so
        return []


def _settled(checks: list[Check], grace_s: float) -> list[Damage]:
    amiss = [check for check, found in zip(checks, in_parallel(_run, checks), strict=True) if found]
    if amiss and grace_s:
        time.sleep(grace_s)
    return sorted({one for check in amiss for one in check()})


def _run(check: Check) -> list[Damage]:
    return check()


def _checks(place: Place) -> Iterator[Check]:
    entries = [one for one in place.list("") if not is_unfinished(one.key)]
    for slot in slots(entries):
        yield partial(_slot, place, slot)
    for key in {_plan_of(one.key) for one in entries} - {""}:
        yield partial(_plan, place, key)
    for entry in entries:
        if not _belongs(entry.key):
            yield partial(_stray, place, entry.key)


def _plan_of(key: str) -> str:
    room, _, name = key.partition("/")
    stem = name.removesuffix(".json").removesuffix(".sha256")
    return stem if room == "plans" and is_plan(stem) and stem != name else ""


def _belongs(key: str) -> bool:
    """Whether a file can be part of a store; what stands beside a record's own files is looked at with these."""
    room, _, rest = key.partition("/")
    if room not in ROOMS:
        return key == MARKER or key.startswith((".", "lost+found/"))
    name, _, inside = rest.partition("/")
    if room == "plans":
        return bool(_plan_of(key))
    is_known = is_plan(name.removesuffix(".json")) if room == "merged" else is_unit(name.removesuffix(".json"))
    if room == "commits" or (room == "merged" and not inside):
        return is_known and not inside and name.endswith(".json")
    return is_known and STEM.fullmatch(inside.partition("/")[0].partition(".")[0]) is not None


def _stray(place: Place, key: str) -> list[Damage]:
    return [Damage(place.at(key), "does not belong")] if place.exists(key) else []


def _slot(place: Place, slot: Slot) -> list[Damage]:
    """The damage to a unit or a view: its commit, the attempt that it names, and every other record."""
    try:
        data = place.read(slot.commit)
        commit = parse_record(data, slot.commit, place.at(slot.commit))
    except FileNotFoundError:
        return list(_uncommitted(place, slot))
    except DamagedStore:
        commit = None
    if commit is None:
        return [Damage(place.at(slot.commit), "was changed"), *_records(place, slot, "")[1]]
    amiss = [Damage(place.at(key), what) for key, what in tree_of(place, slot, commit).differences()]
    amiss += _same(place, f"{slot.folder}/{commit.stem}.json", data)
    return amiss + _records(place, slot, commit.stem)[1]


def _uncommitted(place: Place, slot: Slot) -> Iterator[Damage]:
    records, amiss = _records(place, slot, "")
    yield from amiss
    if records:
        yield Damage(place.at(slot.commit), "is missing (deleted, or its writer was stopped: `value-harvest gc` mends)")


def _records(place: Place, slot: Slot, winner: str) -> tuple[list[Commit], list[Damage]]:
    """The records of a slot's attempts but the winner's, and what is wrong with them and the tombstones."""
    records, amiss = [], []
    for stem, entries in by_stem(slot, place.list(slot.folder)).items():
        key, twin = f"{slot.folder}/{stem}.json", twin_key(slot, stem)
        keys = {entry.key for entry in entries}
        is_tombstone = twin in keys
        if stem != winner and key in keys:
            try:
                record = parse_record(place.read(key), key, place.at(key))
            except FileNotFoundError:
                continue
            except DamagedStore:
                amiss.append(Damage(place.at(key), "was changed"))
            else:
                records += [record] if record else []
                is_tombstone |= record is None
        if is_tombstone:
            data = tombstone(slot.name, stem)
            amiss += [*_same(place, key, data), *_same(place, twin, data)]
    return records, amiss


def _same(place: Place, key: str, data: bytes) -> list[Damage]:
    try:
        return [] if place.read(key) == data else [Damage(place.at(key), "was changed")]
    except FileNotFoundError:
        return [Damage(place.at(key), "is missing")]


def _plan(place: Place, key: str) -> list[Damage]:
    name = f"plans/{key}.json"
    try:
        data = plan_bytes(place, key)
    except DamagedStore:
        return [Damage(place.at(name), "was changed" if place.exists(name) else "is missing")]
    return _same(place, f"plans/{key}.sha256", checksum(key, data))
