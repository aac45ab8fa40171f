"""With fsync, everything that a name speaks of is on the disk before the name appears."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stored import commit_moments, random_questions

from harvest.store.commit import Store
from harvest.store.merge import merge_moments

Event = tuple[str, str]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Every file or folder that is forced to the disk, and every name that appears, in their order."""
    seen: list[Event] = []
    fsync, link = os.fsync, os.link

    def forced(descriptor: int) -> None:
        fsync(descriptor)
        seen.append(("forced", str(Path(f"/proc/self/fd/{descriptor}").readlink())))

    def linked(source: Path, target: Path) -> None:
        # Zarr links its own files, which are forced when they are all there
        assert ("forced", str(source)) in seen or str(source).endswith(".partial")
        link(source, target)
        seen.append(("appears", str(target)))

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(os, "link", linked)
    return seen


def _is_forced_before(events: list[Event], path: Path, until: int) -> bool:
    return ("forced", str(path)) in events[:until]


def _check(root: Path, commit: Path, attempt: Path, events: list[Event]) -> None:
    """All of the attempt and the folders above are forced before its record appears, which is before the commit."""
    record = attempt.with_name(attempt.name.partition(".")[0] + ".json")
    recorded, committed = (events.index(("appears", str(path))) for path in (record, commit))
    assert recorded < committed
    contents = [attempt, *attempt.rglob("*")]
    assert len(contents) > 20
    for path in [*contents, *attempt.parents[: len(attempt.relative_to(root).parts)]]:
        assert _is_forced_before(events, path, recorded), path
    assert ("forced", str(attempt.parent)) in events[recorded:committed]
    assert ("forced", str(commit.parent)) in events[committed:]


def test_a_unit_and_a_view_are_on_the_disk_before_their_commits_appear(tmp_path: Path, events: list[Event]):
    store = Store(tmp_path / "store", fsync=True).prepare()
    root = Path(store.root)
    made = commit_moments(store, "a", "g", random_questions(0, [2]))
    assert events[0][0] == "forced"
    assert events[1] == ("appears", str(root / "store.json"))
    _check(root, root / f"commits/{made.unit}.json", Path(str(store.open(made))), events)
    view = Path(merge_moments(store, [made.unit], {}))
    _check(root, Path(f"{view.parent}.json"), view, events)


def test_a_plan_is_on_the_disk_before_it_appears(tmp_path: Path, events: list[Event]):
    store = Store(tmp_path, fsync=True).prepare()
    key = store.write_plan({"units": []})
    for name in ("json", "sha256"):
        at = events.index(("appears", str(tmp_path / f"plans/{key}.{name}")))
        assert ("forced", str(tmp_path / "plans")) in events[at:]


def test_an_adopted_attempt_is_forced_too_and_without_fsync_nothing_is(tmp_path: Path, forced: list[str]):
    unit = commit_moments(Store(tmp_path).prepare(), "a", "g", random_questions(0, [2])).unit
    assert forced == []
    (tmp_path / "commits" / f"{unit}.json").unlink()
    commit_moments(Store(tmp_path, fsync=True), "a", "g", random_questions(0, [2]))
    [attempt] = tmp_path.glob("attempts/*/*.zarr")
    assert {str(path) for path in [attempt, *attempt.rglob("*")]} <= set(forced)


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    fsync = os.fsync

    def force(descriptor: int) -> None:
        fsync(descriptor)
        seen.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", force)
    return seen
