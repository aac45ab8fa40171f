"""Workers in an environment that lacks what the driver has, or has it in another version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import SetupFailed
from cluster.launch import connect, disconnect
from cluster.pool import Pool
from cluster.task import Task
from harvest.engine.options import EngineOptions
from harvest.engine.seat import EngineSeat
from harvest.errors import WrongNode

LACKING = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Without())
"""


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    connect(num_cpus=2)
    yield
    disconnect()


def refusal(environment: Path) -> SetupFailed:
    """What a pool says whose workers' process starts with this folder on its path."""
    seat = EngineSeat(EngineOptions(Path("/no/model")))
    with (
        Pool(seat, 1, num_cpus=0.1, env={"PYTHONPATH": str(environment)}) as pool,
        pytest.raises(SetupFailed) as refused,
    ):
        pool.run([Task("a", None)])
    return refused.value


@pytest.mark.parametrize("package", ["cluster", "harvest"])
def test_a_node_without_the_packages_is_named_with_what_it_lacks(tmp_path: Path, package: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(LACKING.format(package=package))
    error = refusal(tmp_path)
    assert f"ModuleNotFoundError: node 127.0.0.1 has no module {package}" in str(error)
    assert "install there what this process has" in str(error)


def test_a_node_with_another_version_is_refused_with_both(tmp_path: Path) -> None:
    metadata = tmp_path / "value_harvest-9.9.9.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: value-harvest\nVersion: 9.9.9\n")
    cause = refusal(tmp_path).__cause__
    assert isinstance(cause, WrongNode)
    assert "has value-harvest 9.9.9, and the study was started with" in str(cause)
