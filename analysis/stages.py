"""The stages of a study. Each reads files, writes files, and is skipped while both stay as they were.

Engines start only for answers or units that the store does not hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import xarray as xr

from analysis.ablate import plan_trials, read_completions, write_completions
from analysis.contrasts.counts import counts_for
from analysis.contrasts.neurons import neurons_of, on_neurons
from analysis.contrasts.registry import contrast_named
from analysis.interventions import Condition, conditions_for, write_conditions
from analysis.neurons.controls import matched_controls
from analysis.neurons.neuron_set import mask_of, set_name
from analysis.neurons.probability import select_probability
from analysis.neurons.table import read_neurons, write_neurons
from analysis.planned import FILES, is_kept, planning
from analysis.report.write import write_report
from analysis.responses import read_responses, write_responses
from analysis.run_folder import write_json
from analysis.scoring.outcome import write_scores
from analysis.scoring.registry import score_completions
from analysis.study import StudyRun
from analysis.views import NAMES, read_views
from harvest.capture import ACTIVATION, Block, capture, plan_blocks
from harvest.errors import InputError
from harvest.fleet import Fleet
from harvest.generate import answers_plan, generate
from harvest.online import Asked, answer_online
from harvest.store import reader
from harvest.store.key import digest
from harvest.store.merge import merge_histogram, merge_moments, merge_rows
from harvest.types import Request, opposite_group


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the road."""

    after: tuple[str, ...]
    # the stages whose files it reads
    outputs: tuple[str, ...]
    # the files it writes
    settings: Callable[[StudyRun], Any]
    # what it depends on beside those files, as JSON
    work: Callable[[StudyRun, Fleet], None]
    is_intact: Callable[[StudyRun], bool] = lambda run: True  # noqa: ARG005
    # whether what its outputs name, outside the folder, is still there; asked of a finished stage alone, for what
    # other settings left there may be out of reach


def run_stage(name: str, run: StudyRun, fleet: Fleet) -> bool:
    """Do a stage unless it is finished; whether it was done now.

    Raises InputError if a stage before it has not been run with these settings.
    """
    stage = STAGES[name]
    for before in _before(name):
        if not run.folder.is_finished(before, _inputs(before, run), STAGES[before].outputs):
            raise InputError(
                f"{run.folder.root}: {before} was not run with these settings; run `value-harvest {before}` first, "
                "or `value-harvest run` for all"
            )
        if not STAGES[before].is_intact(run):
            raise InputError(
                f"{run.folder.root}: some of what {before} left in {run.store.root} is gone; run "
                f"`value-harvest {before}` again, which mends it, or `value-harvest run` for all"
            )
    # whoever is refused writes nothing
    with run.progress.stage(name):
        return run.folder.stage(
            name,
            _inputs(name, run),
            stage.outputs,
            lambda: stage.work(run, fleet),
            is_intact=lambda: stage.is_intact(run),
            resting=[other for other in STAGES if name in _before(other)],
        )


def is_finished(name: str, run: StudyRun) -> bool:
    """Whether nothing of a stage, or of what it rests on, would be done again."""
    return all(
        run.folder.is_finished(one, _inputs(one, run), STAGES[one].outputs) and STAGES[one].is_intact(run)
        for one in (*_before(name), name)
    )


def _before(name: str) -> list[str]:
    """Every stage that a stage rests on, in the order of the road."""
    found = {name}
    for other in reversed(STAGES):
        if other in found:
            found.update(STAGES[other].after)
    return [other for other in STAGES if other in found and other != name]


def _inputs(name: str, run: StudyRun) -> dict[str, Any]:
    """All that a stage's files depend on: its settings, the files it reads, and what those should depend on."""
    stage = STAGES[name]
    read = [(before, output) for before in stage.after for output in STAGES[before].outputs]
    return {
        "settings": stage.settings(run),
        "files": {output: run.folder.file_digest(output, before) for before, output in read},
        "after": {before: digest(_inputs(before, run)) for before in stage.after},
    }


def _respond(run: StudyRun, fleet: Fleet) -> None:
    """`responses.parquet`: every item's answer under its role."""
    requests = role_requests(run)
    with planning(run.folder, run.store, "respond", answers_plan(requests, run.responding), fleet.failed):
        if run.study.capture.mode == "online":
            completions = answer_online(role_asked(run), run.responding, run.capturing, run.store, fleet)
        else:
            completions = generate("respond", requests, run.responding, run.store, fleet)
    write_responses(run.folder / "responses.parquet", run.items, run.role_prompts, completions)


def role_requests(run: StudyRun) -> list[Request]:
    """What `respond` asks."""
    return [Request(prompt.token_ids) for prompt in run.role_prompts]


def role_asked(run: StudyRun) -> list[Asked]:
    """The same, as it is counted."""
    return [Asked(prompt, item.description_id) for item, prompt in zip(run.items, run.role_prompts, strict=True)]


def _respond_settings(run: StudyRun) -> Any:
    return [asdict(run.responding), run.role_prompts_digest]


def _capture(run: StudyRun, fleet: Fleet) -> None:
    """`capture.json`: the merged views of every answer's activations."""
    blocks = plan_blocks(read_responses(run.folder / "responses.parquet"), run.capturing)
    plan = {"blocks": [{"group": block.group, "units": dict(block.units)} for block in blocks]}
    with planning(run.folder, run.store, "capture", plan, fleet.failed) as planned:
        capture(blocks, run.store, fleet)
    write_json(run.folder / "capture.json", {**planned, **_merge(run, blocks)})


def _capture_settings(run: StudyRun) -> Any:
    return [run.capturing.content(), run.study.capture.mode, run.store.root]


def _merge(run: StudyRun, blocks: Sequence[Block]) -> dict[str, Any]:
    """The views of the kinds that were asked for, with their digests; null where a view has nothing to hold."""
    units = {kind: [block.units[kind] for block in blocks] for kind in run.capturing.kinds}
    rows, maxima = units.get("rows", []), units.get("maxima", [])
    views: dict[str, str | None] = dict.fromkeys(NAMES)
    views["merged"] = merge_moments(run.store, units["moments"], _attributes(run, units["moments"]))
    if rows or maxima:
        views["rows"] = merge_rows(run.store, rows, _attributes(run, [*rows, *maxima]), maxima)
    if "histogram" in units:
        views["histogram"] = merge_histogram(run.store, units["histogram"], _attributes(run, units["histogram"]))
    return views | {f"{name}_sha256": reader.digest(path) if path else None for name, path in views.items()}


def _attributes(run: StudyRun, units: Sequence[str]) -> dict[str, Any]:
    return {
        "model_fingerprint": run.checkpoint.fingerprint,
        "dtype": run.study.model.dtype,
        "activation": ACTIVATION,
        "phase": run.study.capture.phase,
        "mode": run.study.capture.mode,
        **_recorded(run, units),
    }


def _recorded(run: StudyRun, units: Sequence[str]) -> dict[str, Any]:
    """How many units came by which pass, and every version of each package that computed one.

    Cached units may be older than this process; online ones may have been completed by replay.
    """
    found: dict[str, set[str]] = {}
    passes: Counter[str] = Counter()
    for commit in filter(None, run.store.find_all(units)):
        recorded: Any = commit.provenance
        passes[recorded["mode"]] += 1
        for package, version in recorded["versions"].items():
            found.setdefault(package, set()).add(version)
    versions = {package: sorted(each) for package, each in sorted(found.items())}
    return {"versions": versions, "num_units": dict(sorted(passes.items()))}


def _views_are_there(run: StudyRun) -> bool:
    """A plan that was deleted is written again, and a view is folded again from the commits."""
    if not (run.folder / "capture.json").is_file():
        return True
    views = read_views(run.folder)
    if not (run.folder / FILES["capture"]).is_file() or not run.store.has_plan(views.plan):
        return False
    return all(map(reader.is_published, views.places))


def _select(run: StudyRun, fleet: Fleet) -> None:  # noqa: ARG001 every stage has the same signature
    """`neurons.parquet`: a set for every group, found on the identify half, and its matched controls."""
    counts, is_neuron = _counts(run)
    (section,) = run.study.select
    contrast = contrast_named(section.method)
    groups = [str(group) for group in counts["group"].to_numpy()]
    effects = {group: on_neurons(contrast(counts, group, opposite_group(group)), is_neuron) for group in groups}
    sets = [
        select_probability(effect, set_name(group, section.method), group, section.top_k, section.threshold)
        for group, effect in effects.items()
    ]
    sizes = effects[groups[0]].sizes
    taken_LF = mask_of(sets, (sizes["layer"], sizes["neuron"]))
    ablate = run.study.ablate
    controls = [
        control
        for one in sets
        for control in matched_controls(one, effects[one.group], taken_LF, ablate.controls, ablate.seed)
    ]
    write_neurons(run.folder / "neurons.parquet", [*sets, *controls])


def _counts(run: StudyRun) -> tuple[xr.Dataset, xr.DataArray]:
    """The on-counts that neurons are found by, and which of their places are neurons."""
    views = read_views(run.folder)
    with reader.open_merged(views.merged) as merged:
        is_neuron = neurons_of(merged).load()
        if views.rows is None:
            return counts_for(merged, None, run.identify).load(), is_neuron
        with reader.open_rows(views.rows) as rows:
            return counts_for(merged, rows, run.identify).load(), is_neuron


def _select_settings(run: StudyRun) -> Any:
    sections = [section.model_dump(mode="json") for section in run.study.select]
    return [sections, run.study.split, run.study.ablate.controls, run.study.ablate.seed]


def conditions_of(run: StudyRun) -> list[Condition]:
    """The conditions of the ablation: the sets whose items have options, and their controls."""
    tried = {item.group for item, _ in run.trial_prompts}
    every = [one for one in read_neurons(run.folder / "neurons.parquet") if one.group in tried]
    sets = [one for one in every if one.control_draw < 0]
    controls = [one for one in every if one.control_draw >= 0]
    return conditions_for(sets, controls, run.study.ablate.operations, run.study.ablate.phase)


def _ablate(run: StudyRun, fleet: Fleet) -> None:
    """`conditions.parquet` and `completions.parquet`: the evaluate half, answered under every condition."""
    conditions = conditions_of(run)
    trials = plan_trials(run.trial_prompts, conditions)
    requests = [trial.request for trial in trials]
    with planning(run.folder, run.store, "ablate", answers_plan(requests, run.generation), fleet.failed):
        completions = generate("ablate", requests, run.generation, run.store, fleet)
    write_conditions(run.folder / "conditions.parquet", conditions)
    write_completions(run.folder / "completions.parquet", trials, completions)


def _ablate_settings(run: StudyRun) -> Any:
    section = run.study.ablate.model_dump(mode="json")
    return [asdict(run.generation), section, run.study.split, run.trial_prompts_digest]


def _score(run: StudyRun, fleet: Fleet) -> None:  # noqa: ARG001
    """`scores.parquet`: the support each answer gives to the option of its own aspect."""
    completions = read_completions(run.folder / "completions.parquet")
    write_scores(run.folder / "scores.parquet", score_completions(completions, "support"))


def _report(run: StudyRun, fleet: Fleet) -> None:  # noqa: ARG001
    """`summary.json` and `report.html`."""
    with reader.open_merged(read_views(run.folder).merged) as merged:
        num_tokens = int(merged["token_count"].sum())
    write_report(run, conditions_of(run), num_tokens)


def _report_settings(run: StudyRun) -> Any:
    return [str(run.study.model.path), str(run.study.out), run.sources]


STAGES: dict[str, Stage] = {
    "respond": Stage(
        (), ("responses.parquet",), _respond_settings, _respond, lambda run: is_kept(run.folder, run.store, "respond")
    ),
    "capture": Stage(("respond",), ("capture.json",), _capture_settings, _capture, _views_are_there),
    "select": Stage(("capture",), ("neurons.parquet",), _select_settings, _select),
    "ablate": Stage(
        ("select",),
        ("conditions.parquet", "completions.parquet"),
        _ablate_settings,
        _ablate,
        lambda run: is_kept(run.folder, run.store, "ablate"),
    ),
    "score": Stage(("ablate",), ("scores.parquet",), lambda run: "support", _score),  # noqa: ARG005
    "report": Stage(
        ("capture", "select", "ablate", "score"), ("summary.json", "report.html"), _report_settings, _report
    ),
}
