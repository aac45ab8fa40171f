"""The command line: one command per stage, no logic."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from analysis import demo, doctor
from analysis.forecast import forecast, sentences
from analysis.report.headline import format_table, headline_table
from analysis.run_folder import RunFolder, read_json
from analysis.settings import Study
from analysis.stages import STAGES, run_stage
from analysis.status import lines, run_status
from analysis.study import StudyRun
from cluster.errors import ClusterError
from harvest.benchmarks.packaged import PREFIX, builtin_names
from harvest.benchmarks.registry import FORMATS, faults, groups, read_benchmark
from harvest.benchmarks.source import BenchmarkSource
from harvest.config import load
from harvest.errors import HarvestError, InputError
from harvest.store.commit import Store
from harvest.store.export import export
from harvest.store.gc import sweep
from harvest.store.verify import orphans, verify_store

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
benchmark = typer.Typer(no_args_is_help=True, help="Look at benchmark files.")
app.add_typer(benchmark, name="benchmark")
stdout = Console(soft_wrap=True, highlight=False)
_debug = False
_INTERRUPTED = 130
# what typer returns for Ctrl-C

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study's settings.")]
StorePlace = Annotated[str, typer.Argument(metavar="STORE", help="A store's folder, or s3://BUCKET/PREFIX.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=c", help="Override one setting; repeatable.")
]


DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what is cached and what would run; start nothing.")]
DryRunJson = Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the engines' logs.")] = False,
) -> None:
    """Which neurons carry a value, and what happens when they are silenced.

    Example: value-harvest demo
    """
    global _debug  # noqa: PLW0603 one command line per process
    _debug = debug


def _run(study: Study, stages: Collection[str]) -> None:
    run = StudyRun(study)
    if "select" in stages:
        run.check_selection()
    run.folder.prepare()
    run.store.prepare()
    with run.progress.road(), run.fleet(_debug) as fleet:
        for stage in stages:
            done = run_stage(stage, run, fleet)
            print(f"{stage}: {'done' if done else 'finished before'}", flush=True)  # noqa: T201
    if "report" in stages:
        _print_report(study.out)


def _foretell(study: Study, stages: Collection[str], as_json: bool) -> None:
    run = StudyRun(study)
    if "select" in stages:
        run.check_selection()
    found = forecast(run, stages)
    if as_json:
        print(json.dumps({"stages": [one.as_json() for one in found]}, ensure_ascii=False))  # noqa: T201
    else:
        print("\n".join(sentences(found)))  # noqa: T201


def _run_or_foretell(study: Study, stages: Collection[str], dry_run: bool, as_json: bool) -> None:
    if as_json and not dry_run:
        raise InputError("--json: goes with --dry-run; a run's files and `value-harvest status --json` say the rest")
    if dry_run:
        _foretell(study, stages, as_json)
    else:
        _run(study, stages)


def _print_report(out: Path) -> None:
    summary = read_json(out / "summary.json", "report")
    stdout.print()
    if stdout.is_terminal:
        stdout.print(headline_table(summary))
    else:
        stdout.print(format_table(summary), markup=False)
    stdout.print(f"\n{out / 'report.html'}", markup=False)


@app.command("demo")
def demo_(out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo")) -> None:
    """The demo checkpoint and the built-in benchmarks through the whole road; ends with found vs planted.

    Example: value-harvest demo --out runs/demo
    """
    _run(demo.study(out), STAGES)


@app.command("demo-model")
def demo_model(out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")]) -> None:
    """Write the demo checkpoint (Hugging Face format) and planted.json, its true value neurons.

    Example: value-harvest demo-model runs/model
    """
    RunFolder(out).prepare()
    # imported here: it brings torch
    from harvest.models.demo.write import write_demo_model

    write_demo_model(out)
    print(out)  # noqa: T201


@app.command("run")
def run_(study: StudyFile, overrides: Overrides = None, dry_run: DryRun = False, as_json: DryRunJson = False) -> None:
    """Every stage of a study; finished stages are not run again.

    Example: value-harvest run configs/studies/c_voice.yaml --set cluster.engines=4
    """
    _run_or_foretell(load(study, overrides or [], Study), STAGES, dry_run, as_json)


def _stage(name: str, what: str) -> None:
    def command(study: StudyFile, overrides: Overrides = None) -> None:
        _run(load(study, overrides or [], Study), (name,))

    _named(name, what, command)


def _engine_stage(name: str, what: str) -> None:
    def command(
        study: StudyFile, overrides: Overrides = None, dry_run: DryRun = False, as_json: DryRunJson = False
    ) -> None:
        _run_or_foretell(load(study, overrides or [], Study), (name,), dry_run, as_json)

    _named(name, what, command)


def _named(name: str, what: str, command: Callable[..., None]) -> None:
    command.__doc__ = f"{what}\n\nExample: value-harvest {name} STUDY.yaml"
    app.command(name)(command)


_engine_stage("respond", "Answer every item under its role: responses.parquet.")
_engine_stage("capture", "Capture the answers' activations into the store, and merge them: capture.json.")
_stage("select", "Find each group's neurons and their matched controls: neurons.parquet.")
_engine_stage("ablate", "Answer the evaluate half under every condition: completions.parquet.")
_stage("score", "Score the answers: scores.parquet.")
_stage("report", "Sum up: summary.json and report.html.")


FilePath = Annotated[str, typer.Argument(metavar="FILE", help="A benchmark file, or builtin:NAME.")]
FormatName = Annotated[
    str | None, typer.Option("--format", help=f"One of {', '.join(FORMATS)}; told from the file if left out.")
]
ValueName = Annotated[str | None, typer.Option("--value", help="The value of a workbook that holds one.")]
Language = Annotated[str | None, typer.Option("--language", help="The file's language, where it doesn't say.")]


@benchmark.command("list")
def benchmark_list() -> None:
    """The formats, and the benchmarks that travel in the package.

    Example: value-harvest benchmark list
    """
    print(f"formats: {', '.join(FORMATS)}")  # noqa: T201
    for name in builtin_names():
        print(f"{PREFIX}{name}")  # noqa: T201


@benchmark.command("show")
def benchmark_show(
    file: FilePath,
    format_: FormatName = None,
    value: ValueName = None,
    language: Language = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """A benchmark's groups and their numbers of questions.

    Example: value-harvest benchmark show --json builtin:c_voice.zh
    """
    found = groups(read_benchmark(BenchmarkSource(file, format_, value, language)))
    if as_json:
        print(json.dumps({"groups": found}, ensure_ascii=False))  # noqa: T201
    else:
        for group, number in found.items():
            print(f"{number:6}  {group}")  # noqa: T201


@benchmark.command("validate")
def benchmark_validate(
    file: FilePath, format_: FormatName = None, value: ValueName = None, language: Language = None
) -> None:
    """Every fault of a benchmark file, with its row; exit 2 if there is one.

    Example: value-harvest benchmark validate my-dilemmas.xlsx --value 和谐
    """
    found = faults(BenchmarkSource(file, format_, value, language))
    for fault in found:
        print(fault)  # noqa: T201
    if found:
        raise InputError(f"{file}: faults: {len(found)}; mend them and validate again")
    print(f"{file}: no faults")  # noqa: T201


@app.command()
def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The `out` folder of a study.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with the paths of store, merged view and rows.")
    ] = False,
) -> None:
    """What is done and what is missing; works while a run goes on.

    Example: value-harvest status runs/demo --json
    """
    found = run_status(run)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))  # noqa: T201
    else:
        print("\n".join(lines(found)))  # noqa: T201


@app.command()
def verify(store: StorePlace) -> None:
    """Compare every byte of a store with its records; exit 1 and name every damaged file if one differs.

    Example: value-harvest verify runs/demo/store
    """
    damaged = verify_store(store)
    for one in damaged:
        print(f"{one.path} {one.what}")  # noqa: T201
    harmless = len(orphans(store))
    print(f"damaged files: {len(damaged)}; harmless leftovers of unfinished attempts: {harmless}")  # noqa: T201
    if damaged:
        raise typer.Exit(1)


@app.command("gc")
def gc_(
    store: StorePlace,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; a whole attempt is committed instead.")] = False,
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="HOURS", min=0, help="Leave alone what is younger.")
    ] = 1.0,
) -> None:
    """List what no commit of a store names, with sizes and reasons; --delete removes that alone, while others write.

    Example: value-harvest gc runs/demo/store --delete
    """
    found = sweep(Store(store), older_than * 3600, delete)
    for one in found.listed:
        print(f"{one.size_bytes:12}  {one.path}: {one.why}")  # noqa: T201
    print(found.summary)  # noqa: T201


@app.command("export")
def export_(
    store: StorePlace,
    out: Annotated[str, typer.Argument(metavar="OUT", help="An empty folder, s3://BUCKET/PREFIX, or an export of it.")],
) -> None:
    """Copy all that is committed to another place, verified file by file; run again, it goes on where it stopped.

    Example: value-harvest export runs/demo/store s3://bucket/demo
    """
    done = export(Store(store), Store(out))
    print(  # noqa: T201
        f"{out}: units and views copied: {done.num_copied} ({done.size_bytes} bytes); there before: {done.num_there}"
    )


@app.command("doctor")
def doctor_() -> None:
    """Versions, devices, where the packages come from, and what is missing.

    Example: value-harvest doctor
    """
    missing = False
    for name, found, good in doctor.findings():
        missing |= not good
        print(f"{'ok     ' if good else 'MISSING'}  {name}: {found}")  # noqa: T201
    if missing:
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; exit 0 on success, 2 on bad usage or input, 1 on a failed run."""
    words = sys.argv[1:] if arguments is None else arguments
    # --debug counts wherever it stands
    words = ["--debug"] * ("--debug" in words) + [word for word in words if word != "--debug"]
    try:
        code: Any = typer.main.get_command(app)(words, standalone_mode=False)
    except typer.TyperException as error:
        text = str(error).rstrip(".")
        # no arguments at all: the text is the whole help
        _fail(text if "\n" in text else f"{text}; see `value-harvest --help`", 2)
    except InputError as error:
        _fail(str(error), 2)
    except (HarvestError, ClusterError) as error:
        _fail(str(error), 1)
    except OSError as error:
        # a full disk or a lost file system, wherever it shows
        _fail(f"{' '.join(str(error).split())}; what was committed is kept, mend it and run the same command again", 1)
    if code == _INTERRUPTED:
        _fail("interrupted; what was committed is kept, run the same command again", 1)
    sys.exit(code or 0)


def _fail(sentence: str, code: int) -> None:
    if _debug and sys.exception() is not None:
        traceback.print_exc()
    else:
        print(sentence, file=sys.stderr)  # noqa: T201
    sys.exit(code)


if __name__ == "__main__":
    main()
