"""A Hugging Face checkpoint folder: checked without loading it, and named by its content."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from hashlib import blake2b
from pathlib import Path
from typing import Any

from harvest.cache import cache_folder
from harvest.errors import ModelError

_CHUNK_BYTES = 1 << 24
_MAX_HEADER_BYTES = 100_000_000
# the limit of the safetensors format
_CACHED_FROM_BYTES = 1 << 28
# smaller files are hashed in well under a second
_READERS = 8

# one size has several names, the first of them the usual one; GPT-2's line and OPT use the others
_LAYERS = ("num_hidden_layers", "n_layer")
_NEURONS = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner")
_POSITIONS = ("max_position_embeddings", "n_positions")
_HIDDEN = ("hidden_size", "n_embd")
_FOURFOLD = ("gpt2", "gptj", "bloom", "falcon")
# model types that leave the neurons out where they are four times the hidden size


@dataclass(frozen=True, slots=True)
class Checkpoint:
    path: Path
    fingerprint: str
    # of config, generation config and weights
    tokenizer: str
    # digest of the vocabulary that decodes its answers
    is_long_rope: bool
    # positions are scaled by the context asked for, which is then part of the model
    num_layers: int
    num_neurons: int
    # per dense layer
    max_positions: int


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint's shape and fingerprint; every weights file is checked against its own header.

    Raises ModelError for a folder that is missing, or a file in it that is missing or damaged.
    """
    if not path.is_dir():
        raise ModelError(
            f"{path}: no such model folder; give the path of a Hugging Face checkpoint, or write one with "
            f"`value-harvest demo-model {path}`"
        )
    config = read_config(path)
    weights = _weight_files(path)
    for file in weights:
        _check_safetensors(file)
    text = config.get("text_config", config)
    if not isinstance(text, dict):
        raise ModelError(f"{path / 'config.json'}:text_config: is not a JSON object; copy the checkpoint again")
    return Checkpoint(
        path,
        _digest_of([path / "config.json", path / "generation_config.json", *weights]),
        _digest_of([path / "tokenizer.json", path / "tokenizer.model"]),
        "longrope" in json.dumps(config),
        _number(text, _LAYERS, path),
        _num_neurons(text, path),
        _number(text, _POSITIONS, path),
    )


def read_config(path: Path) -> dict[str, Any]:
    """The folder's config.json.

    Raises ModelError if it cannot be read, or the folder holds a LoRA adapter.
    """
    adapter = path / "adapter_config.json"
    if adapter.is_file():
        raise ModelError(
            f"{adapter}: a LoRA adapter is not a model; merge it into its base model's weights and give that folder"
        )
    return _read_json(path / "config.json")


def _digest_of(files: list[Path]) -> str:
    """One digest over the names and contents of those files that are there."""
    there = [file for file in files if file.is_file()]
    digest = blake2b(digest_size=20)
    # hashing lets other threads run: the shards of a large model are read side by side
    with ThreadPoolExecutor(_READERS) as readers:
        for file, hexdigest in zip(there, readers.map(_file_digest, there), strict=True):
            digest.update(file.name.encode() + b"\0" + hexdigest.encode())
    return digest.hexdigest()


def _num_neurons(config: dict[str, Any], path: Path) -> int:
    is_left_out = all(config.get(name) is None for name in _NEURONS)
    if is_left_out and config.get("model_type") in _FOURFOLD:
        return 4 * _number(config, _HIDDEN, path)
    dense = _number(config, _NEURONS, path)
    # a mixture's shared experts may be wider than its dense layers
    shared = config.get("shared_expert_intermediate_size")
    if type(shared) is not int:
        number, each = config.get("n_shared_experts"), config.get("moe_intermediate_size")
        shared = number * each if type(number) is int and type(each) is int else 0
    return max(dense, shared)


def _number(config: dict[str, Any], names: tuple[str, ...], path: Path) -> int:
    """The size that has one of these names."""
    field = next((name for name in names if config.get(name) is not None), names[0])
    value = config.get(field)
    if type(value) is not int or value < 1:
        raise ModelError(
            f"{path / 'config.json'}:{field}: {value!r} is not a positive number; is this a language model's folder?"
        )
    return value


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}); copy the checkpoint again") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file}: is not JSON ({error}); copy the checkpoint again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{file}: is not a JSON object; copy the checkpoint again")
    return value


def _weight_files(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise ModelError(f"{index}:weight_map: does not name the weights files; copy the checkpoint again")
        elsewhere = [name for name in weight_map.values() if name != Path(name).name]
        if elsewhere:
            raise ModelError(
                f"{index}:weight_map: {elsewhere[0]!r} is not a file of this folder; copy the checkpoint again"
            )
        files = [path / name for name in sorted(set(weight_map.values()))]
    else:
        files = sorted(path.glob("*.safetensors"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise ModelError(
            f"{path}: weights are missing ({', '.join(missing) or '*.safetensors'}); copy the checkpoint again"
        )
    return files


def _check_safetensors(file: Path) -> None:
    """The header parses, and the tensors it names fill the file exactly. No tensor is read."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 0 < length <= min(_MAX_HEADER_BYTES, size - 8):
            raise ModelError(f"{file}: is not a safetensors file, or was cut short; copy it again")
        header = stream.read(length)
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        end = max(ends)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{file}: its header is damaged; copy it again") from error
    if end != size - 8 - length:
        raise ModelError(
            f"{file}: has {size - 8 - length} bytes of weights where its header names {end}; copy it again"
        )


def _file_digest(file: Path) -> str:
    """Digest of the content; for large files remembered by what the file system says of them."""
    state = _state(file)
    if file.stat().st_size < _CACHED_FROM_BYTES:
        return _hash(file)
    name = blake2b(f"{file.resolve()}\0{state}".encode(), digest_size=20).hexdigest()
    remembered = cache_folder() / "fingerprints" / name
    # engines that start side by side wait for the one that hashes
    with _alone(cache_folder() / "locks" / name):
        if remembered.is_file():
            return remembered.read_text()
        digest = _hash(file)
        if _state(file) != state:
            raise ModelError(f"{file}: was written to while it was read; wait until the checkpoint is whole")
        # a home that cannot be written costs time, not the run
        with suppress(OSError):
            _remember(remembered, digest)
    return digest


def _state(file: Path) -> tuple[int, ...]:
    """What no write leaves as it was, not even one that restores the size and the time of change."""
    stat = file.stat()
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """A time in which no other process of this machine has the lock; without a lock where none can be made."""
    with ExitStack() as held:
        with suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            flock(held.enter_context(lock.open("w")), LOCK_EX)
        yield


def _remember(remembered: Path, digest: str) -> None:
    remembered.parent.mkdir(parents=True, exist_ok=True)
    fresh = remembered.with_suffix(f".{os.getpid()}")
    fresh.write_text(digest)
    fresh.replace(remembered)


def _hash(file: Path) -> str:
    digest = blake2b(digest_size=20)
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
