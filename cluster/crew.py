"""The pool's actors as Ray sees them: starts them, hands them calls, and turns their answers into events.

Ray's own retries are off: they are at-least-once, and know neither quarantine nor which task was to blame.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from cluster.actor import Fault, MakeWorker, Ran, Runner
from cluster.events import ActorLost, ActorPlaced, ActorReady, ActorUnbuilt, Event, TaskDone, TaskFailed
from cluster.launch import log_folder
from cluster.placement import Shape
from cluster.seats import Seats
from cluster.task import Result, Task
from cluster.unfit import missing_module

_CLOSE_S = 30.0  # what a worker gets to close before it is killed


@dataclass(frozen=True, slots=True)
class Build:
    """How an actor of the pool is made."""

    make_worker: MakeWorker
    shape: Shape
    env: Mapping[str, str]
    # set before the worker's process imports anything


class _Asked(Enum):
    CALL = auto()
    BUILD = auto()
    RUN = auto()


@dataclass(frozen=True, slots=True)
class _Call:
    asked: _Asked
    ref: Any
    first: bool = False
    # a CALL before the worker was built
    task_id: str = ""


class Crew:
    """Actors by number, each with the calls whose answers it owes, in the order it will answer them."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._seats = Seats(build.shape)
        self._unseated: dict[int, int] = {}
        # actors that wait for nodes, and their places
        self._actors: dict[int, Any] = {}
        self._calls: dict[int, deque[_Call]] = {}
        self._ran: dict[str, Ran] = {}
        # arrived and not yet taken, by task
        self.faults: dict[int, Fault] = {}
        # why an actor's worker could not be built

    def __len__(self) -> int:
        return len(self._actors)

    def check_fit(self, num_actors: int) -> None:
        """Raises PlacementImpossible unless the cluster, when idle, has room for so many."""
        self._seats.check_fit(num_actors)

    def start(self, actor_id: int, place: int) -> None:
        """Starts an actor and lets it build the worker of this place."""
        import ray

        options = self._seats.take(actor_id)
        if options is None:
            self._unseated[actor_id] = place
            return
        remote = ray.remote(
            **options,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": dict(self._build.env)},
        )
        handle = remote(Runner).remote()
        self._actors[actor_id] = handle
        self._calls[actor_id] = deque(
            [
                _Call(_Asked.CALL, handle.call.remote(), first=True),
                _Call(_Asked.BUILD, handle.build.remote(self._build.make_worker, place)),
            ]
        )

    def call(self, actor_id: int) -> None:
        """Asks a built actor for a sign of life."""
        self._calls[actor_id].append(_Call(_Asked.CALL, self._actors[actor_id].call.remote()))

    def submit(self, actor_id: int, task: Task) -> None:
        """Hands a task to an actor."""
        ref = self._actors[actor_id].run.remote(task.payload)
        self._calls[actor_id].append(_Call(_Asked.RUN, ref, task_id=task.task_id))

    def take(self, actor_id: int, task_id: str) -> Result:
        """The value that a TaskDone announced; it is kept no longer."""
        ran = self._ran.pop(task_id)
        return Result(task_id, ran.value, actor_id, ran.wall_s)

    def stop(self, actor_id: int) -> None:
        """Kills an actor, whatever it does; does nothing if it is gone."""
        import ray

        self._unseated.pop(actor_id, None)
        self._calls.pop(actor_id, None)
        handle = self._actors.pop(actor_id, None)
        if handle is not None:
            ray.kill(handle)
        self._seats.leave(actor_id)

    def stop_all(self) -> None:
        """Kills every actor."""
        for actor_id in [*self._actors, *self._unseated]:
            self.stop(actor_id)

    def close_all(self) -> list[Fault]:
        """Closes every worker and stops its actor; what `close()` raised, in any worker."""
        import ray

        refs = [handle.close.remote() for handle in self._actors.values()]
        closed = ray.wait(refs, num_returns=len(refs), timeout=_CLOSE_S)[0] if refs else []
        faults = []
        for ref in closed:
            try:
                faults.append(ray.get(ref))
            except ray.exceptions.RayActorError:
                continue  # it died idle, with nothing left to close
        self.stop_all()
        return [fault for fault in faults if fault is not None]

    def listen(self, wait_s: float) -> Iterator[Event]:
        """The events that have come in, after waiting at most so long for one."""
        import ray

        for actor_id, reason in self._seats.broken():
            self.stop(actor_id)
            yield ActorLost(actor_id, f"actor {actor_id} was lost: {reason}")
        for actor_id, place in list(self._unseated.items()):
            del self._unseated[actor_id]
            self.start(actor_id, place)
        # an actor's first call alone: when it dies all its calls fail, and only the first was running
        heads = {calls[0].ref: actor_id for actor_id, calls in self._calls.items() if calls}
        if not heads:
            time.sleep(wait_s if self._unseated else 0)
            return
        ray.wait(list(heads), num_returns=1, timeout=wait_s)
        ready, _ = ray.wait(list(heads), num_returns=len(heads), timeout=0)
        for ref in ready:
            if heads[ref] in self._calls:  # it was not stopped for what another has just said
                yield self._hear(heads[ref])

    def _hear(self, actor_id: int) -> Event:
        """What an actor's oldest call came to."""
        import ray

        call = self._calls[actor_id].popleft()
        try:
            answer = ray.get(call.ref)
        except ray.exceptions.RayTaskError as error:
            answer = missing_module(error) or _unpickled(error)
        except ray.exceptions.RayError as error:
            fault = missing_module(error) if call.first else None
            return self._lost(actor_id, call, error) if fault is None else self._unbuilt(actor_id, fault)
        match call, answer:
            case _Call(asked=_Asked.CALL, first=True), _:
                return ActorPlaced(actor_id)
            case _Call(asked=_Asked.BUILD), Fault():
                return self._unbuilt(actor_id, answer)
            case _Call(asked=_Asked.RUN, task_id=task_id), Fault():
                return TaskFailed(actor_id, task_id, answer.reason, answer.retryable)
            case _Call(asked=_Asked.RUN, task_id=task_id), _:
                self._ran[task_id] = answer
                return TaskDone(actor_id, task_id)
        return ActorReady(actor_id)

    def _unbuilt(self, actor_id: int, fault: Fault) -> Event:
        self.faults[actor_id] = fault
        self.stop(actor_id)
        return ActorUnbuilt(actor_id, fault.reason, fault.retryable)

    def _lost(self, actor_id: int, call: _Call, error: Exception) -> Event:
        self.stop(actor_id)  # one that is only "unavailable" must not come back with a second result
        why = f"{_first_line(error)} Its log is in {log_folder()}"
        if call.asked is not _Asked.BUILD:
            return ActorLost(actor_id, f"actor {actor_id} was lost: {why}")
        self.faults[actor_id] = Fault(type(error).__name__, why, True, None)
        return ActorUnbuilt(actor_id, why, retryable=True)


def _unpickled(error: Any) -> Fault:
    """A payload, value or `make_worker` that did not survive its pickling; it will not the next time either."""
    return Fault(type(error.cause).__name__, _first_line(error.cause), False, None)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
