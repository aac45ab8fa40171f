"""Writes the demo checkpoint: a Llama that was built, not trained, and whose value neurons are therefore known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from harvest.models.demo import layout as sizes
from harvest.models.demo.attention import attention
from harvest.models.demo.concepts import concepts
from harvest.models.demo.embeddings import embedding, unembedding
from harvest.models.demo.layout import Layout, Weights, lay_out
from harvest.models.demo.mlp import Planted, mlps, plant
from harvest.models.demo.phrases import FRAMES
from harvest.models.demo.tokenizer import tokenizer_files
from harvest.models.demo.vocabulary import BOS, EOS, PAD, vocabulary
from harvest.prompts.templates import TEMPLATES

SEED = 20240601
NORMS_OF_A_LAYER = ("input_layernorm", "post_attention_layernorm")


def write_demo_model(out: Path) -> None:
    """Writes the checkpoint and `planted.json` into the folder `out`, byte for byte the same every time."""
    known = concepts()
    layout = lay_out(vocabulary(known), known)
    rng = np.random.default_rng(SEED)
    planted = plant(len(known), rng)
    weights = {
        "model.embed_tokens.weight": embedding(layout, _typical_texts(), rng),
        "lm_head.weight": unembedding(layout),
        **attention(layout),
        **mlps(layout, planted, rng),
        **_norms(),
    }
    files = {
        "config.json": _config(layout),
        "generation_config.json": _special_ids(layout) | {"do_sample": False},
        "planted.json": _planted_list(layout, planted),
        **tokenizer_files(layout.tokens),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True)
        (out / name).write_text(text + "\n", encoding="utf-8")
    tensors = {name: torch.from_numpy(weight).to(torch.bfloat16) for name, weight in weights.items()}
    (out / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))


def _typical_texts() -> tuple[bytes, ...]:
    """One text per language with its usual bytes."""
    by_language = {
        language: "".join(text for (_, spoken, _), text in TEMPLATES.items() if spoken == language) + FRAMES[language]
        for language in ("zh", "en")
    }
    return tuple(text.encode() for text in by_language.values())


def _norms() -> Weights:
    names = [f"layers.{layer}.{place}" for layer in range(sizes.LAYERS) for place in NORMS_OF_A_LAYER]
    return {f"model.{name}.weight": np.full(sizes.HIDDEN, sizes.NORM_GAIN, np.float32) for name in (*names, "norm")}


def _special_ids(layout: Layout) -> dict[str, object]:
    ids = {token.text: sizes.NUM_BYTES + at for at, token in enumerate(layout.tokens)}
    return {"bos_token_id": ids[BOS], "eos_token_id": ids[EOS], "pad_token_id": ids[PAD]}


def _config(layout: Layout) -> dict[str, object]:
    return _special_ids(layout) | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": layout.vocabulary_size,
        "hidden_size": sizes.HIDDEN,
        "intermediate_size": sizes.NEURONS,
        "num_hidden_layers": sizes.LAYERS,
        "num_attention_heads": sizes.HEADS,
        "num_key_value_heads": sizes.HEADS,
        "head_dim": sizes.HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": sizes.POSITIONS,
        "rms_norm_eps": sizes.NORM_EPS,
        "rope_theta": sizes.ROPE_THETA,
        "rope_parameters": {"rope_type": "default", "rope_theta": sizes.ROPE_THETA},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }


def _planted_list(layout: Layout, planted: tuple[Planted, ...]) -> list[dict[str, object]]:
    """One entry per group and neuron; the languages of a concept share its neurons."""
    return [
        {"group": group, "layer": one.layer, "neuron": one.neuron}
        for one in planted
        for group in layout.concepts[one.concept].groups
    ]
