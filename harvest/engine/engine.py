"""One vLLM engine: answers prompts under edit rows, and captures the activations of given texts."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import numpy as np
from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory

from harvest.engine.options import EngineOptions
from harvest.engine.refusals import refuse_unsupported
from harvest.errors import CaptureError, EngineError, HarvestError
from harvest.probe.edits import check_rows
from harvest.probe.router import FOREVER, Ticket
from harvest.stats.rows import RequestRows, concatenate_neurons
from harvest.types import Completion, EditPhase, EditRow, Request, Sampling, Text

_WORKER = "harvest.engine.worker.HarvestWorker"
_CANARY = (1, 2, 3, 4, 5, 6, 7, 8)


class Engine:
    """An open engine. It captures one unit at a time, so that a unit's numbers don't depend on its neighbours."""

    _is_open = False
    # torch.distributed and vLLM keep one engine's state per process

    def __init__(self, options: EngineOptions) -> None:
        """Open the engine and prove with a canary that every layer counts.

        Raises ModelError for a model without a probe, EngineError if a layer does not move or an engine is open.
        """
        if Engine._is_open:
            raise EngineError(f"{options.model}: this process has an open engine already; close it, or use another one")
        refuse_unsupported(options.model, options.extra)
        self.options = options
        self._llm = LLM(
            model=str(options.model),
            dtype=options.dtype,
            max_model_len=options.max_model_len,
            tensor_parallel_size=options.tensor_parallel,
            # inside a Ray actor vLLM would choose Ray, which asks for GPUs of its own
            distributed_executor_backend="mp" if options.tensor_parallel > 1 else None,
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=max(options.max_num_batched_tokens, options.max_num_seqs),
            enforce_eager=not options.compiled,
            seed=0,
            disable_log_stats=True,
            **self._probe_arguments(),
            **options.extra,
        )
        Engine._is_open = True
        if options.probe:
            try:
                self._read_layout()
                self._prove()
            except HarvestError:
                self.close()
                raise

    def _probe_arguments(self) -> dict[str, Any]:
        if not self.options.probe:
            return {}
        return {
            "worker_cls": _WORKER,
            "additional_config": {
                "value_harvest": {
                    "num_slots": self.options.num_slots,
                    "routed_experts": self.options.routed_experts,
                    "op": 1,
                }
            },
        }

    def close(self) -> None:
        """Give the memory back; the engine is not usable afterwards."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()
        cleanup_dist_env_and_memory()
        Engine._is_open = False

    # activations

    def _read_layout(self) -> None:
        self._layouts: list[list[tuple[int, int, int]]] = self._llm.collective_rpc("probe_layout")
        self.widths: dict[int, int] = {}
        for layer, offset, width in sorted(part for layout in self._layouts for part in layout):
            self.widths[layer] = max(self.widths.get(layer, 0), offset + width)

    def _prove(self) -> None:
        """Statistics are zero after warm-up, and a canary moves every layer's counters."""
        for counts_L in self._llm.collective_rpc("probe_counts"):
            if counts_L.any():
                raise EngineError(
                    f"{self.options.model}: the probe counted tokens during warm-up; this is a bug, report it"
                )
        rows = self.capture([Text(_CANARY, 0, len(_CANARY))])
        still = np.flatnonzero((rows.max_QLF == rows.min_QLF).all(axis=(0, 2)))
        if len(still):
            raise EngineError(
                f"{self.options.model}: the canary moved nothing in layers {still.tolist()}; this is a bug, report it"
            )

    def capture(self, texts: Sequence[Text]) -> RequestRows:
        """Each text's row of moments, in the order given; a text with no position to count has 0 tokens and NaN.

        Raises CaptureError unless every layer of every rank counted exactly the planned tokens, all finite.
        """
        asked = [(key, text) for key, text in enumerate(texts) if text.planned]
        params = SamplingParams(temperature=0, max_tokens=1, detokenize=False, skip_reading_prefix_cache=True)
        sampling, prompts = [], []
        for key, text in asked:
            each = params.clone()
            each.extra_args = Ticket(key, text.count_start, text.count_stop).to_extra_args()
            sampling.append(each)
            prompts.append({"prompt_token_ids": list(text.token_ids)})
        try:
            if prompts:
                self._llm.generate(prompts, sampling, use_tqdm=False)
        finally:
            # whatever happened, the slots are cleared and free for the next unit
            ranks = self._llm.collective_rpc("probe_collect", args=(list(range(len(texts))),))
        self._check_counts(texts, [count_LQ.numpy() for count_LQ, _ in ranks])
        rows = concatenate_neurons([rows for _, rows in ranks])
        _check_finite(rows)
        return rows

    def _check_counts(self, texts: Sequence[Text], counts: Sequence[np.ndarray]) -> None:
        planned_Q = np.array([text.planned for text in texts])
        for rank, count_LQ in enumerate(counts):
            wrong = np.argwhere(count_LQ != planned_Q)
            if len(wrong):
                layer, question = wrong[0]
                raise CaptureError(
                    f"rank {rank}, layer {layer}, text {question} of {len(texts)}: {count_LQ[layer, question]} tokens "
                    f"counted of {planned_Q[question]} planned; nothing of this unit was kept, report it as a bug"
                )

    # answers

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """The answers, in the order asked, all in one continuous batch whatever their edits.

        Raises SelectionError for an edit of a neuron that the model has not, or that one row edits twice.
        """
        return [_completion(output) for output in self.run(requests, sampling)]

    def run(self, requests: Sequence[Request], sampling: Sampling, logprobs: int | None = None) -> list[Any]:
        """vLLM's own outputs of these requests, in the order asked."""
        edits = {request.edit.fingerprint: request.edit.row for request in requests if request.edit is not None}
        self._install(list(edits.values()))
        row_of = {fingerprint: number for number, fingerprint in enumerate(edits, start=1)}
        prompts, params = [], []
        for key, request in enumerate(requests):
            prompt: dict[str, Any] = {"prompt_token_ids": list(request.prompt_token_ids)}
            each = SamplingParams(
                temperature=sampling.temperature,
                max_tokens=sampling.max_tokens,
                repetition_penalty=sampling.repetition_penalty,
                seed=sampling.seed,
                logprobs=logprobs,
            )
            if request.edit is not None:
                # KV blocks are shared within a condition and never across: block hashes ignore extra_args
                prompt["cache_salt"] = request.edit.fingerprint
                start, stop = _edited_span(request.edit.row.phase, len(request.prompt_token_ids))
                row = row_of[request.edit.fingerprint]
                each.extra_args = Ticket(key, edit_row=row, edit_start=start, edit_stop=stop).to_extra_args()
            prompts.append(prompt)
            params.append(each)
        return self._llm.generate(prompts, params, use_tqdm=False)

    def _install(self, rows: Sequence[EditRow]) -> None:
        """Edit row i + 1 is rows[i]; row 0 stays the identity."""
        if rows:
            check_rows(rows, self.widths)
            self._llm.collective_rpc("probe_set_edits", args=(list(rows),))


def _edited_span(phase: EditPhase, answer_start: int) -> tuple[int, int]:
    """Positions [start, stop) that an edit touches."""
    return {
        EditPhase.PROMPT: (0, answer_start),
        EditPhase.RESPONSE: (answer_start, FOREVER),
        EditPhase.BOTH: (0, FOREVER),
    }[phase]


def _completion(output: Any) -> Completion:
    answer = output.outputs[0]
    return Completion(tuple(answer.token_ids), answer.text, str(answer.finish_reason))


def _check_finite(rows: RequestRows) -> None:
    counted_Q = rows.num_tokens_Q > 0
    broken = ~(np.isfinite(rows.mean_QLF) & np.isfinite(rows.m2_QLF)).all(axis=2)[counted_Q]
    if broken.any():
        question, layer = np.argwhere(broken)[0]
        raise CaptureError(
            f"layer {layer}: a NaN or Inf among the activations of text {np.flatnonzero(counted_Q)[question]}; "
            "run the model in float32 or bfloat16, or check its weights"
        )
