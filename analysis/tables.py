"""Parquet in and out: whole files only, and an error that says which stage makes a missing one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from harvest.errors import SelectionError

_ROWS = 1024
# that are Python's objects at once


def write_table(path: Path, table: pa.Table) -> None:
    """Write `table`; a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # its own name per writer, so that two of them never share a half-written file
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        pq.write_table(table, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def table_of(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """The rows as a table, made a part at a time: as Python's objects all at once they would take ten times as much."""
    left, parts = iter(rows), [schema.empty_table()]
    while some := list(islice(left, _ROWS)):
        parts.append(pa.Table.from_pylist(some, schema=schema))
    return pa.concat_tables(parts)


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """A table's rows, made a part at a time."""
    for batch in table.to_batches(max_chunksize=_ROWS):
        yield from batch.to_pylist()


def read_table(path: Path, columns: Collection[str], stage: str) -> pa.Table:
    """The whole table.

    Raises SelectionError if the file is missing, is not Parquet or lacks one of `columns`; `stage` is the command
    that writes it.
    """
    remedy = f"run `value-harvest {stage} STUDY.yaml`"
    if not path.is_file():
        raise SelectionError(f"{path}: no such file; {remedy}")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise SelectionError(f"{path}: not a readable Parquet file ({error}); delete it and {remedy}") from error
    missing = sorted(set(columns) - set(table.column_names))
    if missing:
        raise SelectionError(f"{path}: the columns {', '.join(missing)} are missing; delete it and {remedy}")
    return table
