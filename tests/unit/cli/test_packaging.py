"""What is installed: our three packages and the front door, nothing else, and nothing heavy before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

PROJECT = Path(__file__).parents[3]
PACKAGES = ("cluster", "harvest", "analysis")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    ended = subprocess.run(build, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (file,) = folder.iterdir()
    return ZipFile(file)


def test_the_wheel_holds_the_front_door_and_the_three_packages_whole(wheel: ZipFile):
    installed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    here = {
        path.relative_to(PROJECT).as_posix()
        for package in PACKAGES
        for path in (PROJECT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert installed == here | {"value_harvest.py"}
    data = ("harvest/benchmarks/builtin/lexicon.json", "harvest/benchmarks/builtin/c_voice.zh.jsonl")
    report = ("analysis/report/page.html", "analysis/report/style.css")
    assert {
        *data,
        *report,
        "harvest/benchmarks/builtin/value_insight.en.jsonl",
        "analysis/demo.yaml",
        "harvest/probe/fold.cpp",
    } <= installed


def test_the_wheel_names_its_command_its_licence_and_its_extras(wheel: ZipFile):
    (folder,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    entry_points = wheel.read(f"{folder}/entry_points.txt").decode()
    assert "value-harvest = value_harvest:main" in entry_points
    metadata = Parser().parsestr(wheel.read(f"{folder}/METADATA").decode())
    assert metadata["Name"] == "value-harvest"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra") or ()) == {"cpu", "gpu"}


TRITON = ("harvest.probe.kernel", "harvest.probe.triton_fold")
# imported only where Triton is installed, and it is not beside a CPU's vLLM


@pytest.mark.parametrize(
    ("packages", "absent"),
    [
        (("analysis", "value_harvest"), ("vllm", "ray", "torch", "transformers")),
        (("cluster",), ("vllm", "ray", "torch", "zarr")),
        (("harvest.stats", "harvest.benchmarks", "harvest.types", "harvest.errors"), ("vllm", "ray", "torch", "zarr")),
        (("harvest.store",), ("vllm", "ray", "torch")),
        (("harvest.probe", "harvest.models"), ("vllm", "ray", "zarr")),
    ],
    ids="+".join,
)
def test_importing_a_room_does_not_load_what_it_does_not_need(packages: tuple[str, ...], absent: tuple[str, ...]):
    code = f"""
import importlib, json, pkgutil, sys
imported = []
for name in {packages!r}:
    module = importlib.import_module(name)
    imported.append(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), f"{{name}}."):
        if found.name in {TRITON!r}:
            continue
        importlib.import_module(found.name)
        imported.append(found.name)
print(json.dumps([imported, sorted(set({absent!r}) & set(sys.modules))]))
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    imported, loaded = json.loads(ended.stdout)
    assert len(imported) >= len(packages)
    assert "analysis" not in packages or {"analysis.stages", "analysis.report.write", "value_harvest"} <= set(imported)
    assert loaded == []
