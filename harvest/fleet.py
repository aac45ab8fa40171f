"""The engines of a run: none until the first task, then as many actors as asked for, kept to the end.

Ray and vLLM are imported only when a task really has to run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.errors import SetupFailed
from cluster.progress import Progress
from cluster.task import Task
from harvest.engine.options import EngineOptions, engine_environment
from harvest.engine.seat import EngineSeat
from harvest.errors import EngineError, HarvestError, UnitsFailed

if TYPE_CHECKING:
    from cluster.pool import Pool


@dataclass(slots=True)
class Fleet:
    """Runs engine tasks; use as a context manager."""

    options: EngineOptions
    num_engines: int
    address: str | None = None
    # of a Ray cluster; None: one of our own
    debug: bool = False
    on_progress: Callable[[dict[str, Any]], None] | None = None
    # is told how far a stage is, now and then
    _pool: Pool | None = field(default=None, init=False)

    @property
    def started(self) -> bool:
        return self._pool is not None

    def run(self, stage: str, tasks: Sequence[Task]) -> None:
        """Run all tasks; what they do is in the store afterwards.

        Raises UnitsFailed, naming the first, if any was given up; the others are done then. Raises ModelError or
        EngineError if no engine can be opened.
        """
        if not tasks:
            return
        pool = self._open()
        try:
            outcome = pool.run(tasks, progress=Progress(stage, listener=self.on_progress))
        except SetupFailed as error:
            if isinstance(error.__cause__, HarvestError):
                raise error.__cause__ from error
            raise EngineError(
                f"{self.options.model}: the engine could not be opened ({error.cause_type}: {error.cause_message}); "
                "run again with --debug to see its log"
            ) from error
        if outcome.failures:
            first = outcome.failures[0]
            raise UnitsFailed(
                f"{stage}: {len(outcome.failures)} of {len(tasks)} tasks failed, first {first.task_id} after "
                f"{first.attempts} attempts: {first.reason}; the others are kept, run the same command again",
                {failure.task_id: failure.reason for failure in outcome.failures},
            )

    def _open(self) -> Pool:
        if self._pool is None:
            from cluster import launch
            from cluster.pool import Pool

            launch.connect(self.address, debug=self.debug)
            on_gpu = launch.num_gpus() > 0
            self._pool = Pool(
                EngineSeat(self.options),
                self.num_engines,
                num_cpus=self.options.cpu_threads * self.options.num_ranks,
                num_gpus=self.options.num_ranks if on_gpu else 0,
                env=engine_environment(self.options) | ({"VLLM_LOGGING_LEVEL": "INFO"} if self.debug else {}),
            )
        return self._pool

    def close(self) -> None:
        if self._pool is not None:
            from cluster import launch

            pool, self._pool = self._pool, None
            try:
                pool.close()
            finally:
                launch.disconnect()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()
