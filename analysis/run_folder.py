"""The folder of a run: where its files are, and which stages are finished.

A stage is finished when its record names the inputs it had and its outputs are still the bytes it wrote. The record
is written last, so a stage that was cut off is run again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from harvest.errors import ConfigError, InputError
from harvest.store.key import digest

_STAGES_VERSION = 1
# raise it when a stage would write other files from the same inputs
_LARGE = 10**15
# no number of a run's files comes near
NO_FIELDS: Mapping[str, type] = {}


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people, whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path, stage: str, fields: Mapping[str, type | tuple[type, ...]] = NO_FIELDS) -> dict[str, Any]:
    """A file of the run that has these fields, each of its type; one that may be null may be missing.

    Raises InputError, naming the stage that writes it, if it is missing or damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run `value-harvest {stage} STUDY.yaml` first") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON; delete it and run `value-harvest {stage} STUDY.yaml` again") from error
    is_whole = isinstance(value, dict) and all(
        isinstance(value.get(name), kind) and is_plain(value.get(name)) for name, kind in fields.items()
    )
    if not is_whole:
        raise InputError(
            f"{path}: is not what {stage} writes; delete it and run `value-harvest {stage} STUDY.yaml` again"
        )
    return dict(value)


def is_plain(value: Any) -> bool:
    """Whether a text can be printed and be a path, and a number be computed with; the rest is left to its type."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
    return not isinstance(value, int | float) or -_LARGE < value < _LARGE


@dataclass(frozen=True, slots=True)
class RunFolder:
    root: Path

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def prepare(self, setting: str = "out") -> None:
        """Make the folder, or raise ConfigError, naming the setting, if it cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".writable.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except (OSError, ValueError) as error:
            # ValueError: a name that no file can have, such as one with a NUL
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(
                f"{setting}: {str(self.root)!r} cannot be written ({why}); choose another folder"
            ) from error

    def file_digest(self, name: str, stage: str) -> str:
        """sha256 of a file that an earlier stage wrote; raises InputError if it is missing."""
        path = self / name
        if not path.is_file():
            raise InputError(f"{path}: no such file; run `value-harvest {stage} STUDY.yaml` first")
        return sha256(path.read_bytes()).hexdigest()

    def stage(
        self,
        name: str,
        inputs: Any,
        outputs: Sequence[str],
        work: Callable[[], None],
        *,
        is_intact: Callable[[], bool] = lambda: True,
        resting: Iterable[str] = (),
    ) -> bool:
        """Do the work unless it is finished for these inputs and intact, asked last; whether it was done now.

        The records of the stages that rest on it are dropped where they can't fit any more: at once if the inputs are
        others, and afterwards if the outputs became others.
        """
        if self.is_finished(name, inputs, outputs) and is_intact():
            return False
        # made first: from here on the folder is a run's
        self._record(name).parent.mkdir(exist_ok=True)
        path = self._record(name)
        before = read_json(path, name) if path.is_file() else {}
        self._forget([name] if before.get("inputs") == _key(inputs) else [name, *resting])
        work()
        now = {"inputs": _key(inputs), "outputs": {output: self.file_digest(output, name) for output in outputs}}
        if now != before:
            self._forget(resting)
        write_json(path, now)
        return True

    def is_finished(self, name: str, inputs: Any, outputs: Sequence[str]) -> bool:
        """Whether the stage was finished for these inputs, and what it wrote is still there, unchanged."""
        if not self._record(name).is_file() or not all((self / output).is_file() for output in outputs):
            return False
        now = {output: self.file_digest(output, name) for output in outputs}
        return read_json(self._record(name), name) == {"inputs": _key(inputs), "outputs": now}

    def _forget(self, stages: Iterable[str]) -> None:
        for stage in stages:
            self._record(stage).unlink(missing_ok=True)

    def _record(self, name: str) -> Path:
        return self / f".stages/{name}.json"


def _key(inputs: Any) -> str:
    return digest({"version": _STAGES_VERSION, "inputs": inputs})
