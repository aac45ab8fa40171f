"""JSON files that protect themselves: each carries the digest of its own content. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harvest.errors import DamagedStore
from harvest.store.key import canonical_json, digest


def seal(body: Mapping[str, object]) -> bytes:
    """The body as it is stored, with its digest."""
    return canonical_json({**body, "digest": digest(dict(body))})


def unseal(data: bytes, where: str) -> dict[str, Any]:
    """The body that was sealed; raises DamagedStore, naming where it was read from, if a byte of it was changed."""
    try:
        body: dict[str, Any] = json.loads(data)
        del body["digest"]
        intact = seal(body) == data
    except (ValueError, TypeError, KeyError):
        intact = False
    if not intact:
        raise damaged(where, "was changed", where)
    return body


def damaged(file: str, what: str, delete: str) -> DamagedStore:
    """The error for a damaged file, with the file or folder whose deletion lets the next run mend it."""
    return DamagedStore(f"{file} {what}; delete {delete} and run again (`value-harvest verify` lists all damage)")
