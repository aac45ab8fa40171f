"""What a stage is about to ask of engines: kept in the store before anything runs, and named in the run's folder.

Beside the plan stands what was given up, with the reason, once the stage has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from analysis.run_folder import RunFolder, is_plain, read_json, write_json
from harvest.errors import InputError
from harvest.store.commit import Store
from harvest.store.key import is_digest

FILES = {"respond": "plan.respond.json", "capture": "plan.json", "ablate": "plan.ablate.json"}
# by the stage that writes it


@dataclass(frozen=True, slots=True)
class Planned:
    """Where a stage's plan is, and what of it was given up."""

    store: str
    plan: str
    # its hash
    quarantined: Mapping[str, str]
    # the reason, by the task's name: a unit


@contextmanager
def planning(
    folder: RunFolder, store: Store, stage: str, plan: Mapping[str, object], failed: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """A time in which the plan is carried out; what `store` and `plan` are in the run's files.

    `failed` grows meanwhile: the reason by task. It is written down however that time ends.
    """
    planned, file = {"store": store.root, "plan": store.write_plan(plan)}, folder / FILES[stage]
    write_json(file, {**planned, "quarantined": {}})
    try:
        yield planned
    except BaseException:
        write_json(file, {**planned, "quarantined": dict(failed)})
        raise


def read_planned(folder: RunFolder, stage: str) -> Planned | None:
    """What the stage planned last, or None if it never did; raises InputError if the file says something else."""
    path = folder / FILES[stage]
    if not path.is_file():
        return None
    found: Any = read_json(path, stage, {"store": str, "plan": str, "quarantined": dict})
    texts = [*found["quarantined"], *found["quarantined"].values()]
    if not is_digest(found["plan"]) or not all(isinstance(text, str) and is_plain(text) for text in texts):
        raise InputError(f"{path}: is not what {stage} writes; delete it and run `value-harvest {stage} STUDY.yaml`")
    return Planned(found["store"], found["plan"], found["quarantined"])


def is_kept(folder: RunFolder, store: Store, stage: str) -> bool:
    """Whether what the stage planned, if it did, can still be read; where it cannot, the stage writes it again."""
    planned = read_planned(folder, stage)
    return planned is None or store.has_plan(planned.plan)
