"""Which token is whose, on both of vLLM's model runners.

What a step forwards is the scheduler's word, the same for both runners and plain host data: how many tokens of each
request, and how many were computed before. A runner adds the one thing the scheduler does not say, the order of the
requests in the batch, which is known where the adapter looks: after the batch is final, before the forward or the
replay of its graph. See docs/adr/0007-positions-from-the-scheduler.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.worker.gpu_model_runner import GPUModelRunner as RunnerV1

from harvest.errors import EngineError
from harvest.probe.router import Stretch, Ticket

Before = Callable[[list[Stretch]], None]
After = Callable[[], None]


def arrivals(scheduled: SchedulerOutput) -> dict[str, Ticket]:
    """The tickets of the requests that the worker hears of in this step, by request id; without ticket, left out.

    A request that comes back after a preemption is among them on the V2 runner and not on V1, which remembers it.
    """
    tickets = {
        request.req_id: Ticket.from_extra_args(request.sampling_params.extra_args)
        for request in scheduled.scheduled_new_reqs
        if request.sampling_params is not None
    }
    return {request_id: ticket for request_id, ticket in tickets.items() if ticket is not None}


def departures(scheduled: SchedulerOutput) -> set[str]:
    """The requests that ended since the step before; to be let go before the arrivals, which may reuse an id.

    Preempted requests are not among them: they come back, and positions counted before are not counted again.
    """
    return scheduled.finished_req_ids


def stretches(scheduled: SchedulerOutput, request_ids: Sequence[str], num_tokens: int) -> list[Stretch]:
    """The step's tokens in batch order: `request_ids` as the runner ordered them, `num_tokens` without padding.

    Raises EngineError if the scheduler's word is not the whole truth: draft tokens, whose positions are guesses until
    they are verified, or a batch that the runner has cut.
    """
    if scheduled.scheduled_spec_decode_tokens:
        raise EngineError("speculative decoding: positions of draft tokens are guesses; remove speculative_config")
    position = {request.req_id: request.num_computed_tokens for request in scheduled.scheduled_new_reqs}
    cached = scheduled.scheduled_cached_reqs
    position.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
    found = [Stretch(each, position[each], scheduled.num_scheduled_tokens[each]) for each in request_ids]
    total = sum(stretch.length for stretch in found)
    if not total == num_tokens == scheduled.total_num_scheduled_tokens:
        raise EngineError(
            f"the batch has {num_tokens} tokens, of which {total} have an owner, and the scheduler asked for "
            f"{scheduled.total_num_scheduled_tokens}; turn off context parallelism and whatever else cuts batches"
        )
    return found


class Step:
    """The step that the runner is in: opened by `execute_model`, told to `before` at the seam, closed by `after`."""

    def __init__(self, before: Before, after: After) -> None:
        self._before = before
        self._after = after
        self._scheduled: SchedulerOutput | None = None
        self._is_told = False

    def around(self, execute_model: Callable[..., Any]) -> Callable[..., Any]:
        """The runner's `execute_model`, within which the seam is; `after` follows each `before`, error or not."""

        def stepped(scheduler_output: SchedulerOutput, *args: Any, **kwargs: Any) -> Any:
            self._scheduled = scheduler_output
            try:
                return execute_model(scheduler_output, *args, **kwargs)
            finally:
                self._scheduled = None
                if self._is_told:
                    self._is_told = False
                    self._after()

        return stepped

    def at_seam(self, request_ids: Sequence[str], num_tokens: int) -> None:
        """The batch is final: these requests in this order, so many tokens without padding."""
        assert self._scheduled is not None, "a batch outside execute_model"
        found = stretches(self._scheduled, request_ids, num_tokens)
        self._is_told = True
        self._before(found)


def attach(model_runner: Any, before: Before, after: After) -> None:
    """Call `before(stretches)` ahead of the forward of every real step, and `after()` when the step's forward is over.

    To be called once, when the worker's `compile_or_warm_up_model` is done: dummy, profile and capture runs never
    reach the seam, but V2's kernel warm-up runs real steps of made-up requests, through the worker.
    `after` means launched, not finished: a GPU's kernels of the step may still be running.

    Raises EngineError for a model runner of another kind.
    """
    step = Step(before, after)
    _seam_of(model_runner)(model_runner, step)
    model_runner.execute_model = step.around(model_runner.execute_model)


def _seam_of(model_runner: Any) -> Callable[[Any, Step], None]:
    if isinstance(model_runner, RunnerV1):
        return _seam_v1
    # imported where it may be needed: it is large, and the V1 runner's processes do without
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner as RunnerV2

    if isinstance(model_runner, RunnerV2):
        return _seam_v2
    raise EngineError(
        f"{type(model_runner).__name__}: neither vLLM's V1 nor its V2 model runner; use a CPU or GPU platform"
    )


def _seam_v1(runner: Any, step: Step) -> None:
    """`_model_forward`: only `execute_model` calls it, with the final batch; dummy runs call the model itself."""
    stock = runner._model_forward

    def model_forward(*args: Any, **kwargs: Any) -> Any:
        batch = runner.input_batch
        step.at_seam(batch.req_ids, int(runner.query_start_loc.np[batch.num_reqs]))
        return stock(*args, **kwargs)

    runner._model_forward = model_forward


def _seam_v2(runner: Any, step: Step) -> None:
    """`ModelState.preprocess_state`: what `execute_model` does on real batches only, before any kind of forward.

    `model(…)` is no seam there: a full graph is replayed without it.
    """
    state = runner.model_state
    stock = state.preprocess_state

    def preprocess_state(input_batch: Any, *args: Any, **kwargs: Any) -> None:
        stock(input_batch, *args, **kwargs)
        step.at_seam(input_batch.req_ids, input_batch.num_tokens)

    state.preprocess_state = preprocess_state
