"""Items become token ids: their message through the model's own chat template, once, unpadded."""

from __future__ import annotations

from pathlib import Path

from jinja2 import TemplateError

from harvest.errors import ModelError, PromptError
from harvest.prompts.message import PromptKind, message
from harvest.types import Item, OptionOrder, Prompt


class Renderer:
    """Renders items for one model."""

    def __init__(self, model: Path, max_model_len: int, max_tokens: int) -> None:
        """Raises ModelError if the tokenizer cannot be read or has no chat template."""
        # imported here: transformers brings torch, and most commands need neither
        from transformers import AutoTokenizer

        self._limit = max_model_len - max_tokens
        self._max_tokens = max_tokens
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True, trust_remote_code=False)
        except Exception as error:
            # the tokenizers library raises nothing narrower for a damaged tokenizer.json
            raise ModelError(
                f"{model}: its tokenizer cannot be read ({_first_line(error)}); copy the checkpoint again"
            ) from error
        if not self._tokenizer.chat_template:
            raise ModelError(f"{model}: its tokenizer has no chat template; use an instruction-tuned checkpoint")

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends an answer."""
        return self._tokenizer.eos_token_id

    def render(self, item: Item, kind: PromptKind, order: OptionOrder) -> Prompt:
        """The prompt's token ids, as the chat template renders them, with the start of the answer asked for.

        Raises PromptError if prompt and longest answer do not fit the context together.
        """
        messages = [{"role": "user", "content": message(item, kind, order)}]
        try:
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except (TemplateError, TypeError) as error:
            raise PromptError(
                f"{item.item_id}: the model's chat template refuses the prompt ({_first_line(error)})"
            ) from error
        # the template writes the special tokens itself: adding them again would start the text with two BOS
        token_ids = tuple(self._tokenizer.encode(text, add_special_tokens=False))
        if len(token_ids) > self._limit:
            raise PromptError(
                f"{item.item_id}: the prompt has {len(token_ids)} tokens and the answer may have {self._max_tokens}, "
                f"more than the context of {self._limit + self._max_tokens}; raise model.max_model_len or lower "
                "respond.max_tokens"
            )
        return Prompt(item.item_id, item.group, item.question_id, order, token_ids)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
