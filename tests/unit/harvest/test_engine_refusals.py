"""What the probe cannot be right about is refused by name before a model is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from harvest.engine.options import EngineOptions
from harvest.engine.refusals import refuse_another_checkpoint, refuse_routed_experts, refuse_unsupported
from harvest.errors import ModelError
from harvest.models.checkpoint import read_checkpoint

CONFIG = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}


def folder(root: Path, files: tuple[str, ...] = (), **config: object) -> Path:
    (root / "config.json").write_text(json.dumps({**CONFIG, **config}))
    for name in files:
        (root / name).write_text("{}")
    return root


def test_a_dense_text_model_is_taken(tmp_path: Path):
    model = folder(tmp_path, quantization_config=None, num_local_experts=0, num_experts=1)
    refuse_unsupported(model, {"model_impl": "transformers", "enable_lora": False})
    refuse_routed_experts(model)


@pytest.mark.parametrize("method", ["fp8", "awq", "gptq", "bitsandbytes", "compressed-tensors"])
def test_quantized_weights_are_refused_by_method(method: str, tmp_path: Path):
    with pytest.raises(ModelError, match=rf"config.json:quantization_config: quantized weights \({method}\) .*; give "):
        refuse_unsupported(folder(tmp_path, quantization_config={"quant_method": method, "bits": 4}), {})


@pytest.mark.parametrize(
    ("files", "config", "message"),
    [
        (("hf_quant_config.json",), {}, "hf_quant_config.json: quantized weights were never shown"),
        (("quantize_config.json",), {}, "quantize_config.json: quantized weights were never shown"),
        ((), {"compression_config": {}}, r"config.json:compression_config: quantized weights \(of no named method\)"),
        (("adapter_config.json",), {}, "adapter_config.json: a LoRA adapter is not a model; merge it"),
        ((), {"vision_config": {}}, "config.json:vision_config: only text models .*part of LlamaForCausalLM; save"),
        ((), {"audio_config": {}, "architectures": None}, "config.json:audio_config: only text models .*the model;"),
    ],
)
def test_a_checkpoint_that_was_never_shown_is_refused(
    files: tuple[str, ...], config: dict[str, object], message: str, tmp_path: Path
):
    with pytest.raises(ModelError, match=message) as refused:
        refuse_unsupported(folder(tmp_path, files, **config), {})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("quantization", "fp8"),
        ("enable_lora", True),
        ("speculative_config", {"method": "ngram", "num_speculative_tokens": 2}),
        ("enable_dbo", True),
    ],
)
def test_an_engine_option_that_breaks_the_count_is_refused(option: str, value: object, tmp_path: Path):
    with pytest.raises(ModelError, match=f"^engine option {option}=.*: .*; "):
        refuse_unsupported(folder(tmp_path), {option: value})


@pytest.mark.parametrize("field", ["num_experts", "num_local_experts", "n_routed_experts"])
def test_routed_experts_are_refused_from_the_config(field: str, tmp_path: Path):
    message = f"config.json:{field}: MixtralForCausalLM has 8 routed experts, .*; set model.routed_experts: skip"
    with pytest.raises(ModelError, match=message):
        refuse_routed_experts(folder(tmp_path, architectures=["MixtralForCausalLM"], **{field: 8}))


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        ({"model_type": "gpt2", "n_layer": 3, "n_embd": 8, "n_inner": None, "n_positions": 64}, (3, 32, 64)),
        ({"model_type": "gpt2", "n_layer": 3, "n_embd": 8, "n_inner": 12, "n_positions": 64}, (3, 12, 64)),
        (
            {"model_type": "opt", "num_hidden_layers": 2, "ffn_dim": 24, "max_position_embeddings": 32},
            (2, 24, 32),
        ),
    ],
)
def test_sizes_are_read_under_the_families_own_names(
    config: dict[str, object], sizes: tuple[int, int, int], tmp_path: Path
):
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"a": np.zeros(2)}, tmp_path / "model.safetensors")
    found = read_checkpoint(tmp_path)
    assert (found.num_layers, found.num_neurons, found.max_positions) == sizes


def test_an_adapter_s_folder_is_no_checkpoint(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"adapter_config.json: a LoRA adapter is not a model; merge it into"):
        read_checkpoint(tmp_path)


def test_a_checkpoint_that_is_not_the_planned_one_is_refused_whatever_was_changed(tiny_llama: Path, tmp_path: Path):
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    planned = read_checkpoint(model)
    options = EngineOptions(model, fingerprint=planned.fingerprint, tokenizer=planned.tokenizer)
    refuse_another_checkpoint(options)
    for name, what in (("model.safetensors", "fingerprint"), ("tokenizer.json", "tokenizer")):
        data = (model / name).read_bytes()
        changed = bytearray(data)
        changed[-1] ^= 1
        (model / name).write_bytes(changed)
        with pytest.raises(ModelError, match=rf"is not the model that was planned with \({what} [0-9a-f]+, planned"):
            refuse_another_checkpoint(options)
        refuse_another_checkpoint(EngineOptions(model))
        (model / name).write_bytes(data)
    refuse_another_checkpoint(options)
