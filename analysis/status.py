"""How far a run is, read from its files and its store alone; works while the run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.run_folder import RunFolder, read_json
from harvest.errors import InputError
from harvest.store.commit import Store


def run_status(root: Path) -> dict[str, Any]:
    """What is there so far: `stages` finished, paths, and `units` of the capture's plan.

    The paths are `store` and the views `merged`, `rows` and `histogram`; `units` has the numbers done and missing, and
    the tasks that were quarantined. What is not there is null. Raises InputError if the folder is not a run.
    """
    folder = RunFolder(root)
    if not (folder / ".stages").is_dir() and not (folder / "plan.json").is_file():
        raise InputError(f"{root}: is not the folder of a run; give the `out` of a study that was started")
    status: dict[str, Any] = {
        "stages": sorted(path.stem for path in root.glob(".stages/*.json")),
        "units": None,
        "store": None,
        "merged": None,
        "rows": None,
        "histogram": None,
    }
    plan = None
    if (folder / "plan.json").is_file():
        planned = read_json(folder / "plan.json", "capture", ("store", "plan", "quarantined"))
        store, plan = Store(planned["store"]), planned["plan"]
        store.check()
        units = {unit for block in store.read_plan(plan)["blocks"] for unit in block["units"].values()}
        done = len(store.committed(units))
        counted, quarantined = {"done": done, "missing": len(units) - done}, sorted(planned["quarantined"])
        status |= {"store": planned["store"], "units": {**counted, "quarantined": quarantined}}
    if (folder / "capture.json").is_file():
        captured = read_json(folder / "capture.json", "capture", ("merged", "rows"))
        # a capture of other settings was begun since and is not through: its views are not those
        if captured.get("plan") == plan:
            status |= {name: captured.get(name) for name in ("merged", "rows", "histogram")}
    return status
