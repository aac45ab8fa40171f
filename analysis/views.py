"""`capture.json`: which merged views a capture left."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.run_folder import RunFolder, read_json
from harvest.errors import InputError
from harvest.store.key import is_digest

NAMES = ("merged", "rows", "histogram")


@dataclass(frozen=True, slots=True)
class Views:
    """Where a capture's views are; None where the study asked for none."""

    plan: str
    # the hash of the plan that was carried out
    merged: str
    rows: str | None
    histogram: str | None

    @property
    def places(self) -> list[str]:
        """Those that there are."""
        return [place for place in (self.merged, self.rows, self.histogram) if place is not None]


def read_views(folder: RunFolder) -> Views:
    """What the folder's capture left; raises InputError if it is missing, or is not what capture writes."""
    path, optional = folder / "capture.json", (str, type(None))
    found = read_json(path, "capture", {"plan": str, "merged": str, "rows": optional, "histogram": optional})
    views = Views(found["plan"], found["merged"], found.get("rows"), found.get("histogram"))
    if not is_digest(views.plan) or not all(place.endswith(".zarr") for place in views.places):
        raise InputError(f"{path}: names no views; delete it and run `value-harvest capture STUDY.yaml` again")
    return views
