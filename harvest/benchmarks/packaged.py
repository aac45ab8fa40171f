"""The files that come with the package: built-in benchmarks, and the words they are written with."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

PREFIX = "builtin:"
_FOLDER = files("harvest.benchmarks") / "builtin"


def builtin_names() -> list[str]:
    """What may stand after "builtin:", sorted, e.g. "c_voice.zh"."""
    return sorted(entry.name.removesuffix(".jsonl") for entry in _FOLDER.iterdir() if entry.name.endswith(".jsonl"))


def builtin_contents(name: str) -> bytes:
    """A built-in file. The caller has checked that the name is one of `builtin_names`: it never becomes a free path."""
    return (_FOLDER / f"{name}.jsonl").read_bytes()


def lexicon() -> dict[str, list[dict[str, Any]]]:
    """Per built-in benchmark, the words that stand for each value and its opposite."""
    words: dict[str, list[dict[str, Any]]] = json.loads((_FOLDER / "lexicon.json").read_text(encoding="utf-8"))
    return words
