"""The fold on a CPU, as `fold.cpp` does it: compiled once for this machine's processor, then found in the cache.

An activation of a 16-bit model is looked up in a table of what the layer's own module gives for each of the 65,536
gates: exact by construction, and one pass over memory that is read anyway.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harvest.cache import cache_folder
from harvest.errors import EngineError
from harvest.probe.state import Activation, Folder, Probe, ProbedLayer, Routing, Segment, SlotStatistics

_SOURCE = Path(__file__).with_name("fold.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
_CHUNK = 256
# tokens whose activations are computed at a time where no table serves; they stay in the second-level cache


class _Layer(ctypes.Structure):
    """One layer's part of the statistics, as fold.cpp sees it."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("mean", "m2", "low", "high", "positive", "peak", "count", "held")),
        ("width", ctypes.c_int64),
        ("capacity", ctypes.c_int64),
    )

    @staticmethod
    def of(statistics: SlotStatistics, index: int) -> _Layer:
        arrays = (
            statistics.mean_LSF,
            statistics.m2_LSF,
            statistics.min_LSF,
            statistics.max_LSF,
            statistics.positive_LSF,
            statistics.peak_LSF,
            statistics.count_LS,
            statistics.held_LSHF,
        )
        return _Layer(*(array[index].data_ptr() for array in arrays), statistics.mean_LSF.shape[2], statistics.holds)


class _Source(ctypes.Structure):
    """Where a step's tokens lie: the address of the first, the elements between them, and the table or null."""

    _fields_ = (("data", ctypes.c_void_p), ("stride", ctypes.c_int64), ("table", ctypes.c_void_p))


def compiler() -> str | None:
    """The C++ compiler that is used; None where there is none."""
    return shutil.which("g++")


class NativeFolder(Folder):
    """The C++ fold. Gates of 16-bit models are held back as they are, activations of 32-bit ones as they are."""

    name = "native"

    def __init__(self, layers: Sequence[ProbedLayer], statistics: SlotStatistics) -> None:
        """Raises EngineError where no compiler is found or it fails."""
        self._library = _library()
        self._layers = [_Layer.of(statistics, index) for index in range(len(layers))]
        dtype = statistics.held_LSHF.dtype
        by_activation = {id(layer.activation): layer.activation for layer in layers}
        tables = {key: _table(activation, dtype) for key, activation in by_activation.items()}
        self._tables = [tables[id(layer.activation)] for layer in layers]
        self._step: Routing | None = None
        self._segments = np.zeros((0, 5), np.int32)

    def fold_step(self, gate_TF: Tensor, layer: ProbedLayer, index: int, probe: Probe) -> None:
        held = probe.statistics.held_LSHF.dtype
        if gate_TF.dtype != held or gate_TF.stride(1) != 1:
            # C++ sees an address and believes the rest
            raise EngineError(
                f"layer {layer.layer}: the MLP's hidden layer is {gate_TF.dtype} with a stride of {gate_TF.stride(1)}, "
                f"and the model is {held}; set cluster.fold: torch"
            )
        segments = self._packed(probe.routing)
        if self._tables[index] is not None:
            self._fold(gate_TF, segments, layer, index, self._layers[index])
            return
        for piece in _pieces(segments):
            first, last = piece[0], piece[-1]
            begin = int(first[0])
            activation_NF = layer.activation(gate_TF[begin : int(last[0] + last[1])]).contiguous()
            piece[:, 0] -= begin
            self._fold(activation_NF, piece, layer, index, self._layers[index])

    def _packed(self, routing: Routing) -> np.ndarray:
        """The routing's segments as C++ reads them; packed once per step, for all layers."""
        if self._step is not routing:
            self._step, self._segments = routing, np.array(routing.segments, np.int32)
        return self._segments

    def fold_held(self, layer: ProbedLayer, index: int, probe: Probe, held: Sequence[Segment]) -> None:
        if not held:
            return
        held_SHF = probe.statistics.held_LSHF[index]
        # the slots' held activations lie one after the other, as the tokens of a batch do
        held_NF = held_SHF.flatten(0, 1)
        direct = [(slot * held_SHF.shape[1], length, slot, 0, done) for _, length, slot, _, done in held]
        # they were counted when they came, and may not be held back again
        state = _Layer.from_buffer_copy(self._layers[index])
        state.count, state.capacity = None, 0
        self._fold(held_NF, np.array(direct, np.int32), layer, index, state)

    def _fold(self, rows_TF: Tensor, segments: np.ndarray, layer: ProbedLayer, index: int, state: _Layer) -> None:
        table = self._tables[index]
        source = _Source(rows_TF.data_ptr(), rows_TF.stride(0), None if table is None else table.data_ptr())
        self._library.value_harvest_fold(
            ctypes.byref(state),
            segments.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int32(len(segments)),
            ctypes.byref(source),
            ctypes.c_int64(layer.width),
        )


def _pieces(segments: np.ndarray) -> list[np.ndarray]:
    """The segments in stretches of at most _CHUNK tokens, gaps included; a longer segment is cut."""
    cut = []
    for begin, length, slot, held, before in segments.tolist():
        for done in range(0, length, _CHUNK):
            # a single token at the end of a cut segment is folded with those before it, never held back
            rest = length - done
            number = rest if rest <= _CHUNK + 1 else _CHUNK
            cut.append((begin + done, number, slot, held if done == 0 else 0, before + done))
            if number == rest:
                break
    pieces: list[list[tuple[int, ...]]] = []
    for segment in cut:
        if pieces and segment[0] + segment[1] - pieces[-1][0][0] <= _CHUNK:
            pieces[-1].append(segment)
        else:
            pieces.append([segment])
    return [np.array(piece, np.int32) for piece in pieces]


def _table(activation: Activation, dtype: torch.dtype) -> Tensor | None:
    """The activation of every 16-bit gate by its bits, fp32, shape (65536,); None for wider types."""
    if dtype.itemsize != 2:
        return None
    gates = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    return activation(gates[None, :])[0].float().contiguous()


@cache
def _library() -> ctypes.CDLL:
    found = compiler()
    if found is None:
        raise EngineError("g++ is not installed, which compiles the fold; install it, or set cluster.fold: torch")
    name = blake2b(
        b"\0".join((_SOURCE.read_bytes(), " ".join(_FLAGS).encode(), processor(found))), digest_size=16
    ).hexdigest()
    path = cache_folder() / "native" / f"{name}.so"
    try:
        return _loaded(found, path)
    except OSError as error:
        raise EngineError(
            f"{path}: the compiled fold cannot be kept or loaded there ({error}); let XDG_CACHE_HOME name a folder "
            "that can be written, or set cluster.fold: torch"
        ) from error


def _loaded(found: str, path: Path) -> ctypes.CDLL:
    if not path.is_file():
        _compile(found, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        # cut short by a full disk, or by a hand: it can be made again
        _compile(found, path)
        return ctypes.CDLL(str(path))


def processor(found: str, architecture: str = "native") -> bytes:
    """What the compiler takes this processor for, and its own version: a cache may be shared by many machines."""
    target = [found, f"-march={architecture}", "-Q", "--help=target"]
    answers = [
        subprocess.run(asked, capture_output=True, check=True).stdout  # noqa: S603
        for asked in (target, [found, "--version"])
    ]
    return b"\0".join((sysconfig.get_platform().encode(), *answers))


def _compile(found: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".so", delete=False) as made:
        fresh = Path(made.name)
    ran = subprocess.run([found, *_FLAGS, "-o", str(fresh), str(_SOURCE)], capture_output=True, text=True, check=False)  # noqa: S603
    if ran.returncode:
        fresh.unlink()
        raise EngineError(f"{_SOURCE}: does not compile ({ran.stderr.strip()[:500]}); install g++ 9 or newer")
    # whole or not at all: other processes may compile the same
    fresh.replace(path)
