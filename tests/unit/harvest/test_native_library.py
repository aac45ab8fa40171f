"""The compiled fold: made for this processor, found again, mended, and refused where it cannot be right."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from harvest.errors import EngineError
from harvest.probe import build, native
from harvest.probe.build import ProbeOptions, build_probe
from harvest.probe.fold import activate
from harvest.probe.state import Probe, ProbedLayer, Routing, Segment

needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="g++ is not installed")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no library loaded from another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native._library.cache_clear()
    yield tmp_path / "value-harvest" / "native"
    native._library.cache_clear()


def probe_of(fold: str, dtype: torch.dtype = torch.bfloat16) -> Probe:
    layer = ProbedLayer(7, 4, 0, F.silu, F.silu, gated=False)
    return build_probe([layer], ProbeOptions(2, 0, fold), dtype, torch.device("cpu"))  # type: ignore[arg-type]


@needs_compiler
def test_another_processor_has_another_library():
    found = native.compiler()
    assert native.processor(found) == native.processor(found)
    assert len({native.processor(found, one) for one in ("native", "core2", "x86-64")}) == 3


@needs_compiler
def test_it_is_compiled_once_and_mended_when_it_was_cut_short(folder: Path):
    probe_of("native")
    (made,) = folder.iterdir()
    before = made.stat().st_mtime_ns
    native._library.cache_clear()
    probe_of("native")
    assert made.stat().st_mtime_ns == before
    made.unlink()
    made.write_bytes(b"\x7fELF")
    native._library.cache_clear()
    probe_of("native")
    assert [each.name for each in folder.iterdir()] == [made.name]
    assert isinstance(ctypes.CDLL(str(made)), ctypes.CDLL)


@needs_compiler
def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    native._library.cache_clear()
    with pytest.raises(EngineError, match=r"let XDG_CACHE_HOME .* or set cluster\.fold"):
        probe_of("native")
    native._library.cache_clear()


def test_without_a_compiler_the_fold_is_torch_s_and_says_so(monkeypatch: pytest.MonkeyPatch):
    for module in (native, build):
        monkeypatch.setattr(module, "compiler", lambda: None)
    native._library.cache_clear()
    assert probe_of("auto").folder.name == "torch"
    with pytest.raises(EngineError, match=r"g\+\+ is not installed.* set cluster.fold: torch"):
        probe_of("native")


@needs_compiler
@pytest.mark.parametrize(
    "hidden", [torch.ones(3, 4), torch.ones(4, 3, dtype=torch.bfloat16).T], ids=["dtype", "stride"]
)
def test_a_hidden_layer_that_is_not_what_it_should_be_is_refused(hidden: torch.Tensor):
    probe = probe_of("native")
    probe.routing = Routing([Segment(0, 3, 1, 0, 0)], [(0, 3)])
    with pytest.raises(EngineError, match="layer 7: the MLP's hidden layer is torch"):
        activate(hidden, probe, 0)
