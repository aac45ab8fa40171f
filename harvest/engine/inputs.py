"""What vLLM is asked: prompts and sampling parameters, each with its ticket. Pure; one entry per request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm import SamplingParams

from harvest.probe.router import FOREVER, Ticket
from harvest.types import Request, Sampling, Text, phase_span


@dataclass(frozen=True, slots=True)
class Inputs:
    """Two lists of one length, as `LLM.generate` takes them."""

    prompts: list[dict[str, Any]] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)

    def add(self, token_ids: Sequence[int], params: SamplingParams, ticket: Ticket | None, salt: str = "") -> None:
        prompt: dict[str, Any] = {"prompt_token_ids": list(token_ids)}
        if salt:
            prompt["cache_salt"] = salt
        if ticket is not None:
            params.extra_args = ticket.to_extra_args()
        self.prompts.append(prompt)
        self.params.append(params)


def replayed(texts: Sequence[Text]) -> Inputs:
    """The texts to forward, keyed by their place; those with nothing to count are left out."""
    inputs = Inputs()
    for key, text in enumerate(texts):
        if text.planned:
            # a position that is read from the prefix cache would be counted by nobody
            params = SamplingParams(temperature=0, max_tokens=1, detokenize=False, skip_reading_prefix_cache=True)
            inputs.add(text.token_ids, params, Ticket(key, text.count_start, text.count_stop))
    return inputs


def answered(
    requests: Sequence[Request], sampling: Sampling, row_of: Mapping[str, int], logprobs: int | None = None
) -> Inputs:
    """The requests to answer; `row_of` says which edit row has which fingerprint."""
    inputs = Inputs()
    for key, request in enumerate(requests):
        if request.edit is None:
            inputs.add(request.prompt_token_ids, _params(sampling, logprobs), None)
            continue
        row = request.edit.row
        start, stop = phase_span(row.phase, len(request.prompt_token_ids), FOREVER)
        ticket = Ticket(key, edit_row=row_of[request.edit.fingerprint], edit_start=start, edit_stop=stop)
        # KV blocks are shared within a condition and never across: block hashes ignore extra_args
        inputs.add(request.prompt_token_ids, _params(sampling, logprobs), ticket, request.edit.fingerprint)
    return inputs


def answered_and_counted(prompts: Sequence[Sequence[int]], sampling: Sampling, phase: str) -> Inputs:
    """The prompts to answer, unedited, whose tokens of `phase` are counted as they are forwarded, keyed by place."""
    inputs = Inputs()
    for key, token_ids in enumerate(prompts):
        # of max_tokens sampled tokens the last one is never forwarded
        start, stop = phase_span(phase, len(token_ids), len(token_ids) + sampling.max_tokens - 1)
        params = _params(sampling, None)
        params.skip_reading_prefix_cache = phase != "response"
        inputs.add(token_ids, params, Ticket(key, start, stop))
    return inputs


def _params(sampling: Sampling, logprobs: int | None) -> SamplingParams:
    return SamplingParams(
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        logprobs=logprobs,
    )
