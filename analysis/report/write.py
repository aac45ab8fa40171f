"""`summary.json` and `report.html` from a run's files."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.ablate import read_completions
from analysis.effects import effects
from analysis.interventions import Condition
from analysis.neurons.overlap import read_planted
from analysis.neurons.table import read_neurons
from analysis.report.examples import pick_examples
from analysis.report.page import render
from analysis.report.summary import BenchmarkFacts, RunFacts, summarise
from analysis.run_folder import write_json, write_text
from analysis.scoring.outcome import read_scores
from analysis.study import StudyRun
from harvest.provenance import versions


def write_report(run: StudyRun, conditions: Sequence[Condition], num_tokens: int) -> None:
    """Sum up the run; where the checkpoint comes with planted neurons, what was found is held against them."""
    scores = read_scores(run.folder / "scores.parquet")
    completions = read_completions(run.folder / "completions.parquet")
    found = effects(conditions, scores, run.study.ablate.seed)
    planted = run.checkpoint.path / "planted.json"
    summary = summarise(
        _facts(run, num_tokens, len(completions)),
        read_neurons(run.folder / "neurons.parquet"),
        found,
        read_planted(planted) if planted.is_file() else None,
    )
    examples = pick_examples(found, {item.item_id: item for item in run.items}, completions, scores)
    write_json(run.folder / "summary.json", summary)
    write_text(run.folder / "report.html", render(summary, examples))


def _facts(run: StudyRun, num_tokens: int, num_answers: int) -> RunFacts:
    questions: dict[str, set[tuple[str, str]]] = {}
    for item in run.items:
        questions.setdefault(item.benchmark, set()).add((item.value, item.question_id))
    return RunFacts(
        title=f"Value neurons: {run.study.out.name}",
        model=str(run.study.model.path),
        fingerprint=run.checkpoint.fingerprint,
        benchmarks=tuple(BenchmarkFacts(name, ", ".join(run.sources[name]), len(of)) for name, of in questions.items()),
        num_items=len(run.items),
        num_tokens=num_tokens,
        num_answers=num_answers,
        split=run.study.split,
        prompt=str(run.study.ablate.prompt),
        phase=str(run.study.ablate.phase),
        versions=versions(),
    )
