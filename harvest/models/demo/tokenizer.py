"""The demo model's tokenizer: bytes without merges, and whole tokens for what the model knows."""

from __future__ import annotations

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from harvest.models.demo.layout import NUM_BYTES, POSITIONS
from harvest.models.demo.vocabulary import ASSISTANT, BOS, EOS, PAD, SPECIAL, USER, Token

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    f"{{% if message['role'] == 'user' %}}{USER}{{{{ message['content'] }}}}"
    f"{{% elif message['role'] == 'assistant' %}}{ASSISTANT}{{{{ message['content'] }}}}{{{{ eos_token }}}}"
    "{% else %}{{ raise_exception('the demo model takes user and assistant turns only') }}{% endif %}"
    f"{{% endfor %}}{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)


def build_tokenizer(tokens: tuple[Token, ...]) -> Tokenizer:
    """A byte-level tokenizer in which `tokens` follow the 256 bytes; encoding begins with BOS unless told not to."""
    tokenizer = Tokenizer(models.BPE(vocab=_byte_ids(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    for token in tokens:
        special = token.text in SPECIAL
        # an English word is a word of the lexicon only where it stands alone
        alone = token.concept is not None and token.text.isascii()
        added = AddedToken(token.text, single_word=alone, special=special, normalized=False)
        tokenizer.add_special_tokens([added]) if special else tokenizer.add_tokens([added])
    assert tokenizer.get_vocab_size() == NUM_BYTES + len(tokens)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def _byte_ids() -> dict[str, int]:
    """The byte-level alphabet's symbol of each byte, in the order of the bytes: a token id below 256 is its byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(NUM_BYTES) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    symbols |= {byte: chr(NUM_BYTES + at) for at, byte in enumerate(hidden)}
    return {symbols[byte]: byte for byte in range(NUM_BYTES)}


def tokenizer_files(tokens: tuple[Token, ...]) -> dict[str, object]:
    """The contents of tokenizer.json and tokenizer_config.json."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": POSITIONS,
    }
    return {"tokenizer.json": json.loads(build_tokenizer(tokens).to_str()), "tokenizer_config.json": settings}
