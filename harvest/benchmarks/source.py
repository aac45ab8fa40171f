"""What a reader is given, and how it says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harvest.types import Item


@dataclass(frozen=True, slots=True)
class BenchmarkSource:
    """One entry of a study's `benchmarks`: one file, one language."""

    path: str
    # a file, or "builtin:<name>.<language>"
    format: str | None = None
    # a key of registry.FORMATS; None: told from the file
    value: str | None = None
    # a workbook of one value: its name; any other file: read this value only
    language: str | None = None
    # None: what the file says
    name: str | None = None
    # the benchmark's name; None: the format's
    seed: int = 0
    # of the choice of descriptions

    def benchmark(self, format_name: str, language: str) -> str:
        """The first part of every group of this source, "<name>.<language>"."""
        return f"{self.name or format_name}.{language}"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a benchmark file."""

    path: str
    what: str
    remedy: str
    row: int | None = None
    # as the editor or spreadsheet counts, from 1; None: the file as a whole
    sheet: str = ""

    def __str__(self) -> str:
        row = "" if self.row is None else str(self.row)
        inside = "!".join(part for part in (self.sheet, row) if part)
        return f"{self.path}{':' if inside else ''}{inside}: {self.what}; {self.remedy}"


class Faults:
    """Collects all faults of one file, so that its author mends them in one go."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: list[Fault] = []

    def add(self, what: str, remedy: str, row: int | None = None, sheet: str = "") -> None:
        self.found.append(Fault(self.path, what, remedy, row, sheet))


Reader = Callable[[BenchmarkSource, bytes, Faults], list[Item]]
"""The items of a file's clean rows; the faults of the others are added to the last argument."""
