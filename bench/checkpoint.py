"""Random Llama checkpoints of a given shape in bfloat16, that never end an answer early."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

_TESTS = Path(__file__).parent.parent / "tests"

_VOCABULARY, _BOS, _EOS = 260, 256, 257
# the tests' tokenizer: 256 bytes and four special tokens


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's sizes."""

    name: str
    hidden: int
    neurons: int
    # of one layer, F
    layers: int
    heads: int
    kv_heads: int = 2

    @property
    def mlp_parameters(self) -> int:
        """Of one layer: gate, up and down."""
        return 3 * self.hidden * self.neurons

    @property
    def attention_parameters(self) -> int:
        """Of one layer: query and output, key and value."""
        return 2 * self.hidden**2 * (self.heads + self.kv_heads) // self.heads

    @property
    def layer_parameters(self) -> int:
        """The matrices that each token goes through."""
        return self.mlp_parameters + self.attention_parameters


TINY = Shape("tiny", hidden=64, neurons=96, layers=2, heads=2)
# for a look at the bench itself
SMALL = Shape("3M", hidden=256, neurons=704, layers=4, heads=8)
LARGE = Shape("95M", hidden=768, neurons=2816, layers=12, heads=12)
SHAPES = {shape.name: shape for shape in (TINY, SMALL, LARGE)}


def write_checkpoint(out: Path, shape: Shape) -> int:
    """The number of parameters of the checkpoint written into `out`.

    The end token's logit is 0 whatever the text, and among 260 random logits there is always a greater one: every
    answer is as long as it may be.
    """
    if str(_TESTS) not in sys.path:
        sys.path.append(str(_TESTS))
    tokenizer = import_module("checkpoints")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=shape.hidden,
        intermediate_size=shape.neurons,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096,
        bos_token_id=_BOS,
        eos_token_id=_EOS,
        dtype="bfloat16",
    )
    model = LlamaForCausalLM(config).bfloat16()
    with torch.no_grad():
        model.lm_head.weight[_EOS] = 0
    model.save_pretrained(out)
    tokenizer.write_byte_tokenizer(out)
    return int(model.num_parameters())
