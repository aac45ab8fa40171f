"""What docs/SCALE.md predicts of a unit is what a unit takes on disk; sections of results replace only themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.overlap import idle_at_least
from bench.paced import MODELS, Model, PacedEngine, capture_task, labels_of, random_rows
from bench.results import write_section
from bench.simulation import World, simulate
from bench.sizes import Study, bytes_per_neuron, data_bytes, num_files, num_folders
from bench.sleepers import most_at_once
from harvest.store.commit import Store
from harvest.store.schema import MOMENTS, ROWS


@pytest.mark.parametrize("model", [MODELS["tiny"], Model("wide", 6, 200_000)], ids=["one chunk", "shards"])
@pytest.mark.parametrize("kind", ["moments", "rows"])
def test_a_unit_takes_as_many_bytes_and_files_as_predicted(tmp_path: Path, model: Model, kind: str):
    task = capture_task("unit", labels_of(model, "g", 3), (kind,), Store(tmp_path).prepare())
    task.keep(task.measure(PacedEngine(random_rows(model, 3), 0.0), task.wanted()))
    (unit,) = (tmp_path / "attempts").iterdir()
    below = list(unit.rglob("*"))
    files = [path for path in below if path.is_file() and unit.name not in path.stem and path.parent != unit]
    values = [path for path in files if path.name != "zarr.json"]
    assert sum(path.stat().st_size for path in values) == data_bytes(kind, model, 3)
    assert len(files) == num_files(kind)
    assert sum(path.is_dir() for path in below) + 1 == num_folders(kind)
    # its record, its commit, and the store's marker
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == num_files(kind) + 3


def test_the_sizes_that_the_design_names():
    assert bytes_per_neuron(MOMENTS) == 44
    assert bytes_per_neuron(ROWS) == 6
    study = Study(MODELS["70B"], 24, 25.7)
    assert study.rows_bytes == 24 * 237 * 6 * 80 * 28672
    assert study.moments_bytes == pytest.approx(24 * 237 / 25.7 * 44 * 80 * 28672, rel=0.01)


def test_an_engine_that_is_never_kept_waiting_is_never_idle():
    engine = PacedEngine(random_rows(MODELS["tiny"], 1), forward_s=2.0, passes=[(0.0, 2.0), (2.0, 4.0)])
    assert engine.idle() == 0
    engine.passes.append((8.0, 10.0))
    assert engine.idle() == pytest.approx(0.4)
    assert [idle_at_least(1.0, keep_s) for keep_s in (0.0, 1.0, 3.0)] == [0.0, 0.0, 0.5]


def test_the_most_at_once_is_counted_at_the_ends():
    began, ended = {1: 0.0, 2: 1.0, 3: 2.0, 4: 2.5}, {1: 2.0, 2: 3.0, 3: 4.0, 4: 2.6}
    assert most_at_once(began, ended, [1]) == 1
    assert most_at_once(began, ended, [1, 2, 3]) == 2
    assert most_at_once(began, ended, [1, 2, 3, 4]) == 3


def test_a_simulated_run_does_every_unit_and_counts_what_the_dead_had_done():
    calm = simulate([3.0] * 40, World(4, boot_s=10.0, keep=0.0))
    assert (calm.makespan_s, calm.lower_bound_s, calm.wasted, calm.lost) == (30.0, 30.0, 0.0, 0)
    deadly = simulate([3.0] * 40, World(4, boot_s=10.0, keep=0.0, life_s=15.0), seed=1)
    assert deadly.lost > 0
    assert 0 < deadly.wasted < deadly.lost * 2 * 3.0 / 120
    assert deadly.quarantined == 0
    assert deadly.makespan_s > 30.0


def test_a_section_of_the_results_replaces_only_itself(tmp_path: Path):
    page = tmp_path / "RESULTS.md"
    for section in ("# One\n\n## Part\n\nold\n", "# Two\n\n- b\n", "# One\n\nnew\n", "# Three\n"):
        write_section(section, page)
    assert page.read_text() == "# One\n\nnew\n\n# Two\n\n- b\n\n# Three\n"
