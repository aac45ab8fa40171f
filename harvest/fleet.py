"""The engines of a run: none until the first task, then as many actors as asked for, kept to the end.

Ray and vLLM are imported only when a task really has to run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.actor import MakeWorker
from cluster.cores import OnOwnCores
from cluster.errors import ClusterError, RunEnded, SetupFailed
from cluster.metrics import Metrics
from cluster.policy import Policy
from cluster.progress import Listener, Progress
from cluster.task import Task
from harvest.engine.options import EngineOptions, engine_environment
from harvest.engine.seat import EngineSeat
from harvest.engine.shape import placed
from harvest.errors import EngineError, HarvestError, Interrupted, RunError, UnitsFailed

if TYPE_CHECKING:
    from cluster.pool import Pool


_METRICS = "value_harvest"  # what the names of its metrics begin with


@dataclass(slots=True)
class Fleet:
    """Runs engine tasks; use as a context manager."""

    options: EngineOptions
    num_engines: int
    address: str | None = None
    # of a Ray cluster; None: one of our own
    debug: bool = False
    max_engines: int | None = None
    # as many once machines join; None: num_engines
    policy: Policy = field(default_factory=Policy)
    on_progress: Listener | None = None
    # is told where a stage is, every few seconds
    gpus_per_engine: float = 1
    # of an engine of one rank
    bind_cores: bool = True
    dashboard_host: str | None = None
    # of a Ray of our own; None: no dashboard
    failed: dict[str, str] = field(default_factory=dict, init=False)
    # what the last run gave up by now: the reason, by task
    _pool: Pool | None = field(default=None, init=False)

    @property
    def started(self) -> bool:
        return self._pool is not None

    def run(self, stage: str, tasks: Sequence[Task]) -> None:
        """Run all tasks; what they do is in the store afterwards, and what was given up in `failed`, however it ends.

        Raises UnitsFailed, naming the first, if any was given up; the others are done then. Raises ModelError or
        EngineError if no engine can be opened, Interrupted if a signal came, and what a task raised if that is
        something that would meet all the others too.
        """
        self.failed.clear()
        if not tasks:
            return
        pool = self._open()
        try:
            outcome = pool.run(
                tasks,
                progress=Progress(stage, listener=self.on_progress),
                metrics=Metrics(_METRICS, stage),
                on_failure=lambda failure: self.failed.update({failure.task_id: failure.reason}),
            )
        except (SetupFailed, RunEnded) as error:
            raise self._sentence(stage, error) from error
        if outcome.drained:
            given_up = f" and {len(outcome.failures)} given up" if outcome.failures else ""
            raise Interrupted(
                f"{stage}: interrupted with {outcome.done} of {len(tasks)} tasks done{given_up}; what was committed is "
                "kept, run the same command again"
            )
        if outcome.failures:
            first = outcome.failures[0]
            raise UnitsFailed(
                f"{stage}: {len(outcome.failures)} of {len(tasks)} tasks failed, first {first.task_id} after "
                f"{first.attempts} attempts: {first.reason}; the others are kept, run the same command again"
            )

    def _sentence(self, stage: str, error: SetupFailed | RunEnded) -> HarvestError:
        """What a person is told: the error of our own that caused it, where there is one."""
        if isinstance(error.__cause__, HarvestError):
            return error.__cause__
        cause = f"{error.cause_type}: {error.cause_message}"
        if isinstance(error, RunEnded):
            return RunError(f"{stage}: {cause}; what was committed is kept, mend it and run the same command again")
        return EngineError(
            f"{self.options.model}: the engine could not be opened ({cause}); run again with --debug to see its log"
        )

    def _open(self) -> Pool:
        if self._pool is None:
            from cluster import launch
            from cluster.pool import Pool
            from cluster.seats import machines

            launch.connect(self.address, debug=self.debug, dashboard_host=self.dashboard_host)
            options, shape = placed(self.options, machines(), self.num_engines, self.gpus_per_engine)
            seat: MakeWorker = EngineSeat(options)
            if self.bind_cores and shape.num_gpus == 0 and shape.num_cpus >= 1:
                seat = OnOwnCores(seat, int(shape.num_cpus))
            self._pool = Pool(
                seat,
                self.num_engines,
                max_actors=self.max_engines,
                policy=self.policy,
                num_cpus=shape.num_cpus,
                num_gpus=shape.num_gpus,
                num_parts=shape.num_parts,
                env=engine_environment(options) | ({"VLLM_LOGGING_LEVEL": "INFO"} if self.debug else {}),
            )
        return self._pool

    def close(self) -> None:
        """Closes the engines in order. One that fails at it is a warning: all that was asked for is in the store."""
        try:
            self._leave(kill=False)
        except ClusterError as error:
            sys.stderr.write(f"warning: {error}; all results were written before\n")

    def _leave(self, kill: bool) -> None:
        if self._pool is not None:
            from cluster import launch

            pool, self._pool = self._pool, None
            try:
                if kill:
                    pool.kill()
                else:
                    pool.close()
            finally:
                launch.disconnect()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            self.close()
        else:
            self._leave(kill=True)
