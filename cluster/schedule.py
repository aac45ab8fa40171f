"""The pool's decisions as a state machine: events in, instructions out. No Ray, no clock, no I/O.

A pool has a fixed number of places; an actor fills a place, and when it is lost another takes it. A task waits in the
queue, is in flight on one actor, or has ended. An actor works through its tasks in the order they were handed to it, so
the first one in flight is the one that runs: it alone is blamed when the actor is lost.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from cluster.events import (
    ActorLost,
    ActorPlaced,
    ActorReady,
    ActorUnbuilt,
    CallActor,
    Deliver,
    Drain,
    Event,
    GiveUp,
    Instruction,
    Quarantine,
    StartActor,
    StopActor,
    Submit,
    TaskDone,
    TaskFailed,
    TasksAdded,
    Tick,
)
from cluster.policy import Policy, is_spent, is_suspect, may_run_on
from cluster.task import Counts, Failure, Task


@dataclass(slots=True, eq=False)
class _Job:
    task: Task
    order: int
    attempts: int = 0
    tried: set[int] = field(default_factory=set)

    def rank(self) -> tuple[float, int]:
        return (-self.task.cost, self.order)


@dataclass(slots=True, eq=False)
class _Actor:
    actor_id: int
    place: int
    placed: bool = False
    ready: bool = False
    jobs: list[_Job] = field(default_factory=list)
    # in flight, the running one first
    running_since: float = 0.0
    failed_in_row: set[str] = field(default_factory=set)


class Schedule:
    """Every task that is added ends exactly once: delivered, quarantined, or left behind by a drain."""

    def __init__(self, num_actors: int, policy: Policy) -> None:
        self.policy = policy
        self._losses = [0] * num_actors  # by place, in a row
        self._actors: dict[int, _Actor] = {}
        self._next_actor = 0
        self._last_loss = (-1, "")
        self._proven = False  # some worker was built once: later failures to build one may pass
        self._unbuilt: set[int] = set()  # places that failed to build a worker
        self._queue: list[_Job] = []
        self._open: dict[str, _Job] = {}
        self._total = self._done = self._retries = self.left = 0
        self._cost = self._cost_done = 0.0
        self.failures: list[Failure] = []
        self._draining = False
        self._out: list[Instruction] = []

    @property
    def finished(self) -> bool:
        """Whether every task has ended."""
        return not self._open

    @property
    def counts(self) -> Counts:
        ready = sum(actor.ready for actor in self._actors.values())
        return Counts(self._total, self._done, len(self.failures), self._retries, ready, self._cost, self._cost_done)

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """What to do about an event at the time `now` (s, any origin); events of stopped actors change nothing.

        Raises ValueError if a run names a task twice or begins before the last one has ended.
        """
        self._out = []
        match event:
            case TasksAdded(tasks):
                self._begin(tasks)
            case Tick():
                self._check_deadlines(now)
            case Drain():
                self._draining = True
            case _ if event.actor_id in self._actors:
                self._hear(event, self._actors[event.actor_id], now)
        if self._draining:
            self._leave_queue()
        elif not any(isinstance(instruction, GiveUp) for instruction in self._out):
            self._staff()
            self._dispatch(now)
        return self._out

    def _begin(self, tasks: tuple[Task, ...]) -> None:
        if self._open:
            raise ValueError(f"a run begins while {len(self._open)} tasks of the last one are open")
        jobs = {task.task_id: _Job(task, order) for order, task in enumerate(tasks)}
        if len(jobs) < len(tasks):
            raise ValueError(f"{len(tasks) - len(jobs)} of {len(tasks)} tasks repeat another's id")
        self._open, self._queue = jobs, sorted(jobs.values(), key=_Job.rank)
        self._total, self._done, self._retries, self.left, self.failures = len(jobs), 0, 0, 0, []
        self._cost, self._cost_done = sum(task.cost for task in tasks), 0.0
        self._draining = False
        self._losses = [0] * len(self._losses)
        for actor in self._actors.values():
            if actor.ready and jobs:  # it may have died since, and no task should be blamed for that
                actor.ready = False
                self._out.append(CallActor(actor.actor_id))

    def _hear(self, event: Event, actor: _Actor, now: float) -> None:
        match event:
            case ActorPlaced():
                actor.placed = True
            case ActorReady():
                actor.placed = actor.ready = self._proven = True
            case ActorUnbuilt(_, reason, retryable):
                self._unbuilt.add(actor.place)
                self._lose(actor, reason)
                hopeless = not self._proven and self._unbuilt.issuperset(a.place for a in self._actors.values())
                if not retryable or hopeless:
                    self._out.append(GiveUp(actor.actor_id, reason))
            case ActorLost(_, reason):
                self._lose(actor, reason)
            case TaskDone(_, task_id):
                self._finish(actor, task_id, now)
            case TaskFailed():
                self._fail(actor, event, now)

    def _finish(self, actor: _Actor, task_id: str, now: float) -> None:
        job = self._take(actor, task_id, now)
        if job is None:
            return
        actor.failed_in_row.clear()
        self._losses[actor.place] = 0
        del self._open[task_id]
        self._done += 1
        self._cost_done += job.task.cost
        self._out.append(Deliver(actor.actor_id, task_id))

    def _fail(self, actor: _Actor, event: TaskFailed, now: float) -> None:
        job = self._take(actor, event.task_id, now)
        if job is None:
            return
        self._charge(actor, job, event.reason, event.retryable)
        if event.retryable:
            actor.failed_in_row.add(event.task_id)
        if is_suspect(actor.failed_in_row):
            self._out.append(StopActor(actor.actor_id))
            self._remove(actor, event.reason)

    def _lose(self, actor: _Actor, reason: str) -> None:
        running = actor.jobs.pop(0) if actor.jobs else None
        self._remove(actor, reason)
        if running is not None and self._charge(actor, running, reason, retryable=True):
            self._losses[actor.place] = 0

    def _check_deadlines(self, now: float) -> None:
        deadline_s = self.policy.deadline_s
        if deadline_s is None:
            return
        for actor in list(self._actors.values()):
            if actor.jobs and now - actor.running_since > deadline_s:
                self._out.append(StopActor(actor.actor_id))
                self._lose(actor, f"it ran longer than its deadline of {deadline_s:g} s")

    def _leave_queue(self) -> None:
        for job in self._queue:
            del self._open[job.task.task_id]
        self.left += len(self._queue)
        self._queue.clear()

    def _take(self, actor: _Actor, task_id: str, now: float) -> _Job | None:
        """Takes a task out of an actor's hands; None if it is not in them."""
        job = next((job for job in actor.jobs if job.task.task_id == task_id), None)
        if job is not None:
            actor.jobs.remove(job)
            actor.running_since = now
        return job

    def _remove(self, actor: _Actor, reason: str) -> None:
        """Forgets an actor; what it held is queued again at its old rank, uncharged."""
        del self._actors[actor.actor_id]
        self._losses[actor.place] += 1
        self._last_loss = (actor.actor_id, reason)
        for job in actor.jobs:
            insort(self._queue, job, key=_Job.rank)

    def _charge(self, actor: _Actor, job: _Job, reason: str, retryable: bool) -> bool:
        """Counts a failed attempt; True if the task is given up for it."""
        job.attempts += 1
        job.tried.add(actor.actor_id)
        if not retryable or is_spent(self.policy, job.attempts, job.tried, self._num_existing()):
            failure = Failure(job.task.task_id, reason, job.attempts)
            del self._open[job.task.task_id]
            self.failures.append(failure)
            self._out.append(Quarantine(failure))
            return True
        self._retries += 1
        insort(self._queue, job, key=_Job.rank)
        return False

    def _num_existing(self) -> int:
        return sum(actor.placed for actor in self._actors.values())

    def _staff(self) -> None:
        """Fills empty places, as far as there is work for them and their restarts are not used up."""
        taken = {actor.place for actor in self._actors.values()}
        for place, losses in enumerate(self._losses):
            if len(taken) >= len(self._open):
                return
            if place not in taken and losses <= self.policy.max_actor_restarts:
                actor = _Actor(self._next_actor, place)
                self._next_actor += 1
                self._actors[actor.actor_id] = actor
                taken.add(place)
                self._out.append(StartActor(actor.actor_id, place))
        if not taken:
            self._out.append(GiveUp(*self._last_loss))

    def _dispatch(self, now: float) -> None:
        """Gives every ready actor a task, then each a second one while enough wait for all."""
        ready = [actor for actor in self._actors.values() if actor.ready]
        for depth in range(self.policy.max_in_flight):
            if depth > 0 and len(self._queue) < len(self._actors):
                return  # near the end a task had better wait for the first free actor
            for actor in ready:
                if len(actor.jobs) == depth and self._queue:
                    self._hand_out(actor, now)

    def _hand_out(self, actor: _Actor, now: float) -> None:
        existing = self._num_existing()
        for index, job in enumerate(self._queue):
            if may_run_on(self.policy, actor.actor_id, job.tried, existing):
                del self._queue[index]
                if not actor.jobs:
                    actor.running_since = now
                actor.jobs.append(job)
                self._out.append(Submit(actor.actor_id, job.task))
                return
