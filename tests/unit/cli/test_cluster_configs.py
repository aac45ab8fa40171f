"""The examples that people start from are ones that work: studies load, cluster files are what Ray and KubeRay read."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from analysis.settings import Study
from harvest.config import load
from value_harvest import app

ROOT = Path(__file__).parents[3]
CLUSTERS = ROOT / "configs" / "clusters"
NO_STUDIES = {"ray-up-4-nodes.yaml", "kuberay-rayjob.yaml"}
STUDIES = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.name not in NO_STUDIES)
TEXTS = sorted([ROOT / "docs" / "CLUSTER.md", *(ROOT / "configs").rglob("*.yaml")])


def documented(program: str) -> list[tuple[Path, list[str]]]:
    """Every command line of a program in the documentation and the examples."""
    start = re.compile(rf"^(?:#| {{4}})[ \t]*(?:\S+/)?({program} [^`\n]*)", re.MULTILINE)
    found = []
    for path in TEXTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        found += [(path, shlex.split(re.split(r" {2,}| #", match[1])[0])) for match in start.finditer(text)]
    return found


def named(pair: Any) -> str:
    return f"{pair[0].name}: {shlex.join(pair[1])}" if isinstance(pair, tuple) else str(pair)


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_every_example_study_loads(study: Path) -> None:
    assert load(study, [], Study).cluster.engines >= 1


@pytest.mark.parametrize("command", documented("value-harvest"), ids=named)
def test_every_documented_command_exists_and_its_settings_too(command: tuple[Path, list[str]]) -> None:
    _, [_, name, *arguments] = command
    assert name in get_command(app).commands  # type: ignore[attr-defined]
    overrides = [arguments[i + 1] for i, argument in enumerate(arguments) if argument == "--set"]
    # where the study was put on the volume of a cluster, it is one of ours
    files = [Path(argument) for argument in arguments if argument.endswith(".yaml")]
    studies = [CLUSTERS / file.name if file.is_absolute() else ROOT / file for file in files]
    for study in studies:
        assert load(study, overrides, Study)
    assert studies or name in ("demo-model", "status")


@pytest.mark.parametrize("command", documented("ray"), ids=named)
def test_every_documented_ray_command_exists(command: tuple[Path, list[str]]) -> None:
    from ray.scripts.scripts import cli

    _, [_, name, *arguments] = command
    known = {option for parameter in cli.commands[name].params for option in parameter.opts}
    # it hands the rest to `ray start`
    known |= {option for parameter in cli.commands["start"].params for option in parameter.opts}
    asked = {argument.partition("=")[0] for argument in arguments if argument.startswith("--") and argument != "--"}
    assert asked <= known


def test_the_commands_are_found_at_all() -> None:
    assert {command[1][1] for command in documented("value-harvest")} >= {"run", "demo-model"}
    assert {command[1][1] for command in documented("ray")} >= {"up", "attach", "down", "get-auth-token"}


def test_the_ray_up_file_is_what_rays_own_schema_and_checks_want() -> None:
    import jsonschema
    import ray
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    config = yaml.safe_load((CLUSTERS / "ray-up-4-nodes.yaml").read_text())
    jsonschema.Draft7Validator(schema).validate(config)
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["available_node_types"]["local.cluster.node"]["min_workers"] == 3
    starts = [command for kind in ("head", "worker") for command in config[f"{kind}_start_ray_commands"]]
    assert sum("RAY_AUTH_MODE=token" in command for command in starts if "ray start" in command) == 2
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_the_rayjob_runs_a_study_on_a_cluster_with_a_token_and_holds_no_secret() -> None:
    from importlib.metadata import version

    text = (CLUSTERS / "kuberay-rayjob.yaml").read_text()
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    _, command, study, *options = shlex.split(job["spec"]["entrypoint"])
    assert command in get_command(app).commands  # type: ignore[attr-defined]
    assert study.startswith("/shared/")
    overrides = [value for value in options if value != "--set"]
    assert load(CLUSTERS / "four-nodes.yaml", overrides, Study).cluster.address == "auto"
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert [group.get("replicas") for group in groups] == [None, 4]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert "/shared" in [mount["mountPath"] for mount in container["volumeMounts"]]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert "env" not in container
        gpus = container["resources"]["limits"].get("nvidia.com/gpu", "0")
        assert gpus == group["rayStartParams"]["num-gpus"]
    assert not re.search(r"(?i)(token|secret_access_key|password)['\"]?\s*[:=]\s*\S{12,}", text)
