"""The demo's study: a checkpoint whose value neurons are known, and benchmarks that travel in the package."""

from __future__ import annotations

from pathlib import Path

from analysis.run_folder import RunFolder
from analysis.settings import Study
from harvest.config import load
from harvest.models.demo.write import write_demo_model


def study(out: Path) -> Study:
    """The study that runs in `out`, with its checkpoint written to OUT/model."""
    model = out / "model"
    settings = load(Path(__file__).with_name("demo.yaml"), [f"out={out}", f"model.path={model}"], Study)
    RunFolder(out).prepare()
    write_demo_model(model)
    return settings
