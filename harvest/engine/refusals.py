"""What the probe was never shown to read, refused by name before a model is loaded. Imports no vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harvest.engine.options import EngineOptions
from harvest.errors import ModelError
from harvest.models.checkpoint import read_checkpoint, read_config

_QUANTIZED = ("quantization_config", "compression_config")
_QUANTIZED_FILES = ("hf_quant_config.json", "quantize_config.json")
_OTHER_SENSES = ("vision_config", "audio_config")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")

_OPTIONS = {
    "quantization": "quantized layers were never shown to hand the probe the activations; leave it out",
    "quantization_config": "quantized layers were never shown to hand the probe the activations; leave it out",
    "enable_lora": "a LoRA adapter changes the model without changing its fingerprint; merge it into the weights",
    "speculative_config": "drafted tokens that are rejected would be counted; leave it out",
    "spec_method": "drafted tokens that are rejected would be counted; leave it out",
    "spec_model": "drafted tokens that are rejected would be counted; leave it out",
    "enable_dbo": "a step cut in two micro-batches is routed as one; leave it out",
}
# by vllm.LLM's own names


def refuse_unsupported(model: Path, extra: Mapping[str, object]) -> None:
    """Raises ModelError if the checkpoint, or an option that vLLM would get, is one the probe cannot be right about."""
    _refuse_options(extra)
    config = read_config(model)
    place = model / "config.json"
    _refuse_quantized(model, config)
    for field in _OTHER_SENSES:
        if field in config:
            raise ModelError(
                f"{place}:{field}: only text models were shown to be probed right, not the text part of "
                f"{_class_of(config)}; save its language model as a checkpoint of its own"
            )


def refuse_another_checkpoint(options: EngineOptions) -> None:
    """Raises ModelError unless the folder holds, at this moment, what the options name.

    A file from 256 MB on is hashed once per machine and change of it; after that its digest is remembered.
    """
    planned = {"fingerprint": options.fingerprint, "tokenizer": options.tokenizer}
    if not any(planned.values()):
        return
    found = read_checkpoint(options.model)
    for name, wanted in planned.items():
        if wanted is not None and getattr(found, name) != wanted:
            raise ModelError(
                f"{options.model}: is not the model that was planned with ({name} {getattr(found, name)}, planned "
                f"{wanted}): it was changed during the run, or this machine has another copy; make all copies alike "
                "and run the same command again"
            )


def refuse_routed_experts(model: Path) -> None:
    """Raises ModelError if the checkpoint says that it has routed experts; the loaded model has the last word."""
    config = read_config(model)
    for field in _EXPERTS:
        number = config.get(field)
        if isinstance(number, int) and number > 1:
            raise ModelError(
                f"{model / 'config.json'}:{field}: {_class_of(config)} has {number} routed experts, which compute "
                "their activations inside fused kernels, where no probe is; set model.routed_experts: skip to probe "
                "only the dense layers and shared experts"
            )


def _refuse_options(extra: Mapping[str, object]) -> None:
    for name, reason in _OPTIONS.items():
        if extra.get(name):
            raise ModelError(f"engine option {name}={extra[name]!r}: {reason}")


def _refuse_quantized(model: Path, config: Mapping[str, Any]) -> None:
    for field in _QUANTIZED:
        section = config.get(field)
        if section is not None:
            method = section.get("quant_method", "of no named method") if isinstance(section, dict) else section
            raise _quantized(f"{model / 'config.json'}:{field}", f"quantized weights ({method})")
    for name in _QUANTIZED_FILES:
        if (model / name).is_file():
            raise _quantized(str(model / name), "quantized weights")


def _quantized(place: str, what: str) -> ModelError:
    return ModelError(
        f"{place}: {what} were never shown to hand the probe the model's activations; "
        "give the checkpoint in bfloat16, float16 or float32"
    )


def _class_of(config: Mapping[str, Any]) -> str:
    """The model class that the checkpoint names."""
    classes = config.get("architectures")
    return str(classes[0]) if isinstance(classes, list) and classes else "the model"
