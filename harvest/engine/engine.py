"""One vLLM engine: answers prompts under edit rows, and captures the activations of given texts."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm import LLM
from vllm.distributed import cleanup_dist_env_and_memory

from harvest.engine.checks import check_counts, check_finite, still_layers
from harvest.engine.inputs import Inputs, answered, answered_and_counted, replayed
from harvest.engine.options import EngineOptions
from harvest.engine.refusals import refuse_unsupported
from harvest.engine.wire import pack, pack_edits, unpack, unpack_rows
from harvest.errors import EngineError, ModelError
from harvest.probe.edits import check_rows, check_sites
from harvest.stats.histogram import HistogramPlan
from harvest.stats.rows import RequestRows, assemble
from harvest.types import Completion, EditRow, Request, Sampling, Text, phase_span

_WORKER = "harvest.engine.worker.HarvestWorker"
_GPU_MEMORY = 0.92  # of what its share of a GPU has, as vLLM's own default for a whole one
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
            pipeline_parallel_size=options.pipeline_parallel,
            # inside a Ray actor vLLM would choose Ray by itself
            distributed_executor_backend=options.executor if options.num_ranks > 1 else None,
            # a step has a token at least for each request that it serves
            max_num_seqs=min(options.max_num_seqs, options.max_num_batched_tokens),
            max_num_batched_tokens=options.max_num_batched_tokens,
            enforce_eager=not options.compiled,
            seed=0,
            disable_log_stats=True,
            **self._probe_arguments(),
            **({"gpu_memory_utilization": _GPU_MEMORY * options.gpu_share} if options.gpu_share < 1 else {}),
            **options.extra,
        )
        Engine._is_open = True
        if options.probe:
            try:
                self._check_refusals()
                self._read_layout()
                self._prove()
            except BaseException:
                # whoever asked for it never gets an engine to close
                self.close()
                raise

    def _probe_arguments(self) -> dict[str, Any]:
        if not self.options.probe:
            return {}
        return {
            "worker_cls": _WORKER,
            "additional_config": {"value_harvest": self._worker_options()},
        }

    def _worker_options(self) -> dict[str, Any]:
        options = self.options
        return {
            "probe": {name: getattr(options, name) for name in ("num_slots", "holds", "fold", "product")},
            "routed_experts": options.routed_experts,
            "packs": options.own_process,
            # part of vLLM's compile key: raise it when the op's meaning changes
            "op": 3,
        }

    def close(self) -> None:
        """Give the memory back; the engine is not usable afterwards."""
        core = self._llm.llm_engine.engine_core
        try:
            core.shutdown()
            if self.options.own_process:
                # the client leaves its sockets' context to the garbage collector
                core.ctx.destroy(linger=0)
        finally:
            del self._llm
            gc.collect()
            cleanup_dist_env_and_memory()
            Engine._is_open = False

    # activations

    def _check_refusals(self) -> None:
        """Raises what a rank refused the model or an option for; only the sentence comes out of another process."""
        for refusal in self._llm.collective_rpc("probe_refusal"):
            if refusal is not None:
                name, sentence = refusal
                raise {"ModelError": ModelError, "EngineError": EngineError}[name](sentence)

    def _read_layout(self) -> None:
        ranks = self._llm.collective_rpc("probe_layout")
        self._layouts: list[list[tuple[int, int, int]]] = [[(a, b, c) for a, b, c in rank] for rank in ranks]
        self.widths: dict[int, int] = {}
        for layer, offset, width in sorted(part for layout in self._layouts for part in layout):
            self.widths[layer] = max(self.widths.get(layer, 0), offset + width)
        self.fold: str = self._llm.collective_rpc("probe_fold")[0]

    def _prove(self) -> None:
        """Statistics are zero after warm-up, and a canary moves every layer's counters."""
        for counts_L in self._llm.collective_rpc("probe_counts"):
            if any(counts_L):
                raise EngineError(
                    f"{self.options.model}: the probe counted tokens during warm-up; this is a bug, report it"
                )
        rows = self.capture([Text(_CANARY, 0, len(_CANARY))])
        still = still_layers(rows, self.widths)
        if still:
            raise EngineError(
                f"{self.options.model}: the canary moved nothing in layers {still}; this is a bug, report it"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        """The numbers of the layers behind the rows' layer axis."""
        return tuple(sorted(self.widths))

    @property
    def provenance(self) -> dict[str, object]:
        """How this engine was opened, and how it folds."""
        return self.options.provenance() | {"fold": self.fold}

    def capture(self, texts: Sequence[Text]) -> RequestRows:
        """Each text's row of moments, in the order given; a text with no position to count has 0 tokens and NaN.

        Raises CaptureError unless every layer of every rank counted exactly the planned tokens, all finite.
        """
        planned = [text.planned for text in texts]
        with self._counting(len(texts)):
            self._generate(replayed(texts))
            return self._collect(planned)

    def answer_and_capture(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, phase: str
    ) -> tuple[list[Completion], RequestRows]:
        """The unedited answers in the order asked, and the rows of what `capture` would count of prompt and answer.

        One pass: tokens are counted as they are generated. Raises CaptureError as `capture` does.
        """
        with self._counting(len(prompts)):
            outputs = self._generate(answered_and_counted(prompts, sampling, phase))
            completions = [completion_of(output) for output in outputs]
            # the last sampled token is never forwarded
            ends = [len(ids) + len(done.token_ids) - 1 for ids, done in zip(prompts, completions, strict=True)]
            spans = [phase_span(phase, len(ids), end) for ids, end in zip(prompts, ends, strict=True)]
            return completions, self._collect([stop - start for start, stop in spans])

    @contextmanager
    def _counting(self, number: int) -> Iterator[None]:
        """A time in which requests with the keys 0 … number − 1 count; however it ends, their slots are free again."""
        if number >= self.options.num_slots:
            raise EngineError(
                f"{number} requests are to count at once, and the engine was opened for {self.options.num_slots - 1}"
            )
        try:
            yield
        finally:
            self._llm.collective_rpc("probe_release", args=(list(range(number)),))

    def _collect(self, planned: Sequence[int]) -> RequestRows:
        ranks = self._llm.collective_rpc("probe_collect", args=(list(range(len(planned))), list(planned)))
        if self.options.own_process:
            ranks = [unpack_rows(data) for data in ranks]
        check_counts(planned, [count_LQ for count_LQ, _ in ranks], self._layouts)
        rows = assemble([rows for _, rows in ranks], self._layouts)
        check_finite(rows, self.widths)
        return rows

    def histogram(self, texts: Sequence[Text], plan: HistogramPlan) -> NDArray[np.int64]:
        """How many counted tokens of all texts fall in each bin, shape (neuron of the plan, bin).

        Raises SelectionError for a neuron that the model has not, CaptureError as `capture` does.
        """
        check_sites(plan.layer, plan.neuron, self.widths)
        self._set_bins(plan, slice(None))
        try:
            self.capture(texts)
            ranks = [unpack(data) for data in self._llm.collective_rpc("probe_bins")]
        finally:
            self._set_bins(plan, slice(0))
        counts = np.zeros((len(plan.neuron), plan.num_bins), np.int64)
        site = {pair: at for at, pair in enumerate(zip(plan.layer.tolist(), plan.neuron.tolist(), strict=True))}
        for found in ranks:
            columns = (found.get(name, ()) for name in ("layer", "neuron", "counts"))
            for layer, neuron, count_B in zip(*columns, strict=True):
                counts[site[int(layer), int(neuron)]] = count_B
        return counts

    def _set_bins(self, plan: HistogramPlan, chosen: slice) -> None:
        arrays = {"edges": plan.edges, "layer": plan.layer[chosen], "neuron": plan.neuron[chosen]}
        self._llm.collective_rpc("probe_set_bins", args=(pack(arrays),))

    # answers

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """The answers, in the order asked, all in one continuous batch whatever their edits.

        Raises SelectionError for an edit of a neuron that the model has not, or that one row edits twice.
        """
        return [completion_of(output) for output in self.run(requests, sampling)]

    def run(self, requests: Sequence[Request], sampling: Sampling, logprobs: int | None = None) -> list[Any]:
        """vLLM's own outputs of these requests, in the order asked."""
        edits = {request.edit.fingerprint: request.edit.row for request in requests if request.edit is not None}
        self._install(list(edits.values()))
        row_of = {fingerprint: number for number, fingerprint in enumerate(edits, start=1)}
        return self._generate(answered(requests, sampling, row_of, logprobs))

    def _generate(self, inputs: Inputs) -> list[Any]:
        if not inputs.prompts:
            return []
        try:
            return self._llm.generate(inputs.prompts, inputs.params, use_tqdm=False)
        except BaseException:
            # what is left of a failed call would run on with the next one, under its edits and without its slots
            engine = self._llm.llm_engine
            engine.abort_request(list(engine.output_processor.request_states), internal=True)
            raise

    def _install(self, rows: Sequence[EditRow]) -> None:
        """Edit row i + 1 is rows[i]; row 0 stays the identity."""
        if rows:
            check_rows(rows, self.widths)
            self._llm.collective_rpc("probe_set_edits", args=(pack_edits(rows),))


def completion_of(output: Any) -> Completion:
    answer = output.outputs[0]
    return Completion(tuple(answer.token_ids), answer.text, str(answer.finish_reason))
