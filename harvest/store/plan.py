"""Plans, kept under their own hash, with a checksum beside each so that a deleted one is missed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

from harvest.store.key import canonical_json, digest
from harvest.store.sealed import damaged, write_whole


def write_plan(folder: Path, plan: Mapping[str, object]) -> str:
    """Writes the plan and its checksum into the folder; the plan's hash comes back."""
    data, key = canonical_json(dict(plan)), digest(dict(plan))
    write_whole(folder / f"{key}.json", data)
    write_whole(folder / f"{key}.sha256", checksum(key, data))
    return key


def checksum(key: str, data: bytes) -> bytes:
    """What stands in the file beside a plan, as `sha256sum --check` reads it."""
    return f"{sha256(data).hexdigest()}  {key}.json\n".encode()


def read_plan(path: Path) -> dict[str, Any]:
    """The plan at a path; raises DamagedStore if it is missing or its content isn't what its name says."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise damaged(path, "is missing", path.with_suffix(".sha256")) from None
    if blake2b(data, digest_size=20).hexdigest() != path.stem:
        raise damaged(path, "was changed", path)
    return dict(json.loads(data))
