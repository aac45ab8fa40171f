"""Which token is whose: the scheduler's word and the batch's order, on both model runners, without a model.

The runners here are the real classes with their steps written out small: what calls the seam, and what does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput
from vllm.v1.utils import CpuGpuBuffer
from vllm.v1.worker.gpu.input_batch import InputBatch, InputBuffers
from vllm.v1.worker.gpu.model_runner import GPUModelRunner as RunnerV2
from vllm.v1.worker.gpu.model_runner import sort_batch_req_ids
from vllm.v1.worker.gpu.model_states.default import DefaultModelState
from vllm.v1.worker.gpu_model_runner import GPUModelRunner as RunnerV1

from harvest.engine.batches import arrivals, attach, departures, stretches
from harvest.errors import EngineError
from harvest.probe.router import Stretch, Ticket

PADDED = 64
# tokens of a batch, for the graphs


def new(request_id: str, computed: int = 0, ticket: Ticket | None = None, prompt: int = 40) -> NewRequestData:
    extra_args = None if ticket is None else ticket.to_extra_args()
    tokens = list(range(prompt))
    return NewRequestData(
        request_id, tokens, [], SamplingParams(extra_args=extra_args), None, ([0],), computed, None,
        prefill_token_ids=tokens,
    )  # fmt: skip


def scheduled(
    lengths: dict[str, int],
    *,
    fresh: Sequence[NewRequestData] = (),
    computed: dict[str, int] | None = None,
    resumed: Sequence[str] = (),
    finished: Sequence[str] = (),
    placeholders: int = 0,
    drafts: dict[str, list[int]] | None = None,
) -> SchedulerOutput:
    """What the scheduler sends for a step of these lengths; `computed` says what the old requests had computed."""
    old = computed or {}
    return SchedulerOutput(
        scheduled_new_reqs=list(fresh),
        scheduled_cached_reqs=CachedRequestData(
            req_ids=list(old),
            resumed_req_ids=set(resumed),
            new_token_ids=[],
            all_token_ids={},
            new_block_ids=[None] * len(old),
            num_computed_tokens=list(old.values()),
            num_output_tokens=[placeholders] * len(old),
        ),
        num_scheduled_tokens=lengths,
        total_num_scheduled_tokens=sum(lengths.values()),
        scheduled_spec_decode_tokens=drafts or {},
        scheduled_encoder_inputs={},
        finished_req_ids=set(finished),
        free_encoder_mm_hashes=[],
    )


class Broken(Exception):
    pass


class PaperV1(RunnerV1):
    """V1's step: requests stay at their place in the batch from step to step, new ones are added at the end."""

    def __init__(self) -> None:
        self.forwards = 0
        self.breaks = False
        self.num_reqs, self.req_ids = 0, list[str]()
        self.input_batch = self
        self.query_start_loc = CpuGpuBuffer(9, dtype=torch.int32, device=torch.device("cpu"), pin_memory=False)

    def execute_model(self, scheduler_output: SchedulerOutput, intermediate_tensors: Any = None) -> Any:
        lengths = scheduler_output.num_scheduled_tokens
        self.req_ids = [each for each in self.req_ids if each in lengths]
        self.req_ids += [each for each in lengths if each not in self.req_ids]
        self.num_reqs = len(self.req_ids)
        if not lengths:
            return None
        self.query_start_loc.np[1 : self.num_reqs + 1] = np.cumsum([lengths[each] for each in self.req_ids])
        self.query_start_loc.np[self.num_reqs + 1 :] = PADDED
        return self._model_forward(input_ids=torch.zeros(PADDED))

    def _model_forward(self, **inputs: Any) -> Any:
        return self.model(**inputs)

    def _dummy_run(self, num_tokens: int) -> Any:
        return self.model(input_ids=torch.zeros(num_tokens))

    def model(self, **inputs: Any) -> str:
        if self.breaks:
            raise Broken
        self.forwards += 1
        return "hidden states"


class PaperState(DefaultModelState):
    def __init__(self) -> None:
        pass


class PaperV2(RunnerV2):
    """V2's step: the batch is sorted by length, and dummy runs go through `execute_model` too."""

    def __init__(self) -> None:
        self.forwards = 0
        self.breaks = False
        self.model_state = PaperState()
        self.buffers = InputBuffers(8, PADDED, torch.device("cpu"))

    def execute_model(self, scheduler_output: SchedulerOutput, *args: Any, dummy_run: bool = False) -> Any:
        lengths = scheduler_output.num_scheduled_tokens
        if not lengths:
            return None
        total = sum(lengths.values())
        batch = InputBatch.make_dummy(len(lengths), total, self.buffers)
        if not dummy_run:
            order = sort_batch_req_ids(lengths, {}, 1)
            batch = replace(batch, req_ids=order, num_tokens=total, num_tokens_after_padding=PADDED)
            self.model_state.preprocess_state(batch, (), None, torch.zeros(8))
        return self.model()

    def _dummy_run(self, num_tokens: int) -> Any:
        return self.execute_model(scheduled({"_dummy_req_0": num_tokens}), dummy_run=True)

    def model(self) -> str:
        if self.breaks:
            raise Broken
        self.forwards += 1
        return "hidden states"


class Attached:
    """A runner with its adapter, and what the adapter told."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.told: list[list[Stretch]] = []
        self.calls: list[tuple[str, int]] = []
        # what was called, and after how many forwards
        attach(runner, self.before, self.after)

    def before(self, found: list[Stretch]) -> None:
        self.told.append(found)
        self.calls.append(("before", self.runner.forwards))

    def after(self) -> None:
        self.calls.append(("after", self.runner.forwards))

    def step(self, output: SchedulerOutput) -> list[Stretch]:
        assert self.runner.execute_model(output) == "hidden states"
        return self.told[-1]


@pytest.fixture(params=[PaperV1, PaperV2])
def attached(request: pytest.FixtureRequest) -> Iterator[Attached]:
    kind: Callable[[], Any] = request.param
    return Attached(kind())


def test_a_prompt_in_chunks_goes_on_where_it_stopped(attached: Attached):
    assert attached.step(scheduled({"a": 16}, fresh=[new("a")])) == [Stretch("a", 0, 16)]
    assert attached.step(scheduled({"a": 16}, computed={"a": 16})) == [Stretch("a", 16, 16)]
    assert attached.step(scheduled({"a": 8}, computed={"a": 32})) == [Stretch("a", 32, 8)]


def test_a_cached_prefix_is_skipped(attached: Attached):
    assert attached.step(scheduled({"a": 8}, fresh=[new("a", computed=32)])) == [Stretch("a", 32, 8)]


def test_decode_and_prefill_in_one_batch_come_in_the_runners_order(attached: Attached):
    attached.step(scheduled({"long": 30, "short": 5}, fresh=[new("long"), new("short")]))
    output = scheduled({"long": 10, "short": 1, "late": 3}, fresh=[new("late")], computed={"short": 5, "long": 30})
    found = attached.step(output)
    long, short, late = Stretch("long", 30, 10), Stretch("short", 5, 1), Stretch("late", 0, 3)
    is_v1 = isinstance(attached.runner, RunnerV1)
    assert found == ([long, short, late] if is_v1 else [short, late, long])


def test_a_preempted_request_starts_again_at_its_first_position():
    ticket = Ticket(7, 3, 9)
    back = {
        PaperV1: scheduled({"b": 1, "a": 12}, computed={"b": 9, "a": 0}, resumed=["a"]),
        PaperV2: scheduled({"b": 1, "a": 12}, computed={"b": 9}, fresh=[new("a", ticket=ticket, prompt=12)]),
    }
    for kind, output in back.items():
        attached = Attached(kind())
        attached.step(scheduled({"a": 10, "b": 8}, fresh=[new("a", ticket=ticket), new("b")]))
        output_without = replace(scheduled({"b": 1}, computed={"b": 8}), preempted_req_ids={"a"})
        assert attached.step(output_without) == [Stretch("b", 8, 1)]
        assert departures(output_without) == set()
        assert attached.step(output) == [Stretch("b", 9, 1), Stretch("a", 0, 12)]
        assert arrivals(output) == ({} if kind is PaperV1 else {"a": ticket})


def test_output_placeholders_of_async_scheduling_move_no_position(attached: Attached):
    """The scheduler runs ahead of the sampled tokens: it knows how many there will be, not which."""
    attached.step(scheduled({"a": 4}, fresh=[new("a")]))
    for ahead in range(1, 4):
        output = scheduled({"a": 1}, computed={"a": 3 + ahead}, placeholders=ahead)
        assert attached.step(output) == [Stretch("a", 3 + ahead, 1)]


def test_padding_belongs_to_nobody(attached: Attached):
    found = attached.step(scheduled({"a": 3, "b": 4}, fresh=[new("a"), new("b")]))
    assert sum(each.length for each in found) == 7 < PADDED


def test_dummy_runs_and_steps_without_tokens_are_not_told(attached: Attached):
    attached.runner._dummy_run(5)
    attached.runner.execute_model(scheduled({}, finished=["a"]))
    assert (attached.runner.forwards, attached.calls) == (1, [])


def test_the_step_is_told_before_its_forward_and_closed_after_it(attached: Attached):
    attached.step(scheduled({"a": 3}, fresh=[new("a")]))
    attached.step(scheduled({"a": 1}, computed={"a": 3}))
    assert attached.calls == [("before", 0), ("after", 1), ("before", 1), ("after", 2)]


def test_a_step_that_breaks_is_closed_too(attached: Attached):
    attached.runner.breaks = True
    with pytest.raises(Broken):
        attached.runner.execute_model(scheduled({"a": 3}, fresh=[new("a")]))
    assert attached.calls == [("before", 0), ("after", 0)]
    attached.runner.breaks = False
    assert attached.step(scheduled({"a": 3}, fresh=[new("a")])) == [Stretch("a", 0, 3)]


def test_draft_tokens_are_refused(attached: Attached):
    with pytest.raises(EngineError, match="speculative decoding"):
        attached.runner.execute_model(scheduled({"a": 3}, computed={"a": 9}, drafts={"a": [1, 2]}))
    assert attached.calls == []


@pytest.mark.parametrize(("order", "num_tokens"), [(["a"], 3), (["a", "b"], 6), (["a"], 7)])
def test_a_batch_that_was_cut_is_refused(order: list[str], num_tokens: int):
    output = scheduled({"a": 3, "b": 4}, fresh=[new("a"), new("b")])
    with pytest.raises(EngineError, match=f"the batch has {num_tokens} tokens.*scheduler asked for 7"):
        stretches(output, order, num_tokens)


def test_another_model_runner_is_refused():
    with pytest.raises(EngineError, match="object: neither vLLM's V1 nor its V2"):
        attach(object(), lambda found: None, lambda: None)


def test_only_requests_with_a_ticket_arrive():
    ticket = Ticket(3, 5, 9, edit_row=2)
    output = scheduled({"a": 1, "b": 1}, fresh=[new("a", ticket=ticket), new("b")], finished=["z"])
    assert arrivals(output) == {"a": ticket}
    assert departures(output) == {"z"}
