"""A path or a URL becomes a place."""

from __future__ import annotations

from pathlib import Path

from harvest.errors import InputError
from harvest.store.bucket import bucket_at
from harvest.store.folder import Folder
from harvest.store.place import Place, is_url


def place_at(root: str | Path, fsync: bool = False) -> Place:
    """The place of a store's root; raises InputError on a URL that isn't s3://BUCKET/PREFIX."""
    if is_url(root):
        if fsync:
            raise InputError(f"store.fsync: {root} is a bucket, which keeps what it has answered for; leave it out")
        return bucket_at(str(root))
    if str(root).startswith("s3:"):
        raise InputError(f"store {root}: a URL that was taken for a path; write s3://BUCKET/PREFIX")
    return Folder(str(Path(root).absolute()), fsync)


def above(path: str | Path) -> tuple[Place, str]:
    """The folder that something stands in, and its name there."""
    if is_url(path):
        url, _, name = str(path).rstrip("/").rpartition("/")
        return place_at(url), name
    path = Path(path).absolute()
    return place_at(path.parent), path.name
