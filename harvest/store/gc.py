"""What no commit names, and its removal while others write. The rule, and why it is safe: docs/adr/0011."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from harvest.errors import DamagedStore
from harvest.store.attempts import Slot, adopt, find, unit_slot, view_slot
from harvest.store.commit import Store
from harvest.store.key import is_unit
from harvest.store.marker import require
from harvest.store.place import Entry, Place
from harvest.store.plan import is_plan
from harvest.store.record import STEM, read_record, tombstone

HOUR_S = 3600.0

Kind = Literal["beaten", "collected", "unfinished", "whole"]
WHY: dict[Kind, str] = {
    "beaten": "another attempt was committed",
    "collected": "collected before it was whole",
    "unfinished": "unfinished",
    "whole": "recorded, and its writer was stopped before the commit",
}


@dataclass(frozen=True, slots=True)
class Leftover:
    """An attempt, or a file, that no commit names."""

    key: str
    # of an attempt without its suffix
    kind: Kind
    size_bytes: int
    modified_s: float
    keys: tuple[str, ...]
    slot: Slot | None
    # none: a file on its own
    path: str
    # or its URL

    @property
    def why(self) -> str:
        return WHY[self.kind]


def slots(entries: Iterable[Entry]) -> dict[Slot, list[Entry]]:
    """Every unit and view of which there is something, with the files of its attempts."""
    found: dict[Slot, list[Entry]] = defaultdict(list)
    for entry in entries:
        room, _, rest = entry.key.partition("/")
        name, _, inside = rest.partition("/")
        name = name if inside else name.removesuffix(".json")
        if room in ("attempts", "commits") and is_unit(name):
            slot = unit_slot(name)
        elif room == "merged" and is_plan(name):
            slot = view_slot(name)
        else:
            continue
        found[slot] += [entry] if inside else []
    return dict(found)


def by_stem(slot: Slot, entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The files of each attempt, its record among them."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        name = entry.key.removeprefix(f"{slot.folder}/").partition("/")[0]
        if STEM.fullmatch(stem := name.partition(".")[0]):
            found[stem].append(entry)
    return dict(found)


def leftovers(store: Store) -> list[Leftover]:
    """What killed or beaten writers left, or is being written now: harmless, and nothing refers to it.

    What belongs to a damaged record is not among it: nobody can say what that was. Raises InputError if this is no
    store of this layout.
    """
    require(store.place)
    entries = store.place.list("")
    found = [
        Leftover(
            entry.key, "unfinished", entry.size_bytes, entry.modified_s, (entry.key,), None, store.place.at(entry.key)
        )
        for entry in entries
        if is_unfinished(entry.key)
    ]
    for slot, files in slots(entries).items():
        found += _of_slot(store.place, slot, files)
    return sorted(found, key=lambda one: one.key)


def is_unfinished(key: str) -> bool:
    """Whether a file is one that was to be linked to its own name."""
    name = key.rpartition("/")[2]
    return name.startswith(".") and STEM.fullmatch(name[1:]) is not None


def _of_slot(place: Place, slot: Slot, files: list[Entry]) -> Iterator[Leftover]:
    try:
        commit = find(place, slot)
    except DamagedStore:
        return
    for stem, entries in by_stem(slot, files).items():
        if commit is not None and commit.stem == stem:
            continue
        kind = "beaten" if commit is not None else _state(place, f"{slot.folder}/{stem}.json")
        own = [entry for entry in entries if kind != "collected" or not _marks(entry.key, slot, stem)]
        if kind is not None and own:
            yield Leftover(
                f"{slot.folder}/{stem}",
                kind,
                sum(entry.size_bytes for entry in own),
                max(entry.modified_s for entry in own),
                tuple(entry.key for entry in own),
                slot,
                place.at(f"{slot.folder}/{stem}"),
            )


def _state(place: Place, record_key: str) -> Kind | None:
    """What an attempt without a commit is; None where its record is damaged."""
    try:
        return "collected" if read_record(place, record_key) is None else "whole"
    except FileNotFoundError:
        return "unfinished"
    except DamagedStore:
        return None


def _marks(key: str, slot: Slot, stem: str) -> bool:
    return key in (f"{slot.folder}/{stem}.json", twin_key(slot, stem))


def twin_key(slot: Slot, stem: str) -> str:
    """Where a tombstone's copy stands, so that the loss of either is seen."""
    return f"{slot.folder}/{stem}.collected"


@dataclass(frozen=True, slots=True)
class Swept:
    """What a look through a store found."""

    listed: tuple[Leftover, ...]
    young: int
    # of those, how many were left alone because they are young
    done: int
    # how many were removed, or committed where they were whole
    size_bytes: int
    # of what was removed

    @property
    def summary(self) -> str:
        return (
            f"leftovers: {len(self.listed)}; removed or committed: {self.done} ({self.size_bytes} bytes freed); "
            f"left alone because they are young: {self.young}"
        )


def sweep(store: Store, older_than_s: float = HOUR_S, delete: bool = False) -> Swept:
    """Lists leftovers, and with `delete` removes those that are old enough, or commits them where they are whole.

    Safe at any age while others write: the age only spares a live writer from writing again.
    """
    # a writer's clock is not this one, so nothing is safe because it is old
    latest = time.time() - older_than_s
    listed = found = leftovers(store)
    done = []
    if delete:
        done = [one for one in _old(found, latest) if one.kind == "whole" and _settle(store.place, one)]
        # what stands beside an attempt that is committed now is beaten
        found = leftovers(store) if done else found
        done += [one for one in _old(found, latest) if one.kind != "whole" and _settle(store.place, one)]
    freed = sum(one.size_bytes for one in done if one.kind != "whole")
    return Swept(tuple(listed), len(listed) - len(_old(listed, latest)), len(done), freed)


def _old(found: Iterable[Leftover], latest: float) -> list[Leftover]:
    return [one for one in found if one.modified_s <= latest]


def _settle(place: Place, one: Leftover) -> bool:
    """Whether it is a leftover no more."""
    slot, stem = one.slot, one.key.rpartition("/")[2]
    if slot is not None and one.kind == "whole":
        # of several whole ones one is adopted, and the others are beaten
        made = adopt(place, slot)
        return made is not None and made.stem == stem
    if slot is not None and one.kind == "unfinished":
        data = tombstone(slot.name, stem)
        if not place.create(f"{one.key}.json", data):
            # its writer was alive: it has a record now
            return False
        place.create(twin_key(slot, stem), data)
    for key in _roots(one):
        place.remove(key)
    return True


def _roots(one: Leftover) -> list[str]:
    """What to remove, each file or folder once; a record last, so that an attempt is never without its own."""
    depth = one.key.count("/") + 1
    found = {"/".join(key.split("/")[:depth]) for key in one.keys}
    return sorted(found, key=lambda key: (key.endswith(".json"), key))
