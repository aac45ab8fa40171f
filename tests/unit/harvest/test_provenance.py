"""A commit says which code made it: this project's checkout, and nobody else's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harvest.provenance import revision

OURS = '[project]\nname = "value-harvest"\n'


def git(root: Path, *words: str) -> str:
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, "-C", root, *words], check=True, capture_output=True, text=True
    ).stdout.strip()  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a package of ours in it, committed."""
    root = tmp_path / "checkout"
    (root / "harvest").mkdir(parents=True)
    (root / "harvest/capture.py").write_text("one = 1\n")
    (root / "pyproject.toml").write_text(OURS)
    git(tmp_path, "init", "-q", "checkout")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


@pytest.fixture(autouse=True)
def fresh():
    revision.cache_clear()
    yield
    revision.cache_clear()


def test_a_checkout_is_named_by_its_commit_and_is_dirty_when_its_code_was_changed(checkout: Path):
    clean = {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    assert revision(checkout) == clean
    (checkout / "runs").mkdir()
    (checkout / "runs/notes.txt").write_text("not code")
    revision.cache_clear()
    assert revision(checkout) == clean
    for change in ("harvest/capture.py", "harvest/new.py"):
        before = (checkout / change).read_text() if (checkout / change).exists() else None
        (checkout / change).write_text("one = 2\n")
        revision.cache_clear()
        assert revision(checkout) == {**clean, "dirty": True}
        if before is None:
            (checkout / change).unlink()
        else:
            (checkout / change).write_text(before)


def test_a_linked_worktree_is_a_checkout_too(checkout: Path, tmp_path: Path):
    git(checkout, "worktree", "add", "-q", str(tmp_path / "linked"))
    assert (tmp_path / "linked/.git").is_file()
    assert revision(tmp_path / "linked") == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}


def test_a_repository_that_only_surrounds_the_packages_is_not_recorded(checkout: Path):
    site = checkout / ".venv/lib/site-packages"
    (site / "harvest").mkdir(parents=True)
    assert revision(site) is None
    (site / "pyproject.toml").write_text(OURS)
    assert revision(site) is None


@pytest.mark.parametrize("pyproject", [None, "", "not = [toml", '[project]\nname = "their-tool"\n', OURS])
def test_another_project_or_one_without_a_commit_is_not_recorded(tmp_path: Path, pyproject: str | None):
    git(tmp_path, "init", "-q", ".")
    if pyproject is not None:
        (tmp_path / "pyproject.toml").write_text(pyproject)
    assert revision(tmp_path) is None
