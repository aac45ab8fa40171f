"""How far a run is, read from its files and its store alone; works while the run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis import progress_file
from analysis.planned import FILES, Planned, read_planned
from analysis.run_folder import RunFolder
from analysis.views import NAMES, read_views
from harvest.errors import InputError
from harvest.generate import Answers
from harvest.store.commit import Store


def run_status(root: Path) -> dict[str, Any]:
    """What is there so far. What is not there is null.

    `stages` are those that are finished, `store` and the views `merged`, `rows` and `histogram` are paths. `units` of
    the capture's plan, and `answers` of respond's and ablate's, have the numbers done and missing, and what was
    quarantined, with the `reasons`. `progress` is what the run's process said last, and whether it is alive. Raises
    InputError if the folder is not a run, or one of its files is not what a run writes.
    """
    folder = RunFolder(root)
    planned = {stage: read_planned(folder, stage) for stage in FILES}
    if not (folder / ".stages").is_dir() and not any(planned.values()):
        raise InputError(f"{root}: is not the folder of a run; give the `out` of a study that was started")
    store = _newest_store(folder, planned)
    # what was planned in a store that the study has left says nothing of it, and the store may be out of reach
    planned = {stage: one if one and one.store == store else None for stage, one in planned.items()}
    answers = {stage: _answers(folder, stage, planned[stage]) for stage in ("respond", "ablate")}
    status: dict[str, Any] = {
        "stages": sorted(path.stem for path in root.glob(".stages/*.json")),
        "units": _units(folder, planned["capture"]),
        "store": store,
        **dict.fromkeys(NAMES),
        "answers": {stage: found for stage, found in answers.items() if found} or None,
        "progress": progress_file.read_progress(folder / progress_file.NAME),
    }
    if (folder / "capture.json").is_file():
        views = read_views(folder)
        # a capture of other settings was begun since and is not through: its views are not those
        if planned["capture"] is not None and views.plan == planned["capture"].plan:
            status |= {name: getattr(views, name) for name in NAMES}
    return status


def _newest_store(folder: RunFolder, planned: Mapping[str, Planned | None]) -> str | None:
    """Where the last plan is."""
    written = {(folder / FILES[stage]).stat().st_mtime_ns: one.store for stage, one in planned.items() if one}
    return written[max(written)] if written else None


def _store(folder: RunFolder, stage: str, planned: Planned) -> Store:
    """The store of a plan; raises InputError if none is there any more."""
    try:
        store = Store(planned.store)
        store.check()
    except InputError as error:
        raise InputError(f"{folder / FILES[stage]}: {error}") from error
    return store


def _units(folder: RunFolder, planned: Planned | None) -> dict[str, Any] | None:
    if planned is None:
        return None
    store, blocks = _store(folder, "capture", planned), _read(folder, "capture", planned, "blocks")
    group_of = {unit: block["group"] for block in blocks for unit in block["units"].values()}
    done = store.committed(group_of)
    # what was given up may have been committed since, by another study
    reasons = {
        unit: f"{group_of[unit]}: {why}" if unit in group_of else why
        for unit, why in sorted(planned.quarantined.items())
        if unit not in done
    }
    return {"done": len(done), "missing": len(group_of) - len(done), "quarantined": [*reasons], "reasons": reasons}


def _answers(folder: RunFolder, stage: str, planned: Planned | None) -> dict[str, Any] | None:
    if planned is None:
        return None
    answers = Answers(_store(folder, stage, planned))
    keys = _read(folder, stage, planned, "answers")
    done = sum(key in answers for key in keys)
    reasons = dict(sorted(planned.quarantined.items())) if done < len(keys) else {}
    return {"done": done, "missing": len(keys) - done, "quarantined": [*reasons], "reasons": reasons}


def _read(folder: RunFolder, stage: str, planned: Planned, what: str) -> list[Any]:
    """The blocks or answers of a plan; raises DamagedStore if it was lost, InputError if it plans something else."""
    plan = _store(folder, stage, planned).read_plan(planned.plan)
    if what not in plan:
        raise InputError(
            f"{folder / FILES[stage]}: names a plan without {what}; run `value-harvest {stage} STUDY.yaml` again"
        )
    return list(plan[what])


def lines(status: dict[str, Any]) -> list[str]:
    """A status for people: a line for each thing, and one for each task that was given up."""
    said = []
    for name, what in status.items():
        if name in ("units", "answers") and what is not None:
            parts = {"units": what} if name == "units" else {f"answers of {stage}": one for stage, one in what.items()}
            for title, one in parts.items():
                given_up = f", quarantined {len(one['quarantined'])}" if one["quarantined"] else ""
                said.append(f"{title}: {one['done']} done, {one['missing']} missing{given_up}")
                said += [f"  {task}: {why}" for task, why in one["reasons"].items()]
        elif name == "progress" and what is not None:
            said.append(f"progress: {what['summary']}")
        elif name == "stages":
            said.append(f"stages: {', '.join(what) or 'none yet'}")
        else:
            said.append(f"{name}: {what if what is not None else 'not yet'}")
    return said
