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
from harvest.probe.build import ProbeOptions
from harvest.probe.collect import rows_of, settle
from harvest.probe.edits import layer_table
from harvest.probe.router import Router, Stretch, Ticket
from harvest.probe.state import SINK, Bins, Probe, Routing
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
        options = ProbeOptions(**self.vllm_config.additional_config["value_harvest"]["probe"])
        dtype = self.vllm_config.model_config.dtype
        self._probe, self._number = install(self.model_runner.get_model(), options, dtype, self.device)
        self._router = Router(options.num_slots, options.holds)
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
        probe.routing = self._router.route(self._stretches(), self.device)
        try:
            return self._forward(*args, **kwargs)
        finally:
            probe.routing = Routing()

    def _stretches(self) -> list[Stretch]:
        runner = self.model_runner
        batch, starts = runner.input_batch, runner.query_start_loc.np
        return [
            Stretch(batch.req_ids[at], int(batch.num_computed_tokens_cpu[at]), int(starts[at + 1] - starts[at]))
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

    def probe_fold(self) -> str:
        """The name of the fold that is used."""
        return self._probe.folder.name

    def probe_set_bins(self, edges: torch.Tensor, layer: torch.Tensor, neuron: torch.Tensor) -> None:
        """Count the named neurons' activations between these edges from now on, from zero; no neuron: stop counting."""
        for probed in self._probe.layers:
            own = (layer == probed.layer) & (neuron >= probed.offset) & (neuron < probed.offset + probed.width)
            local_N = (neuron[own] - probed.offset).to(self.device)
            counts = torch.zeros(len(local_N), len(edges) + 1, dtype=torch.int64, device=self.device)
            probed.bins = Bins(local_N, edges.to(self.device), counts) if len(local_N) else None

    def probe_bins(self) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
        """Of each layer with chosen neurons: its number, the neurons of this rank, and their counts (N, B)."""
        found = [(probed, probed.bins) for probed in self._probe.layers if probed.bins is not None]
        return [(probed.layer, (bins.neuron_N + probed.offset).cpu(), bins.count_NB.cpu()) for probed, bins in found]

    def probe_collect(self, keys: Sequence[int], planned: Sequence[int]) -> tuple[torch.Tensor, RequestRows]:
        """Counted tokens per layer and request, and the requests' rows; once per request.

        Tokens beyond the planned ones, forwarded after an answer had ended, are dropped while they are held back.
        """
        journeys = self._router.journeys(keys)
        settle(self._probe, journeys, planned)
        slots = [journey.slot if journey else SINK for journey in journeys]
        return rows_of(self._probe.statistics, torch.tensor(slots, dtype=torch.int64, device=self.device))

    def probe_release(self, keys: Sequence[int]) -> None:
        """Clear the requests' slots, which are free for others then."""
        slots = [journey.slot for journey in self._router.journeys(keys) if journey]
        self._probe.statistics.clear(torch.tensor(slots, dtype=torch.int64, device=self.device))
        self._router.release(keys)
