"""Merged views: built once from commits, published as attempts are committed, and never changed.

merged/<hash>/<uuid><suffix>     the view
merged/<hash>/<uuid>.json        its record
merged/<hash>.json               its commit
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from harvest.errors import NeedsRows, StoreError
from harvest.store import attempts, marker
from harvest.store.arrays import check_whole
from harvest.store.attempts import Draft, Slot, view_slot
from harvest.store.place import Place
from harvest.store.places import above
from harvest.store.record import Commit, read_record
from harvest.store.sealed import damaged
from harvest.store.tree import listing
from harvest.store.verified import Tree

Sources = Sequence[tuple[str, str]]
# (unit, sha256), in the order in which they were folded


def publish(place: Place, key: str, suffix: str, sources: Sources, build: Callable[[Path], None]) -> str:
    """The view's path or URL, after building it, or verifying the one that is there.

    One whose files were deleted is built again where it was. Raises DamagedStore if the one that is there isn't what
    was published, StoreError if the disk is full.
    """

    def write(path: Path) -> None:
        build(path)
        check_whole(path)

    slot, draft = view_slot(key), Draft(suffix, write, {"sources": list(sources)})
    found = attempts.find(place, slot)
    if found is None:
        marker.expect(place)
        found = attempts.commit(place, slot, draft)
    else:
        _mend(place, slot, draft, attempts.tree_of(place, slot, found))
    return str(attempts.tree_of(place, slot, found))


def _mend(place: Place, slot: Slot, draft: Draft, tree: Tree) -> None:
    missing = []
    for file, what in tree.differences():
        if what != "is missing":
            raise damaged(place.at(file), what, tree.record)
        missing.append(file.removeprefix(tree.key).lstrip("/"))
    if not missing:
        return
    # an attempt without a record, which gc takes if this process is killed
    again = f"{slot.folder}/{uuid4().hex}{draft.suffix}"
    try:
        with place.staged(again) as path:
            draft.write(path)
            if listing(path) != tuple(tree.files.values()):
                raise damaged(str(tree), "is missing in part, and folding it again gives other bytes", tree.record)
            for name in missing:
                place.put(tree.key_of(name), (path / name).read_bytes())
        place.settle(tree.key)
    finally:
        with suppress(StoreError):
            place.remove(again)


def view_record(path: str | Path) -> Commit | None:
    """The commit of the view at a path or URL, None if it has none; raises DamagedStore if that was changed."""
    folder, name = above(path)
    merged, key = above(folder.root)
    try:
        record = read_record(merged, f"{key}.json")
    except FileNotFoundError:
        return None
    return record if record is not None and record.attempt == name else None


def is_published(path: str | Path) -> bool:
    """Whether a view and its commit are there; says nothing about their bytes."""
    place, name = above(path)
    return view_record(path) is not None and bool(place.list(name))


def open_view(path: str | Path, absent: str = "") -> Tree:
    """The files of a published view, of which nothing has been read.

    Raises DamagedStore if it has no commit; NeedsRows, saying what is absent and how to get it, if there is no view.
    """
    place, name = above(path)
    record = view_record(path)
    if record is None:
        if absent and not place.list(name):
            raise NeedsRows(absent)
        raise damaged(f"{place.root}.json", "is missing", place.root)
    return Tree(place, name, record.files, f"{place.root}.json")
