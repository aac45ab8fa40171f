"""Committed units folded into a merged view, in the plan's order, so that the bytes are the same every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harvest.errors import StoreError
from harvest.store.commit import Commit, Store
from harvest.store.fold_histogram import build_histogram
from harvest.store.fold_moments import build_moments
from harvest.store.fold_rows import build_rows
from harvest.store.key import digest
from harvest.store.place import in_parallel
from harvest.store.schema import VERSION
from harvest.store.verified import Tree
from harvest.store.view import publish

Build = Callable[[Path, Sequence[Tree], Mapping[str, object]], None]


def merge_moments(store: Store, units: Sequence[str], attributes: Mapping[str, object]) -> str:
    """Where the view of the units' moments over (group, layer, neuron) is, groups in the order of their first unit.

    A path or a URL. Raises StoreError if units are missing, DamagedStore if one of them, or the view that is there
    already, is damaged.
    """
    return _merge(store, units, attributes, ".zarr", build_moments)


def merge_rows(store: Store, units: Sequence[str], attributes: Mapping[str, object], maxima: Sequence[str] = ()) -> str:
    """The view of the units' rows over (question, layer, neuron), in the units' order, and of the maxima units beside.

    Both must be of the same blocks in the same order; either may be left out. Raises as merge_moments does.
    """

    def build(path: Path, opened: Sequence[Tree], attributes: Mapping[str, object]) -> None:
        build_rows(path, opened[: len(units)], opened[len(units) :], attributes)

    return _merge(store, [*units, *maxima], attributes, ".rows.zarr", build)


def merge_histogram(store: Store, units: Sequence[str], attributes: Mapping[str, object]) -> str:
    """The view of the units' histograms over (group, site, bin), groups as in merge_moments; raises as that does."""
    return _merge(store, units, attributes, ".histogram.zarr", build_histogram)


def _merge(store: Store, units: Sequence[str], attributes: Mapping[str, object], suffix: str, build: Build) -> str:
    commits = _commits(store, units)
    sources = [(commit.unit, commit.sha256) for commit in commits]
    key = digest({"version": VERSION, "sources": sources, "attributes": dict(attributes)})

    def write(path: Path) -> None:
        trees = [store.open(commit) for commit in commits]
        # each is asked for several times below, one unit after the other
        in_parallel(Tree.metadata, trees)
        build(path, trees, attributes)

    return publish(store.place, key, suffix, sources, write)


def _commits(store: Store, units: Sequence[str]) -> list[Commit]:
    commits = [commit for commit in store.find_all(units) if commit is not None]
    if not commits or len(commits) < len(units):
        missing = len(units) - len(commits)
        raise StoreError(
            f"store {store.root}: {missing} of {len(units)} units are missing; run `value-harvest capture` again"
        )
    return commits
