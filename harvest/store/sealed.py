"""JSON files that protect themselves: each carries the digest of its own content, and appears whole or not at all."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from harvest.errors import DamagedStore, StoreError
from harvest.store.key import canonical_json, digest


def seal(body: Mapping[str, object]) -> bytes:
    """The body as it stands on disk, with its digest."""
    return canonical_json({**body, "digest": digest(dict(body))})


def unseal(data: bytes, path: Path) -> dict[str, Any]:
    """The body that was sealed; raises DamagedStore, naming the path it was read from, if a byte of it was changed."""
    try:
        body: dict[str, Any] = json.loads(data)
        del body["digest"]
        intact = seal(body) == data
    except (ValueError, TypeError, KeyError):
        intact = False
    if not intact:
        raise damaged(path, "was changed", path)
    return body


def damaged(file: Path, what: str, delete: Path) -> DamagedStore:
    """The error for a damaged file, with the file or folder whose deletion lets the next run mend it."""
    return DamagedStore(f"{file} {what}; delete {delete} and run again (`value-harvest verify` lists all damage)")


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that no reader ever sees half written; an older one of that name is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{uuid4().hex}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def told(root: Path) -> Iterator[None]:
    """Turns what the operating system says about a store into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason, remedy = "no space left", "what is committed is safe: free some space and run again"
        else:
            reason, remedy = f"{error.strerror or error} ({error.filename})", "make it usable or set another `store:`"
        raise StoreError(f"store {root}: {reason}; {remedy}") from error
