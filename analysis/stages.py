"""The stages of a study, in order. Each reads files, writes files, and is skipped while both stay as they were.

Engines start only for answers or units that the store does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import xarray as xr

from analysis.ablate import plan_trials, write_completions
from analysis.contrasts.counts import counts_for
from analysis.contrasts.registry import contrast_named
from analysis.interventions import Condition, conditions_for, write_conditions
from analysis.neurons.controls import matched_controls
from analysis.neurons.neuron_set import mask_of, set_name
from analysis.neurons.probability import select_probability
from analysis.neurons.table import read_neurons, write_neurons
from analysis.report.write import write_report
from analysis.responses import read_responses, write_responses
from analysis.run_folder import read_json, write_json
from analysis.scoring.outcome import write_scores
from analysis.scoring.registry import score_completions
from analysis.study import StudyRun
from harvest.capture import ACTIVATION, Block, capture, plan_blocks
from harvest.fleet import Fleet
from harvest.generate import generate
from harvest.provenance import versions
from harvest.store.merge import merge_moments, merge_rows
from harvest.store.reader import open_merged, open_rows
from harvest.store.tree import tree_sha256
from harvest.types import Request, opposite_group


def respond(run: StudyRun, fleet: Fleet) -> bool:
    """`responses.parquet`: every item's answer under its role."""

    def work() -> None:
        requests = [Request(prompt.token_ids) for prompt in run.role_prompts]
        completions = generate("respond", requests, run.generation, run.store, fleet)
        write_responses(run.folder / "responses.parquet", run.items, run.role_prompts, completions)

    inputs = {"model": run.model_inputs, "items": run.item_inputs, "respond": _section(run, "respond")}
    return run.folder.stage("respond", inputs, ["responses.parquet"], work)


def capture_(run: StudyRun, fleet: Fleet) -> bool:
    """`capture.json`: the merged view and the rows of every answer's activations."""

    def work() -> None:
        blocks = plan_blocks(read_responses(run.folder / "responses.parquet"), run.capturing)
        plan = {"blocks": [{"group": block.group, "units": dict(block.units)} for block in blocks]}
        planned = {"store": str(run.store.root), "plan": run.store.write_plan(plan)}
        write_json(run.folder / "plan.json", planned)
        capture(blocks, run.store, fleet)
        write_json(run.folder / "capture.json", {**planned, **_merge(run, blocks)})

    inputs = {
        "model": run.model_inputs,
        "responses": run.folder.file_digest("responses.parquet", "respond"),
        "capture": _section(run, "capture"),
        "store": str(run.store.root),
    }
    return run.folder.stage("capture", inputs, ["capture.json"], work)


def _merge(run: StudyRun, blocks: Sequence[Block]) -> dict[str, Any]:
    attributes = {
        "model_fingerprint": run.checkpoint.fingerprint,
        "dtype": run.study.model.dtype,
        "activation": ACTIVATION,
        "phase": run.study.capture.phase,
        "mode": run.study.capture.mode,
        "versions": versions(),
    }
    folds = {"moments": merge_moments, "rows": merge_rows}
    merged = {
        kind: folds[kind](run.store, [block.units[kind] for block in blocks], attributes)
        for kind in run.capturing.kinds
    }
    rows = merged.get("rows")
    return {
        "merged": str(merged["moments"]),
        "merged_sha256": tree_sha256(merged["moments"]),
        "rows": str(rows) if rows else None,
        "rows_sha256": tree_sha256(rows) if rows else None,
    }


def select(run: StudyRun, fleet: Fleet) -> bool:  # noqa: ARG001 every stage has the same signature
    """`neurons.parquet`: a set for every group, found on the identify half, and its matched controls."""

    def work() -> None:
        with open_views(read_json(run.folder / "capture.json", "capture", ("merged", "rows"))) as (merged, rows):
            counts = counts_for(merged, rows, run.identify).load()
        (section,) = run.study.select
        groups = [str(group) for group in counts["group"].to_numpy()]
        effects = {group: contrast_named(section.method)(counts, group, opposite_group(group)) for group in groups}
        sets = [
            select_probability(effect, set_name(group, section.method), group, section.top_k, section.threshold)
            for group, effect in effects.items()
        ]
        taken_LF = mask_of(sets, (counts.sizes["layer"], counts.sizes["neuron"]))
        ablate = run.study.ablate
        controls = [
            control
            for one in sets
            for control in matched_controls(one, effects[one.group], taken_LF, ablate.controls, ablate.seed)
        ]
        write_neurons(run.folder / "neurons.parquet", [*sets, *controls])

    inputs = {
        "capture": run.folder.file_digest("capture.json", "capture"),
        "select": [section.model_dump(mode="json") for section in run.study.select],
        "split": run.study.split,
        "controls": [run.study.ablate.controls, run.study.ablate.seed],
    }
    return run.folder.stage("select", inputs, ["neurons.parquet"], work)


def conditions(run: StudyRun) -> list[Condition]:
    """The conditions of the ablation: the sets whose items have options, and their controls."""
    tried = {item.group for item, _ in run.trial_prompts}
    every = [one for one in read_neurons(run.folder / "neurons.parquet") if one.group in tried]
    sets = [one for one in every if one.control_draw < 0]
    controls = [one for one in every if one.control_draw >= 0]
    return conditions_for(sets, controls, run.study.ablate.operations, run.study.ablate.phase)


def ablate(run: StudyRun, fleet: Fleet) -> bool:
    """`conditions.parquet` and `completions.parquet`: the evaluate half, answered under every condition."""

    def work() -> None:
        planned = conditions(run)
        trials = plan_trials(run.trial_prompts, planned)
        completions = generate("ablate", [trial.request for trial in trials], run.generation, run.store, fleet)
        write_conditions(run.folder / "conditions.parquet", planned)
        write_completions(run.folder / "completions.parquet", trials, completions)

    inputs = {
        "model": run.model_inputs,
        "items": run.item_inputs,
        "neurons": run.folder.file_digest("neurons.parquet", "select"),
        "respond": _section(run, "respond"),
        "ablate": _section(run, "ablate"),
        "split": run.study.split,
    }
    return run.folder.stage("ablate", inputs, ["conditions.parquet", "completions.parquet"], work)


def score(run: StudyRun, fleet: Fleet) -> bool:  # noqa: ARG001
    """`scores.parquet`: the support each answer gives to the option of its own aspect."""

    def work() -> None:
        completions = pq.read_table(run.folder / "completions.parquet")
        write_scores(run.folder / "scores.parquet", score_completions(completions, "support"))

    inputs = {"completions": run.folder.file_digest("completions.parquet", "ablate")}
    return run.folder.stage("score", inputs, ["scores.parquet"], work)


def report(run: StudyRun, fleet: Fleet) -> bool:  # noqa: ARG001
    """`summary.json` and `report.html`."""

    def work() -> None:
        with open_views(read_json(run.folder / "capture.json", "capture", ("merged", "rows"))) as (merged, _):
            num_tokens = int(merged["token_count"].sum())
        write_report(run, conditions(run), num_tokens)

    sources = {"scores": "score", "neurons": "select", "completions": "ablate", "conditions": "ablate"}
    inputs = {
        "model": run.model_inputs,
        "capture": run.folder.file_digest("capture.json", "capture"),
        **{name: run.folder.file_digest(f"{name}.parquet", stage) for name, stage in sources.items()},
    }
    return run.folder.stage("report", inputs, ["summary.json", "report.html"], work)


STAGES: dict[str, Callable[[StudyRun, Fleet], bool]] = {
    "respond": respond,
    "capture": capture_,
    "select": select,
    "ablate": ablate,
    "score": score,
    "report": report,
}
# each returns whether it had anything to do


@contextmanager
def open_views(where: Mapping[str, Any]) -> Iterator[tuple[xr.Dataset, xr.Dataset | None]]:
    """The merged view and the rows that a `capture.json` names; rows are None where they were not captured."""
    merged = open_merged(Path(where["merged"]))
    rows = open_rows(Path(where["rows"])) if where["rows"] else None
    try:
        yield merged, rows
    finally:
        merged.close()
        if rows is not None:
            rows.close()


def _section(run: StudyRun, name: str) -> dict[str, Any]:
    section: dict[str, Any] = getattr(run.study, name).model_dump(mode="json")
    return section
