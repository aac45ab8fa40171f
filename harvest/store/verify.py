"""Every byte of a store, compared with the records: whatever was changed, deleted, swapped or added is named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harvest.errors import DamagedStore, InputError
from harvest.store.commit import Commit, Store
from harvest.store.key import is_unit
from harvest.store.plan import checksum, read_plan
from harvest.store.record import read_record
from harvest.store.tree import differences
from harvest.store.view import read_view, record_path


@dataclass(frozen=True, slots=True, order=True)
class Damage:
    """A damaged file."""

    path: Path
    what: str
    # reads on after the path


def verify_store(root: Path) -> list[Damage]:
    """All damage in the store, by path; empty if every file is what was written. Raises InputError if none is there."""
    if not root.is_dir():
        raise InputError(f"store {root} does not exist; name the folder that holds commits/ and attempts/")
    if not any((root / name).is_dir() for name in ("plans", "attempts", "commits", "merged")):
        raise InputError(f"{root} is not a store; name the folder that holds commits/ and attempts/")
    store = Store(root)
    return sorted({*_commits(store), *_lost_commits(store), *_plans(store.root), *_views(store.root)})


def orphans(root: Path) -> list[Path]:
    """What killed or beaten writers left, or what is being written now: harmless, and nothing refers to it."""
    store = Store(root)
    unfinished = [path for folder in ("plans", "merged") for path in (store.root / folder).glob(".*")]
    return sorted([*unfinished, *(path for path in store.root.glob("attempts/*/*") if _is_orphan(store, path))])


def _is_orphan(store: Store, path: Path) -> bool:
    if not is_unit(path.parent.name):
        return False
    try:
        commit = store.find(path.parent.name)
    except DamagedStore:
        # which attempt the commit named is not known any more
        return False
    return commit is None or Path(commit.attempt).stem != path.stem


def _commits(store: Store) -> Iterator[Damage]:
    for path in store.root.glob("commits/*"):
        if path.suffix != ".json" or not is_unit(path.stem):
            yield Damage(path, "does not belong")
            continue
        try:
            commit = read_record(path)
        except DamagedStore:
            yield Damage(path, "was changed")
            continue
        yield from _attempt(store, commit, path)


def _attempt(store: Store, commit: Commit, path: Path) -> Iterator[Damage]:
    attempt = store.attempt_path(commit)
    yield from (Damage(file, what) for file, what in differences(commit.files, attempt))
    yield from _same(attempt.with_suffix(".json"), path.read_bytes())


def _same(path: Path, data: bytes) -> Iterator[Damage]:
    if not path.exists():
        yield Damage(path, "is missing")
    elif path.read_bytes() != data:
        yield Damage(path, "was changed")


def _lost_commits(store: Store) -> Iterator[Damage]:
    for folder in store.root.glob("attempts/*"):
        if not is_unit(folder.name):
            yield Damage(folder, "does not belong")
        elif any(folder.glob("*.json")) and not store.commit_path(folder.name).exists():
            yield Damage(
                store.commit_path(folder.name),
                "is missing (deleted, or its writer was killed)",
            )


def _plans(root: Path) -> Iterator[Damage]:
    for path in _either(root.glob("plans/*.json"), (one.with_suffix(".json") for one in root.glob("plans/*.sha256"))):
        try:
            read_plan(path)
        except DamagedStore:
            yield Damage(path, "was changed" if path.exists() else "is missing")
        else:
            yield from _same(path.with_suffix(".sha256"), checksum(path.stem, path.read_bytes()))


def _views(root: Path) -> Iterator[Damage]:
    for path in _either(root.glob("merged/*.zarr"), (one.with_suffix(".zarr") for one in root.glob("merged/*.json"))):
        try:
            _, files = read_view(path)
        except DamagedStore:
            record = record_path(path)
            yield Damage(record, "was changed" if record.exists() else "is missing")
        else:
            yield from (Damage(file, what) for file, what in differences(files, path))


def _either(*paths: Iterable[Path]) -> list[Path]:
    return sorted({path for some in paths for path in some})
