"""Which fold a probe gets, and what is refused with a reason."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from harvest.errors import EngineError
from harvest.probe.build import ProbeOptions, build_probe
from harvest.probe.state import DeviceSegments, Probe, ProbedLayer, Routing, Segment

CPU = torch.device("cpu")


def build(fold: str, product: str = "stock") -> Probe:
    options = ProbeOptions(3, 0, fold, product)  # type: ignore[arg-type]
    return build_probe([ProbedLayer(0, 4, 0, F.silu, F.silu, gated=False)], options, torch.float32, CPU)


@pytest.mark.skipif(find_spec("triton") is not None, reason="Triton is installed here")
def test_triton_that_is_not_installed_is_named():
    with pytest.raises(
        EngineError, match=r"Triton is not installed, and this engine runs on cpu.* set cluster\.fold: auto"
    ):
        build("triton")


@pytest.mark.parametrize("fold", ["torch", "native"])
def test_a_fold_that_computes_no_product_refuses_to(fold: str):
    with pytest.raises(EngineError, match=f"not by {fold}; set `product: stock`"):
        build(fold, "fused")


def test_what_a_graph_would_leave_out_is_refused():
    probe = build("torch")
    probe.refuse_if_captured("histograms")
    probe.captured = True
    with pytest.raises(
        EngineError, match=r"histograms cannot be had under CUDA graphs yet; .* cluster.compiled: false"
    ):
        probe.refuse_if_captured("histograms")


def test_device_segments_are_the_last_ones_given_and_none_at_rest():
    segments = DeviceSegments.allocate(3, CPU)
    probe = build("torch")
    probe.folder.segments = segments
    address = segments.table_R5.data_ptr()
    assert segments.table_R5[0, 0] == 0
    probe.begin(Routing([Segment(0, 2, 1, 0, 0), Segment(5, 1, 2, 3, 4)]))
    assert segments.table_R5[:3].tolist() == [[2, 0, 0, 0, 0], [0, 2, 1, 0, 0], [5, 1, 2, 3, 4]]
    probe.rest()
    assert segments.table_R5[0, 0] == 0
    assert probe.routing.segments == []
    assert segments.table_R5.data_ptr() == address
