"""The pool's actors as Ray sees them: starts them, hands them calls, and turns their answers into events.

Ray's own retries are off: they are at-least-once, and know neither quarantine nor which task was to blame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from queue import Empty, SimpleQueue
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
    PLACED = auto()
    # a call that the process answers before it has a worker
    ALIVE = auto()
    BUILD = auto()
    RUN = auto()


@dataclass(frozen=True, slots=True)
class _Call:
    actor_id: int
    asked: _Asked
    ref: Any
    task_id: str = ""


class Crew:
    """Actors by number. What they answer comes in through one queue, at the same cost however many there are."""

    def __init__(self, build: Build, max_in_flight: int) -> None:
        self._build = build
        self._max_in_flight = max_in_flight
        self._seats = Seats(build.shape)
        self._unseated: dict[int, int] = {}
        # actors that wait for nodes, and their places
        self._actors: dict[int, Any] = {}
        self._placed: set[int] = set()
        self._answered: SimpleQueue[_Call | None] = SimpleQueue()
        # None only wakes whoever listens
        self._ran: dict[str, Ran] = {}
        # arrived and not yet taken, by task
        self.faults: dict[int, Fault] = {}
        # of an actor: why its worker could not be built, or what ended the run

    def __len__(self) -> int:
        return len(self._actors)

    def check_fit(self, num_actors: int) -> None:
        """Raises PlacementImpossible unless the cluster, when idle, has room for so many."""
        self._seats.check_fit(num_actors)

    def room(self) -> int:
        """How many actors the machines that are up could hold, if nobody else used them."""
        return self._seats.room()

    def start(self, actor_id: int, place: int) -> None:
        """Starts an actor and lets it build the worker of this place."""
        import ray

        options = self._seats.take(actor_id)
        if options is None:
            self._unseated[actor_id] = place
            return
        remote = ray.remote(
            **options,
            max_concurrency=self._max_in_flight,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": dict(self._build.env)},
        )
        handle = remote(Runner).remote()
        self._actors[actor_id] = handle
        self._expect(_Call(actor_id, _Asked.PLACED, handle.call.remote()))
        self._expect(_Call(actor_id, _Asked.BUILD, handle.build.remote(self._build.make_worker, place)))

    def call(self, actor_id: int) -> None:
        """Asks a built actor for a sign of life."""
        self._expect(_Call(actor_id, _Asked.ALIVE, self._actors[actor_id].call.remote()))

    def submit(self, actor_id: int, task: Task) -> None:
        """Hands a task to an actor."""
        self._expect(_Call(actor_id, _Asked.RUN, self._actors[actor_id].run.remote(task.payload), task.task_id))

    def _expect(self, call: _Call) -> None:
        # a wait over all references would cost as much as there are actors, for every single answer
        call.ref.future().add_done_callback(lambda _: self._answered.put(call))

    def take(self, actor_id: int, task_id: str) -> Result:
        """The value that a TaskDone announced; it is kept no longer."""
        ran = self._ran.pop(task_id)
        return Result(task_id, ran.value, actor_id, ran.wall_s)

    def stop(self, actor_id: int) -> None:
        """Kills an actor, whatever it does; does nothing if it is gone."""
        import ray

        self._placed.discard(actor_id)
        self._unseated.pop(actor_id, None)
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

        # one that no machine has room for would be waited for in vain
        refs = [self._actors[actor_id].close.remote() for actor_id in self._placed]
        closed = ray.wait(refs, num_returns=len(refs), timeout=_CLOSE_S)[0] if refs else []
        faults = []
        for ref in closed:
            try:
                faults.append(ray.get(ref))
            except ray.exceptions.RayActorError:
                continue  # it died idle, with nothing left to close
        self.stop_all()
        return [fault for fault in faults if fault is not None]

    def wake(self) -> None:
        """Ends the wait of whoever listens; may be called from a signal handler."""
        self._answered.put(None)

    def listen(self, wait_s: float) -> Iterator[Event]:
        """The events that have come in, after waiting at most so long for one."""
        if self._seats.look_is_due():
            yield from self._look_at_nodes()
        try:
            first = self._answered.get(timeout=wait_s)
        except Empty:
            return
        # all that is there, in its order: what an actor answered before it was lost still counts
        for call in (first, *(self._answered.get_nowait() for _ in range(self._answered.qsize()))):
            if call is not None and call.actor_id in self._actors:  # one that was stopped has nothing more to say
                yield self._hear(call)

    def _look_at_nodes(self) -> Iterator[Event]:
        """Actors that lost a node are lost, and those that waited for nodes are started where there are some by now."""
        for actor_id, reason in self._seats.broken():
            self.stop(actor_id)
            yield ActorLost(actor_id, f"actor {actor_id} was lost: {reason}", with_machine=True)
        waiting, self._unseated = self._unseated, {}
        for actor_id, place in waiting.items():
            self.start(actor_id, place)

    def _hear(self, call: _Call) -> Event:
        """What a call came to."""
        import ray

        actor_id = call.actor_id
        try:
            answer = ray.get(call.ref)
        except ray.exceptions.RayTaskError as error:
            answer = missing_module(error) or _unpickled(error)
        except ray.exceptions.RayError as error:
            fault = missing_module(error) if call.asked is _Asked.PLACED else None
            return self._lost(call, error) if fault is None else self._unbuilt(actor_id, fault)
        match call.asked, answer:
            case _Asked.PLACED, _:
                self._placed.add(actor_id)
                return ActorPlaced(actor_id)
            case _Asked.BUILD, Fault():
                return self._unbuilt(actor_id, answer)
            case _Asked.RUN, Fault():
                if answer.ends_run:
                    self.faults[actor_id] = answer
                return TaskFailed(actor_id, call.task_id, answer.reason, answer.retryable, answer.ends_run)
            case _Asked.RUN, _:
                self._ran[call.task_id] = answer
                return TaskDone(actor_id, call.task_id)
        return ActorReady(actor_id)

    def _unbuilt(self, actor_id: int, fault: Fault) -> Event:
        self.faults[actor_id] = fault
        self.stop(actor_id)
        return ActorUnbuilt(actor_id, fault.reason, fault.retryable and not fault.ends_run)

    def _lost(self, call: _Call, error: Exception) -> Event:
        self.stop(call.actor_id)  # one that is only "unavailable" must not come back with a second result
        why = f"{_first_line(error)} Its log is in {log_folder()}"
        with_machine = _is_of_machine(error)
        if call.asked in (_Asked.PLACED, _Asked.BUILD) and not with_machine:
            self.faults[call.actor_id] = Fault(type(error).__name__, why, True, None)
            return ActorUnbuilt(call.actor_id, why, retryable=True)
        return ActorLost(call.actor_id, f"actor {call.actor_id} was lost: {why}", with_machine)


def _is_of_machine(error: Exception) -> bool:
    """Whether an actor went with its machine: nobody there is left to report the death of a process.

    Where the machine lives on, its raylet tells of a dead worker within milliseconds. Where both fall silent, Ray
    calls the actor unavailable at first, and after its health checks says that the node has died.
    """
    import ray

    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return True
    return isinstance(error, ray.exceptions.ActorDiedError) and (error.preempted or "node has died" in str(error))


def _unpickled(error: Any) -> Fault:
    """A payload, value or `make_worker` that did not survive its pickling; it will not the next time either."""
    return Fault(type(error.cause).__name__, _first_line(error.cause), False, None)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
