"""The pool's decisions as a state machine: events in, instructions out. No Ray, no clock, no I/O.

A task waits in the backlog, is in flight on one actor, or has ended. Up to `max_in_flight` calls run at once on an
actor and may end in any order. So a task's deadline counts from when all that its actor was handed before it have
ended, and a loss with two in flight is nobody's fault. An event costs O(log n), n the number of actors and tasks.
"""

from __future__ import annotations

from cluster.backlog import Backlog, Job
from cluster.clocks import Clocks
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
    RoomSeen,
    StartActor,
    StopActor,
    Submit,
    TaskDone,
    TaskFailed,
    TasksAdded,
    Tick,
)
from cluster.policy import Blame, Policy, blame, is_spent, is_suspect, may_run_on, may_stack
from cluster.roster import Actor, Roster
from cluster.task import Counts, Failure, Task


class Schedule:
    """Every task that is added ends exactly once: delivered, quarantined, or left behind by a drain."""

    def __init__(self, num_actors: int, policy: Policy, max_actors: int | None = None) -> None:
        self.policy = policy
        self._roster = Roster(num_actors, max_actors or num_actors, policy)
        self._last_loss = self._last_unbuilt = (-1, "")
        self._proven = False  # some worker was built once: later failures to build one may pass
        self._unbuilt: set[int] = set()  # places that failed to build a worker
        self._clocks = Clocks(policy.deadline_s)
        self._out: list[Instruction] = []
        self._reset({})

    def _reset(self, jobs: dict[str, Job]) -> None:
        self._open = jobs
        self._backlog = Backlog(jobs.values())
        self._total, self._cost = len(jobs), sum(job.task.cost for job in jobs.values())
        self._done = self._retries = self.left = 0
        self._cost_done, self._cost_open = 0.0, self._cost
        self.failures: list[Failure] = []
        self._drain_until: float | None = None
        self.ended_by: int | None = None
        # the actor whose fault ended the run

    @property
    def finished(self) -> bool:
        """Whether every task has ended."""
        return not self._open

    @property
    def draining(self) -> bool:
        """Whether nothing more is handed out."""
        return self._drain_until is not None

    @property
    def counts(self) -> Counts:
        unplaced = len(self._roster) - self._roster.num_placed
        so_far = (self._total, self._done, len(self.failures), self._retries, self._roster.num_ready)
        return Counts(*so_far, self._cost, self._cost_done, self._cost_open, unplaced, self.draining)

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """What to do about an event at the time `now` (s, any origin); events of stopped actors change nothing.

        Raises ValueError if a run names a task twice or begins before the last one has ended.
        """
        self._out = []
        match event:
            case TasksAdded(tasks):
                self._begin(tasks, now)
            case Tick():
                self._check_clocks(now)
            case Drain():
                self._drain(now)
            case RoomSeen(num_actors):
                self._roster.room = num_actors
            case _ if event.actor_id in self._roster.actors:
                self._hear(event, self._roster.actors[event.actor_id], now)
        if self._drain_until is not None:
            self._leave_backlog()
            if now >= self._drain_until:
                self._drop_running()
        elif not any(isinstance(instruction, GiveUp) for instruction in self._out):
            self._staff()
            self._dispatch(now)
        return self._out

    def _begin(self, tasks: tuple[Task, ...], now: float) -> None:
        if self._open:
            raise ValueError(f"a run begins while {len(self._open)} tasks of the last one are open")
        jobs = {task.task_id: Job(task, order) for order, task in enumerate(tasks)}
        if len(jobs) < len(tasks):
            raise ValueError(f"{len(tasks) - len(jobs)} of {len(tasks)} tasks repeat another's id")
        self._reset(jobs)
        self._roster.begin_run()
        for actor in self._roster.actors.values():
            if actor.ready and jobs:  # it may have died since, and no task should be blamed for that
                self._roster.set_ready(actor, False)
                self._clocks.start(actor, now)
                self._out.append(CallActor(actor.actor_id))

    def _hear(self, event: Event, actor: Actor, now: float) -> None:
        match event:
            case ActorPlaced():
                self._roster.set_placed(actor)
                if not actor.ready:
                    self._clocks.start(actor, now)
            case ActorReady():
                self._proven = True
                self._clocks.stop(actor)
                self._roster.set_placed(actor)
                self._roster.set_ready(actor, True)
            case ActorUnbuilt(_, reason, retryable):
                self._fail_building(actor, reason, retryable)
            case ActorLost(_, reason, with_machine):
                self._lose(actor, reason, with_machine)
            case TaskDone(_, task_id):
                self._finish(actor, task_id, now)
            case TaskFailed():
                self._fail(actor, event, now)

    def _finish(self, actor: Actor, task_id: str, now: float) -> None:
        job = self._take(actor, task_id, now)
        if job is None:
            return
        actor.failed_in_row.clear()
        self._roster.clear_losses(actor.place)
        self._close(job)
        self._done += 1
        self._cost_done += job.task.cost
        self._out.append(Deliver(actor.actor_id, task_id))

    def _fail(self, actor: Actor, event: TaskFailed, now: float) -> None:
        job = self._take(actor, event.task_id, now)
        if job is None:
            return
        if event.ends_run:
            self._backlog.push(job)
            self.ended_by = actor.actor_id if self.ended_by is None else self.ended_by
            self._drain(now)
            return
        self._charge(actor, job, event.reason, event.retryable)
        if event.retryable:
            actor.failed_in_row.add(event.task_id)
        if is_suspect(actor.failed_in_row):
            self._dismiss(actor, event.reason)

    def _fail_building(self, actor: Actor, reason: str, retryable: bool) -> None:
        self._unbuilt.add(actor.place)
        self._last_unbuilt = (actor.actor_id, reason)
        if not retryable:
            self._roster.use_up(actor.place)
        self._remove(actor, reason, forgiven=False)
        if self._proven or self.draining:  # one late bad machine says nothing of the workers that run
            return
        if not retryable or all(other.place in self._unbuilt for other in self._roster.actors.values()):
            self._out.append(GiveUp(actor.actor_id, reason))

    def _lose(self, actor: Actor, reason: str, with_machine: bool) -> None:
        jobs, given_up = list(actor.jobs), False
        for job in jobs:
            self._roster.release(actor, job)
            match blame(self.policy, len(jobs), with_machine, job.machines_lost):
                case Blame.CHARGED:
                    given_up = self._charge(actor, job, reason, retryable=True)
                    continue
                case Blame.ISOLATED:
                    job.alone = True
                case Blame.SPARED:
                    job.machines_lost += 1
            self._backlog.push(job)
        self._remove(actor, reason, forgiven=with_machine or given_up)

    def _check_clocks(self, now: float) -> None:
        reason = f"it ran longer than its deadline of {self.policy.deadline_s or 0:g} s"
        for actor in self._clocks.overdue(now):
            if not actor.jobs:
                self._out.append(StopActor(actor.actor_id))
                self._fail_building(actor, f"building its worker: {reason}", retryable=True)
                continue
            late = actor.jobs[0]
            self._roster.release(actor, late)
            self._dismiss(actor, reason, forgiven=self._charge(actor, late, reason, retryable=True))

    def _drain(self, now: float) -> None:
        if self._drain_until is None:
            self._drain_until = now + self.policy.drain_s

    def _leave_backlog(self) -> None:
        for job in self._backlog:
            self._close(job)
        self.left += len(self._backlog)
        self._backlog = Backlog()

    def _drop_running(self) -> None:
        for actor in [actor for actor in self._roster.actors.values() if actor.jobs]:
            self._dismiss(actor, f"it did not end within the {self.policy.drain_s:g} s of a drain", forgiven=True)
        self._leave_backlog()

    def _take(self, actor: Actor, task_id: str, now: float) -> Job | None:
        """Takes a task out of an actor's hands; None if it is not in them."""
        job = next((job for job in actor.jobs if job.task.task_id == task_id), None)
        if job is None:
            return None
        was_first = job is actor.jobs[0]
        self._roster.release(actor, job)
        if not actor.jobs:
            self._clocks.stop(actor)
        elif was_first:
            self._clocks.start(actor, now)
        return job

    def _dismiss(self, actor: Actor, reason: str, forgiven: bool = False) -> None:
        """Stops an actor; what it still held waits again, uncharged."""
        self._out.append(StopActor(actor.actor_id))
        for job in list(actor.jobs):
            self._roster.release(actor, job)
            self._backlog.push(job)
        self._remove(actor, reason, forgiven)

    def _remove(self, actor: Actor, reason: str, forgiven: bool) -> None:
        self._clocks.stop(actor)
        self._roster.remove(actor, forgiven)
        self._last_loss = (actor.actor_id, reason)

    def _charge(self, actor: Actor, job: Job, reason: str, retryable: bool) -> bool:
        """Counts a failed attempt; True if the task is given up for it."""
        job.attempts += 1
        job.tried.add(actor.actor_id)
        if not retryable or is_spent(self.policy, job.attempts, job.tried, self._roster.num_placed):
            failure = Failure(job.task.task_id, reason, job.attempts)
            self._close(job)
            self._roster.clear_losses(actor.place)
            self.failures.append(failure)
            self._out.append(Quarantine(failure))
            return True
        self._retries += 1
        self._backlog.push(job)
        return False

    def _close(self, job: Job) -> None:
        del self._open[job.task.task_id]
        self._cost_open -= job.task.cost

    def _staff(self) -> None:
        """Starts actors, as far as there is work and a vacancy for them."""
        if not self._proven and self._roster.num_used_up and not self._roster.num_placed:
            # the others may wait for machines for ever, and nobody would learn why nothing was built
            self._out.append(GiveUp(*self._last_unbuilt))
            return
        while len(self._roster) < len(self._open):
            if self._roster.has_vacancy:
                actor = self._roster.start()
                self._out.append(StartActor(actor.actor_id, actor.place))
            elif len(self._roster) > 0:
                return
            else:
                self._out.append(GiveUp(*self._last_loss))
                return

    def _dispatch(self, now: float) -> None:
        """Gives every ready actor a task, then each a second one as long as that keeps nobody waiting."""
        for depth in range(self.policy.max_in_flight):
            refused = []
            while self._backlog and (actor := self._roster.least_busy(depth)) is not None:
                if depth > 0 and not self._may_stack(actor):
                    break
                if not self._hand_out(actor, now):
                    self._roster.unlist(actor)
                    refused.append(actor)
            for actor in refused:
                self._roster.list_free(actor)

    def _may_stack(self, least_busy: Actor) -> bool:
        if self._backlog.leads_alone:
            return False
        stacked = least_busy.held_cost + self._backlog.next_cost
        return may_stack(stacked, len(self._backlog), self._cost_open, len(self._roster))

    def _hand_out(self, actor: Actor, now: float) -> bool:
        existing = self._roster.num_placed
        job = self._backlog.pop(
            lambda job: may_run_on(self.policy, actor.actor_id, job.tried, existing), beside=bool(actor.jobs)
        )
        if job is None:
            return False
        if not actor.jobs:
            self._clocks.start(actor, now)
        self._roster.hold(actor, job)
        self._out.append(Submit(actor.actor_id, job.task))
        return True
