"""Small random checkpoints in Hugging Face format, made on the spot."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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


def write_tiny_llama(out: Path, seed: int = 0, **sizes: int) -> Path:
    """A random Llama, float32, 4096 positions: 3 layers, hidden 128, 96 neurons per layer, if not told otherwise."""
    torch.manual_seed(seed)
    shape = {"hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, **sizes}
    config = LlamaConfig(
        vocab_size=260,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=256,
        eos_token_id=257,
        initializer_range=0.15,
        dtype="float32",
        **shape,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    write_byte_tokenizer(out)
    return out
