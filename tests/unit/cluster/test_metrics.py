"""What a stage's gauge says after the stage; a real Ray shows it under tests/extras."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.metrics import Metrics
from cluster.task import Counts


class Kept:
    """Keeps what was set last, where Ray would send it on."""

    last: float = -1

    def __init__(self, name: str, **_: Any) -> None: ...

    def set(self, value: float, tags: Any) -> None:
        Kept.last = value


def test_a_stage_that_is_over_has_no_engines_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.metrics.Gauge", Kept)
    monkeypatch.setattr("ray.util.metrics.Counter", Kept)
    metrics = Metrics("value_harvest", "respond")
    metrics.update(Counts(2, 0, 0, 0, actors=2))
    assert Kept.last == 2
    metrics.end()
    assert Kept.last == 0
