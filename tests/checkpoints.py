"""Small random checkpoints in Hugging Face format, made on the spot."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    Glm4MoeConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    NemotronConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Starcoder2Config,
)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write_byte_tokenizer(out: Path) -> None:
    """A byte-level tokenizer with a chat template: 256 bytes, then <s>, </s> and two role markers."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: at for at, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>", "<|user|>", "<|assistant|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(out)


@dataclass(frozen=True)
class Family:
    config: type[PretrainedConfig]
    own: dict[str, object] = field(default_factory=dict)
    # settings that the others have not
    names: dict[str, str] = field(default_factory=dict)
    # its own names of the common sizes; "" for one that it has not
    routed_from: int | None = None
    # the first layer with routed experts
    backend: str = "auto"
    # vLLM's `model_impl`
    num_neurons: int = 96


_GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32}
_GPT2_NAMES = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "num_key_value_heads": "",
    "max_position_embeddings": "n_positions",
}
_ONE_KV = {"num_key_value_heads": ""}
_MOE = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
FAMILIES: dict[str, Family] = {
    "llama": Family(LlamaConfig),
    "mistral": Family(MistralConfig, {"head_dim": 32, "sliding_window": None}),
    "qwen2": Family(Qwen2Config),
    "qwen3": Family(Qwen3Config, {"head_dim": 32}),
    "gemma2": Family(Gemma2Config, _GEMMA),
    "gemma3": Family(Gemma3TextConfig, _GEMMA),
    "phi3": Family(Phi3Config, {"pad_token_id": 0}),
    "granite": Family(GraniteConfig),
    # in place of vLLM's own class, Hugging Face's with vLLM's layers
    "llama_transformers": Family(LlamaConfig, backend="transformers"),
    "olmo2": Family(Olmo2Config, {"pad_token_id": 0}),
    "gpt_neox": Family(GPTNeoXConfig, names=_ONE_KV),
    "phi": Family(PhiConfig),
    "starcoder2": Family(Starcoder2Config, {"sliding_window": None}),
    # without a gate
    "gpt2": Family(GPT2Config, names=_GPT2_NAMES),
    "gptj": Family(GPTJConfig, {"rotary_dim": 32}, _GPT2_NAMES),
    "opt": Family(
        OPTConfig,
        {"word_embed_proj_dim": 128, "pad_token_id": 0, "init_std": 0.15},
        {"intermediate_size": "ffn_dim", **_ONE_KV},
    ),
    "falcon": Family(FalconConfig, names={"intermediate_size": "", **_ONE_KV}, num_neurons=512),
    "nemotron": Family(NemotronConfig, {"head_dim": 32}),
    # routed experts beside dense layers and shared experts
    "qwen2_moe": Family(
        Qwen2MoeConfig,
        {**_MOE, "num_experts": 4, "shared_expert_intermediate_size": 96, "mlp_only_layers": [0]},
        routed_from=1,
    ),
    "glm4_moe": Family(
        Glm4MoeConfig,
        {**_MOE, "head_dim": 32, "n_routed_experts": 4, "n_shared_experts": 3, "first_k_dense_replace": 1},
        routed_from=1,
    ),
}
MIXTRAL = Family(MixtralConfig, {"head_dim": 32, "num_local_experts": 4, "sliding_window": None}, routed_from=0)


def write_checkpoint(out: Path, family: str | Family, **sizes: int) -> Path:
    """A random checkpoint, float32: 3 layers, hidden 128, 96 neurons per layer, if not told otherwise."""
    torch.manual_seed(0)
    family = FAMILIES[family] if isinstance(family, str) else family
    shape = {
        "hidden_size": 128,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        **sizes,
    }
    named = {family.names.get(name, name): size for name, size in shape.items()}
    named.pop("", None)
    config = family.config(
        vocab_size=260,
        bos_token_id=256,
        eos_token_id=257,
        initializer_range=0.15,
        dtype="float32",
        **{**named, **family.own},
    )
    AutoModelForCausalLM.from_config(config).float().save_pretrained(out)
    write_byte_tokenizer(out)
    return out
