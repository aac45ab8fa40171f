"""The demo's study: a checkpoint whose value neurons are known, and benchmarks that travel in the package."""

from __future__ import annotations

import json
from pathlib import Path

from analysis.run_folder import RunFolder
from analysis.settings import Study
from harvest.config import load


def study(out: Path) -> Study:
    """The study that runs in `out`, with its checkpoint written to OUT/model."""
    model = out / "model"
    # a JSON string is a YAML string: a folder may be called 2024, null or a: b
    overrides = [
        f"{key}={json.dumps(str(path), ensure_ascii=False)}" for key, path in (("out", out), ("model.path", model))
    ]
    settings = load(Path(__file__).with_name("demo.yaml"), overrides, Study)
    # imported here: it brings torch, and nothing else in analysis does
    from harvest.models.demo.write import write_demo_model

    RunFolder(out).prepare()
    write_demo_model(model)
    return settings
