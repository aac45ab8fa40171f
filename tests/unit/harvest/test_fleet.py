"""What a person is told of a run that did not end well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterError, RunEnded, SetupFailed
from cluster.task import Failure, Outcome, Task
from harvest.engine.options import EngineOptions
from harvest.errors import EngineError, HarvestError, Interrupted, ModelError, RunError, StoreError, UnitsFailed
from harvest.fleet import Fleet

FAILED = (
    "capture: 1 of 8 tasks failed, first t1 after 3 attempts: ValueError: no; the others are kept, run the same "
    "command again"
)


class Ending:
    """A pool whose runs all end the same way."""

    def __init__(self, how: Outcome | Exception, failures: tuple[Failure, ...] = ()) -> None:
        self.how, self.failures = how, failures

    def run(self, tasks: Any, on_failure: Any, **_: Any) -> Outcome:
        for failure in self.failures:
            on_failure(failure)
        if isinstance(self.how, Exception):
            raise self.how
        return self.how


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("how", "kind", "sentence"),
    [
        (
            Outcome(3, (), left=5, drained=True),
            Interrupted,
            "capture: interrupted with 3 of 8 tasks done; what was committed is kept, run the same command again",
        ),
        (
            Outcome(3, (Failure("t1", "ValueError: no", 3),), left=4, drained=True),
            Interrupted,
            (
                "capture: interrupted with 3 of 8 tasks done and 1 given up; what was committed is kept, run the same "
                "command again"
            ),
        ),
        (
            Outcome(7, (Failure("t1", "ValueError: no", 3),)),
            UnitsFailed,
            FAILED,
        ),
        (
            caused(RunEnded("StoreError", "s/: full"), StoreError("s/: full; free some")),
            StoreError,
            "s/: full; free some",
        ),
        (
            RunEnded("QuotaError", "over quota"),
            RunError,
            "capture: QuotaError: over quota; what was committed is kept, mend it and run the same command again",
        ),
        (caused(SetupFailed("ModelError", "m: none"), ModelError("m: none")), ModelError, "m: none"),
        (
            SetupFailed("OSError", "busy"),
            EngineError,
            "m: the engine could not be opened (OSError: busy); run again with --debug to see its log",
        ),
    ],
)
def test_every_end_but_a_good_one_is_one_sentence(
    how: Outcome | Exception, kind: type[HarvestError], sentence: str
) -> None:
    fleet = Fleet(EngineOptions(Path("m")), 1)
    fleet._pool = Ending(how)  # type: ignore[assignment]
    with pytest.raises(kind) as caught:
        fleet.run("capture", [Task(f"t{i}", None) for i in range(8)])
    assert type(caught.value) is kind
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "how",
    [
        Outcome(7, (Failure("t1", "ValueError: no", 3),)),
        Outcome(3, (Failure("t1", "ValueError: no", 3),), left=4, drained=True),
        caused(RunEnded("StoreError", "s/: full"), StoreError("s/: full; free some")),
    ],
)
def test_what_a_run_gave_up_is_known_however_it_ended_and_until_the_next(how: Outcome | Exception) -> None:
    fleet = Fleet(EngineOptions(Path("m")), 1)
    fleet._pool = Ending(how, (Failure("t1", "ValueError: no", 3),))  # type: ignore[assignment]
    with pytest.raises(RunError):
        fleet.run("capture", [Task(f"t{i}", None) for i in range(8)])
    assert fleet.failed == {"t1": "ValueError: no"}
    fleet.run("ablate", [])
    assert fleet.failed == {}


class Stopping(Ending):
    """A pool that cannot be closed in order."""

    def __init__(self) -> None:
        super().__init__(Outcome(8, ()))
        self.killed = False

    def close(self) -> None:
        raise ClusterError("1 worker(s) failed to close, the first with X")

    def kill(self) -> None:
        self.killed = True


def test_an_error_stops_the_engines_at_once_and_comes_through() -> None:
    fleet, pool = Fleet(EngineOptions(Path("m")), 1), Stopping()
    fleet._pool = pool  # type: ignore[assignment]
    with pytest.raises(ModelError, match="damaged"), fleet:
        raise ModelError("m: damaged")
    assert pool.killed
    assert not fleet.started


def test_an_engine_that_cannot_be_closed_is_a_warning_for_the_results_are_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Fleet(EngineOptions(Path("m")), 1) as fleet:
        fleet._pool = Stopping()  # type: ignore[assignment]
    told = "warning: 1 worker(s) failed to close, the first with X; all results were written before\n"
    assert capsys.readouterr().err == told
