"""vLLM's worker with a probe: the only reader of vLLM's internals (the V1 model runner's).

One process holds one rank. The client speaks to it by `collective_rpc` and the method names that start with `probe_`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from vllm.platforms import current_platform

from harvest.engine.install import install
from harvest.probe import op
from harvest.probe.edits import layer_table
from harvest.probe.router import Router, Segment, Ticket
from harvest.probe.state import Probe, Routing
from harvest.stats.rows import RequestRows
from harvest.types import EditRow

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker


class HarvestWorker(PlatformWorker):
    """The platform's worker; each MLP's activation is a probe, and each real step is routed before its forward."""

    _number: int | None = None
    # of the probe; None until the model is loaded

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load, then install the probe: before warm-up, because graphs are traced once and never looked at again."""
        super().load_model(*args, **kwargs)
        settings = self.vllm_config.additional_config["value_harvest"]
        slots = settings["num_slots"]
        self._probe, self._number = install(
            self.model_runner.get_model(), slots, self.device, settings["routed_experts"]
        )
        self._router = Router(slots)
        self._forward = self.model_runner._model_forward
        self.model_runner._model_forward = self._routed_forward

    def shutdown(self) -> None:
        if self._number is not None:
            op.forget(self._number)
            self._number = None
        super().shutdown()

    def execute_model(self, scheduler_output: Any) -> Any:
        self._router.leave(scheduler_output.finished_req_ids)
        for request in scheduler_output.scheduled_new_reqs:
            ticket = Ticket.from_extra_args(request.sampling_params.extra_args if request.sampling_params else None)
            if ticket is not None:
                self._router.arrive(request.req_id, ticket)
        return super().execute_model(scheduler_output)

    def _routed_forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs once per real step, after the batch is final; warm-up and dummy runs go around it."""
        probe: Probe = self._probe
        probe.routing = self._router.route(self._segments(), self.device)
        try:
            return self._forward(*args, **kwargs)
        finally:
            probe.routing = Routing.at_rest()

    def _segments(self) -> list[Segment]:
        runner = self.model_runner
        batch, starts = runner.input_batch, runner.query_start_loc.np
        return [
            Segment(batch.req_ids[at], int(batch.num_computed_tokens_cpu[at]), int(starts[at + 1] - starts[at]))
            for at in range(batch.num_reqs)
        ]

    # what the client calls, by name

    def probe_layout(self) -> list[tuple[int, int, int]]:
        """This rank's part of the model: of each probed layer its number, first neuron and number of neurons."""
        return [(layer.layer, layer.offset, layer.width) for layer in self._probe.layers]

    def probe_set_edits(self, rows: Sequence[EditRow]) -> None:
        """Install the conditions' coefficients; rows[i] is edit row i + 1, row 0 stays the identity."""
        for layer in self._probe.layers:
            layer.edits = layer_table(rows, layer.layer, layer.offset, layer.width, self.device)

    def probe_counts(self) -> torch.Tensor:
        """Counted tokens over all slots, shape (layer,)."""
        return self._probe.statistics.count_LS.sum(dim=1).cpu()

    def probe_collect(self, keys: Sequence[int]) -> tuple[torch.Tensor, RequestRows]:
        """Counted tokens per layer and request, and the requests' rows; their slots are cleared and free again."""
        statistics, router = self._probe.statistics, self._router
        slots = torch.tensor(router.slots(keys), dtype=torch.int64, device=self.device)
        count_LQ = statistics.count_LS[:, slots].cpu()
        none_Q11 = (count_LQ[0] == 0)[:, None, None]

        def per_request(values_LSF: torch.Tensor) -> torch.Tensor:
            return values_LSF[:, slots].transpose(0, 1).cpu()

        def missing_is_nan(values_LSF: torch.Tensor) -> Any:
            return per_request(values_LSF).masked_fill(none_Q11, torch.nan).numpy()

        rows = RequestRows(
            num_tokens_Q=count_LQ[0].numpy(),
            mean_QLF=missing_is_nan(statistics.mean_LSF),
            m2_QLF=missing_is_nan(statistics.m2_LSF),
            min_QLF=missing_is_nan(statistics.min_LSF),
            max_QLF=missing_is_nan(statistics.max_LSF),
            positive_QLF=per_request(statistics.positive_LSF).numpy(),
        )
        statistics.clear(slots)
        router.release(keys)
        return count_LQ, rows
