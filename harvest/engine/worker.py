"""vLLM's worker with a probe; it, batches.py and mlps.py read vLLM's internals.

One process holds one rank. The client speaks to it by `collective_rpc` and the method names that start with `probe_`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from vllm.distributed.parallel_state import get_pp_group
from vllm.platforms import current_platform

from harvest.engine.batches import arrivals, attach, departures
from harvest.engine.install import install
from harvest.engine.wire import pack, pack_rows, unpack, unpack_edits
from harvest.errors import EngineError, ModelError
from harvest.probe import op
from harvest.probe.build import ProbeOptions
from harvest.probe.collect import rows_of, settle
from harvest.probe.edits import layer_table
from harvest.probe.router import Router, Stretch
from harvest.probe.state import SINK, Bins

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker


class HarvestWorker(PlatformWorker):
    """The platform's worker; each MLP's activation is a probe, and each real step is routed before its forward."""

    _number: int | None = None
    # of the probe; None until the model is loaded
    _refusal: tuple[str, str] | None = None
    # why there is no probe: an error's name and sentence

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load, then install the probe: before warm-up, because graphs are traced once and never looked at again."""
        super().load_model(*args, **kwargs)
        config = self.vllm_config.additional_config["value_harvest"]
        options, self._packs = ProbeOptions(**config["probe"]), config["packs"]
        self._router = Router(options.num_slots, options.holds)
        dtype = self.vllm_config.model_config.dtype
        try:
            self._probe, self._number = install(
                self.model_runner.get_model(), options, dtype, self.device, config["routed_experts"]
            )
            self._check_graphs()
        except (ModelError, EngineError) as error:
            # raised here, in a process of its own, it would reach nobody; the client asks first of all
            self._refusal = (type(error).__name__, str(error))

    def _check_graphs(self) -> None:
        """Raises EngineError for a fold that Python directs where CUDA graphs will run without Python."""
        is_eager = self.vllm_config.model_config.enforce_eager
        if self.device.type == "cuda" and not is_eager and self._probe.folder.segments is None:
            raise EngineError(
                f"fold {self._probe.folder.name}: CUDA graphs cannot hold it; install triton, or set cluster.compiled: "
                "false"
            )

    def compile_or_warm_up_model(self) -> Any:
        """Warm up, then look at the batches: V2's kernel warm-up runs real steps of made-up requests."""
        times = super().compile_or_warm_up_model()
        if not get_pp_group().is_first_rank and self.model_runner.intermediate_tensors is None:
            # a dummy run allocates what a later stage receives, and the CPU's eager warm-up does without one
            self.model_runner._dummy_run(1)
        if self._refusal is None:
            attach(self.model_runner, self._route, self._rest)
        return times

    def shutdown(self) -> None:
        if self._number is not None:
            op.forget(self._number)
            self._number = None
        super().shutdown()

    def execute_model(self, scheduler_output: Any) -> Any:
        self._router.leave(departures(scheduler_output))
        for request_id, ticket in arrivals(scheduler_output).items():
            self._router.arrive(request_id, ticket)
        return super().execute_model(scheduler_output)

    def _route(self, stretches: list[Stretch]) -> None:
        self._probe.begin(self._router.route(stretches, self.device))

    def _rest(self) -> None:
        self._probe.rest()

    # what the client calls, by name

    def probe_refusal(self) -> tuple[str, str] | None:
        """Why this rank has no probe: the name of an error and its sentence; None if it has one."""
        return self._refusal

    def probe_layout(self) -> list[tuple[int, int, int]]:
        """This rank's part of the model: of each probed layer its number, first neuron and number of neurons."""
        return [(layer.layer, layer.offset, layer.width) for layer in self._probe.layers]

    def probe_set_edits(self, packed: bytes) -> None:
        """Install the conditions' coefficients; row i is edit row i + 1, row 0 stays the identity."""
        self._probe.refuse_if_captured("edits")
        rows = unpack_edits(packed)
        for layer in self._probe.layers:
            layer.edits = layer_table(rows, layer.layer, layer.offset, layer.width, self.device)

    def probe_counts(self) -> list[int]:
        """Counted tokens over all slots, by layer."""
        return list(self._probe.statistics.count_LS.sum(dim=1).tolist())

    def probe_fold(self) -> str:
        """The name of the fold that is used."""
        return self._probe.folder.name

    def probe_set_bins(self, packed: bytes) -> None:
        """Count the named neurons' activations between these edges from now on, from zero; no neuron: stop counting."""
        self._probe.refuse_if_captured("histograms")
        edges, layer, neuron = (torch.from_numpy(unpack(packed)[name]) for name in ("edges", "layer", "neuron"))
        for probed in self._probe.layers:
            own = (layer == probed.layer) & (neuron >= probed.offset) & (neuron < probed.offset + probed.width)
            local_N = (neuron[own] - probed.offset).to(self.device)
            counts = torch.zeros(len(local_N), len(edges) + 1, dtype=torch.int64, device=self.device)
            probed.bins = Bins(local_N, edges.to(self.device), counts) if len(local_N) else None

    def probe_bins(self) -> bytes:
        """Of this rank's chosen neurons: layer and neuron, as global numbers, and counts (N, B)."""
        found = [(probed.layer, probed.offset, probed.bins) for probed in self._probe.layers if probed.bins is not None]
        if not found:
            return pack({})
        return pack(
            {
                "layer": np.repeat([layer for layer, _, _ in found], [len(bins.neuron_N) for _, _, bins in found]),
                "neuron": np.concatenate([bins.neuron_N.cpu().numpy() + offset for _, offset, bins in found]),
                "counts": np.concatenate([bins.count_NB.cpu().numpy() for _, _, bins in found]),
            }
        )

    def probe_collect(self, keys: Sequence[int], planned: Sequence[int]) -> Any:
        """Counted tokens per layer and request, and the requests' rows, once per request; packed for another process.

        Tokens beyond the planned ones, forwarded after an answer had ended, are dropped while they are held back.
        """
        journeys = self._router.journeys(keys)
        settle(self._probe, journeys, planned)
        slots = [journey.slot if journey else SINK for journey in journeys]
        counts, rows = rows_of(self._probe.statistics, torch.tensor(slots, dtype=torch.int64, device=self.device))
        return pack_rows(counts.numpy(), rows) if self._packs else (counts.numpy(), rows)

    def probe_release(self, keys: Sequence[int]) -> None:
        """Clear the requests' slots, which are free for others then."""
        slots = [journey.slot for journey in self._router.journeys(keys) if journey]
        self._probe.statistics.clear(torch.tensor(slots, dtype=torch.int64, device=self.device))
        self._router.release(keys)
