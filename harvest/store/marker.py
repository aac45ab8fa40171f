"""store.json: what says that a place is a store, and of which layout. It is made before anything else."""

from __future__ import annotations

import platform

from harvest.errors import DamagedStore, InputError, StoreError
from harvest.store.place import Place
from harvest.store.sealed import damaged, seal, unseal

MARKER = "store.json"
FORMAT = "value-harvest store"
LAYOUT = 1
# raise it when what is in a store can no longer be read by the code before
ROOMS = ("attempts", "commits", "merged", "plans")


def prepare(place: Place) -> None:
    """Makes the marker, or checks the one that is there.

    Raises InputError if something else is there, or a store of another layout, DamagedStore if the marker was changed.
    Nothing is written then.
    """
    if has_marker(place):
        return
    stray = strays(place)
    # what another made since it was looked for is no stray
    if stray and not has_marker(place):
        raise InputError(
            f"store {place.root}: holds other files ({stray[0]}) and no {MARKER}; name an empty folder, or a new one"
        )
    if not place.create(MARKER, seal({"format": FORMAT, "layout": LAYOUT})):
        has_marker(place)


def has_marker(place: Place) -> bool:
    """Whether there is a marker; raises as prepare does if it is not this layout's."""
    try:
        data = place.read(MARKER)
    except FileNotFoundError:
        return False
    body = unseal(data, place.at(MARKER))
    if "format" not in body:
        # whole, but what another file holds
        raise damaged(place.at(MARKER), "was changed", place.at(MARKER))
    if body["format"] != FORMAT or body.get("layout") != LAYOUT:
        raise InputError(
            f"store {place.root}: {MARKER} says {body['format']} {body.get('layout')!r}, which is not "
            f"{FORMAT} {LAYOUT}; use the version of value-harvest that made it, or set another `store:`"
        )
    return True


def require(place: Place) -> None:
    """Raises InputError unless this is a store of this layout, DamagedStore if its marker is lost or changed."""
    if has_marker(place):
        return
    if not set(strays(place)) & set(ROOMS):
        raise InputError(f"there is no store at {place.root}; name the folder, or the s3:// URL, that holds {MARKER}")
    raise lost_marker(place)


def expect(place: Place) -> None:
    """Raises StoreError unless the store that the driver made is here: whoever writes to it may not make another.

    Raises as prepare does if it is of another layout, or its marker was changed.
    """
    if not has_marker(place):
        raise StoreError(
            f"store {place.root}: is not there on {platform.node()}, which sees no {MARKER} in it (is it mounted?); "
            "make it the same on every node and run again"
        )


def lost_marker(place: Place) -> DamagedStore:
    return damaged(place.at(MARKER), "is missing", f"nothing, but copy {MARKER} from another store of this version")


def strays(place: Place) -> list[str]:
    """What stands in the place; hidden files, and what a file system puts at its own root, are nobody's."""
    # not what is below: the place may be the root of a whole disk
    return [name for name in place.names() if not name.startswith(".") and name != "lost+found"]
