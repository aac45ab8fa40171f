"""A checkpoint folder is taken whole or refused in one sentence, and its fingerprint is its content's."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from harvest.errors import ModelError
from harvest.models import checkpoint
from harvest.models.checkpoint import read_checkpoint

SIZES = {"num_hidden_layers": 2, "intermediate_size": 8, "max_position_embeddings": 64}
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint in two shards."""
    root = tmp_path / "model"
    root.mkdir()
    (root / "config.json").write_text(json.dumps(SIZES))
    (root / "tokenizer.json").write_text("{}")
    names = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
    for tensor, name in names.items():
        save_file({tensor: np.arange(12, dtype=np.float32)}, root / name)
    write_index(root, names)
    return root


def write_index(root: Path, weight_map: object) -> None:
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def rewrite_header(file: Path, change: Callable[[bytes], bytes], length: int | None = None) -> None:
    data = file.read_bytes()
    (old,) = struct.unpack("<Q", data[:8])
    header = change(data[8 : 8 + old])
    file.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data[8 + old :])


def test_a_checkpoint_says_its_sizes(folder: Path):
    found = read_checkpoint(folder)
    assert (found.num_layers, found.num_neurons, found.max_positions) == (2, 8, 64)
    assert found.path == folder


def test_the_sizes_of_a_multimodal_model_are_those_of_its_text(folder: Path):
    (folder / "config.json").write_text(json.dumps({"text_config": SIZES, "vision_config": {"num_hidden_layers": 9}}))
    assert read_checkpoint(folder).num_layers == 2


def test_one_file_without_an_index_is_a_checkpoint(folder: Path):
    for file in folder.glob("model*"):
        file.unlink()
    save_file({"a": np.zeros(3)}, folder / WEIGHTS)
    assert read_checkpoint(folder).num_neurons == 8


def config_of(text: str | bytes) -> Callable[[Path], object]:
    return lambda root: (root / "config.json").write_bytes(text.encode() if isinstance(text, str) else text)


def config_with(**changes: object) -> Callable[[Path], object]:
    return config_of(json.dumps({**SIZES, **changes}))


def shard(change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: change(root / "model-2-of-2.safetensors")


def index_of(weight_map: object) -> Callable[[Path], object]:
    return lambda root: write_index(root, weight_map)


def config_folder(root: Path) -> None:
    (root / "config.json").unlink()
    (root / "config.json").mkdir()


def outside(root: Path) -> None:
    shutil.copy(root / "model-1-of-2.safetensors", root.parent / "x.safetensors")
    write_index(root, {"a": "../x.safetensors"})


def absolute(root: Path) -> None:
    write_index(root, {"a": str(root / "model-1-of-2.safetensors")})


def no_weights(root: Path) -> None:
    for file in root.glob("model*"):
        file.unlink()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such model folder; give the path of a Hugging Face checkpoint"),
    "no config": (lambda root: (root / "config.json").unlink(), r"config.json: cannot be read \(No such file"),
    "config is a folder": (
        config_folder,
        r"config.json: cannot be read \(Is a directory",
    ),
    "config cut short": (config_of('{"num_hidden'), "config.json: is not JSON"),
    "config not UTF-8": (config_of(b'{"a": "\xff"}'), "config.json: is not JSON"),
    "config a bomb": (config_of("[" * 100_000), "config.json: is not JSON"),
    "config a list": (config_of("[]"), "config.json: is not a JSON object"),
    "config without layers": (
        config_of('{"intermediate_size": 4}'),
        "config.json:num_hidden_layers: None is not a pos",
    ),
    "config with 0 neurons": (config_with(intermediate_size=0), "config.json:intermediate_size: 0 is not a positive"),
    "config with true layers": (config_with(num_hidden_layers=True), "num_hidden_layers: True is not a positive"),
    "config with text": (config_with(max_position_embeddings="64"), "max_position_embeddings: '64' is not a positive"),
    "text_config null": (config_with(text_config=None), "config.json:text_config: is not a JSON object"),
    "no weights": (no_weights, r"weights are missing \(\*.safetensors\)"),
    "a shard missing": (
        shard(Path.unlink),
        r"weights are missing \(model-2-of-2.safetensors\); copy the checkpoint again",
    ),
    "a shard empty": (shard(lambda file: file.write_bytes(b"")), "model-2-of-2.safetensors: is not a safetensors file"),
    "a shard of 7 bytes": (shard(lambda file: file.write_bytes(b"1234567")), "is not a safetensors file"),
    "a shard cut in its header": (shard(lambda file: os.truncate(file, 20)), "was cut short"),
    "a shard cut in its weights": (
        shard(lambda file: os.truncate(file, file.stat().st_size - 1)),
        "has 47 bytes of weights where its header names 48",
    ),
    "a shard too long": (
        shard(lambda file: file.write_bytes(file.read_bytes() + b"x")),
        "has 49 bytes of weights where its header names 48",
    ),
    "another file": (shard(lambda file: file.write_bytes(b"PK\x03\x04" + b"\0" * 99)), "is not a safetensors file"),
    "a huge header": (
        shard(lambda file: rewrite_header(file, bytes, length=2**63)),
        "is not a safetensors file, or was cut short",
    ),
    "a header of nothing": (shard(lambda file: rewrite_header(file, lambda _: b"")), "is not a safetensors file"),
    "a header of garbage": (
        shard(lambda file: rewrite_header(file, lambda header: b"\xff" * len(header))),
        "its header is damaged",
    ),
    "a header that is a list": (shard(lambda file: rewrite_header(file, lambda _: b"[1, 2]")), "its header is damaged"),
    "a header without tensors": (shard(lambda file: rewrite_header(file, lambda _: b"{}")), "its header is damaged"),
    "a header without offsets": (
        shard(lambda file: rewrite_header(file, lambda _: b'{"a": {"dtype": "F32"}}')),
        "its header is damaged",
    ),
    "a header that is a bomb": (
        shard(lambda file: rewrite_header(file, lambda _: b"[" * 100_000)),
        "its header is damaged",
    ),
    "an index without a map": (index_of(None), "index.json:weight_map: does not name the weights files"),
    "an index of numbers": (index_of({"a": 3}), "index.json:weight_map: does not name the weights files"),
    "an empty index": (index_of({}), "weights are missing"),
    "an index of a missing shard": (index_of({"a": "model-3.safetensors"}), r"are missing \(model-3.safetensors\)"),
    "an index that leads outside": (outside, "'../x.safetensors' is not a file of this folder"),
    "an index with an absolute path": (absolute, "is not a file of this folder"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_a_model_error_of_one_sentence(name: str, folder: Path):
    damage, what = DAMAGE[name]
    damage(folder)
    with pytest.raises(ModelError, match=what) as refused:
        read_checkpoint(folder)
    assert str(refused.value).startswith(str(folder))
    assert "\n" not in str(refused.value)
    assert not isinstance(refused.value.__cause__, MemoryError)


def test_any_bit_of_the_weights_or_the_config_changes_the_fingerprint(folder: Path):
    seen = {read_checkpoint(folder).fingerprint}
    for name in ("model-1-of-2.safetensors", "model-2-of-2.safetensors"):
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 1
        (folder / name).write_bytes(data)
        seen.add(read_checkpoint(folder).fingerprint)
    config_with(rope_theta=1)(folder)
    seen.add(read_checkpoint(folder).fingerprint)
    (folder / "generation_config.json").write_text("{}")
    seen.add(read_checkpoint(folder).fingerprint)
    assert len(seen) == 5


def test_neither_the_path_nor_the_tokenizer_nor_the_clock_changes_the_fingerprint(folder: Path):
    before = read_checkpoint(folder).fingerprint
    moved = folder.rename(folder.with_name("elsewhere"))
    (moved / "tokenizer.json").write_text('{"another": 1}')
    (moved / "README.md").write_text("notes")
    os.utime(moved / "model-1-of-2.safetensors", (1, 1))
    assert read_checkpoint(moved).fingerprint == before


def test_two_shards_that_change_places_are_another_model(folder: Path):
    before = read_checkpoint(folder).fingerprint
    one, two = folder / "model-1-of-2.safetensors", folder / "model-2-of-2.safetensors"
    one.rename(folder / "kept")
    two.rename(one)
    (folder / "kept").rename(two)
    assert read_checkpoint(folder).fingerprint != before


def test_the_digest_of_a_large_file_is_remembered_until_the_file_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = read_checkpoint(folder).fingerprint
    monkeypatch.setattr(checkpoint, "_CACHED_FROM_BYTES", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert read_checkpoint(folder).fingerprint == plain
    remembered = sorted((tmp_path / "cache" / "value-harvest" / "fingerprints").iterdir())
    assert len(remembered) == 4, "config, tokenizer and two shards, and no half-written file"
    assert read_checkpoint(folder).fingerprint == plain
    data = bytearray((folder / "model-1-of-2.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model-1-of-2.safetensors").write_bytes(data)
    assert read_checkpoint(folder).fingerprint != plain
