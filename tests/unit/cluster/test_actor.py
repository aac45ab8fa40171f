"""The inside of an actor, without Ray."""

from __future__ import annotations

import pickle
from typing import Any

from cluster.actor import Fault, Ran, Runner
from cluster.errors import SetupFailed


class HardToPickleError(Exception):
    retryable = False

    def __init__(self, unit: str, place: str) -> None:
        super().__init__(f"{unit} at {place}")


def built(worker: Any) -> Runner:
    runner = Runner()
    assert runner.build(lambda place: worker, 0) is None
    return runner


def test_a_value_comes_back_with_its_time() -> None:
    ran = built(lambda payload: payload + 1).run(41)
    assert isinstance(ran, Ran)
    assert ran.value == 42
    assert 0 <= ran.wall_s < 1


def test_an_exception_comes_back_as_data() -> None:
    def worker(payload: Any) -> None:
        raise KeyError(payload)

    fault = built(worker).run("unit 3f")
    assert isinstance(fault, Fault)
    assert fault.reason == "KeyError: 'unit 3f'"
    assert fault.retryable
    assert fault.pickled is not None
    assert isinstance(pickle.loads(fault.pickled), KeyError)


def test_an_exception_that_cannot_be_unpickled_still_tells_its_name_message_and_verdict() -> None:
    def make(place: int) -> Any:
        raise HardToPickleError("unit 3f", "layer 2")

    fault = Runner().build(make, 0)
    assert fault == Fault("HardToPickleError", "unit 3f at layer 2", False, None)


def test_a_worker_is_closed_once_and_its_fault_is_told() -> None:
    class Worker:
        closed = 0

        def __call__(self, payload: Any) -> None: ...

        def close(self) -> None:
            self.closed += 1
            if self.closed > 1:
                raise OSError("already closed")

    worker = Worker()
    runner = built(worker)
    assert runner.close() is None
    assert worker.closed == 1
    fault = runner.close()
    assert fault is not None
    assert fault.reason == "OSError: already closed"


def test_a_plain_function_has_nothing_to_close() -> None:
    assert built(str).close() is None


def test_setup_failed_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(SetupFailed("OSError", "no weights")))
    assert str(error) == "a worker could not be built: OSError: no weights"
