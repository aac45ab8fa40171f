"""Plans, kept under their own hash, with a checksum beside each so that a deleted one is missed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import blake2b, sha256
from typing import Any

from harvest.store.key import canonical_json, digest
from harvest.store.place import Place
from harvest.store.sealed import damaged

_KEY = re.compile(r"[0-9a-f]{40}")


def is_plan(key: str) -> bool:
    """Whether a text is a key that write_plan gives."""
    return _KEY.fullmatch(key) is not None


def plan_key(key: str) -> str:
    """Where a plan is; raises ValueError on what isn't the hash of one."""
    if not is_plan(key):
        raise ValueError(f"plan {key!r}: not a hash that write_plan gives")
    return f"plans/{key}.json"


def write_plan(place: Place, plan: Mapping[str, object]) -> str:
    """Writes the plan and its checksum; the plan's hash comes back. Raises DamagedStore if another one is there."""
    data, key = canonical_json(dict(plan)), digest(dict(plan))
    for name, content in ((f"plans/{key}.json", data), (f"plans/{key}.sha256", checksum(key, data))):
        if not place.create(name, content):
            raise damaged(place.at(name), "was changed", place.at(name))
    return key


def checksum(key: str, data: bytes) -> bytes:
    """What stands in the file beside a plan, as `sha256sum --check` reads it."""
    return f"{sha256(data).hexdigest()}  {key}.json\n".encode()


def read_plan(place: Place, key: str) -> dict[str, Any]:
    """The plan of that hash; raises DamagedStore if it is missing or its content isn't what its name says."""
    return dict(json.loads(plan_bytes(place, key)))


def plan_bytes(place: Place, key: str) -> bytes:
    """The same as it is stored."""
    name = plan_key(key)
    try:
        data = place.read(name)
    except FileNotFoundError:
        raise damaged(place.at(name), "is missing", place.at(f"plans/{key}.sha256")) from None
    if blake2b(data, digest_size=20).hexdigest() != key:
        raise damaged(place.at(name), "was changed", place.at(name))
    return data
