"""What the user says to the model: an item in the words of `templates`."""

from __future__ import annotations

from enum import StrEnum

from harvest.errors import PromptError
from harvest.prompts.templates import TEMPLATES
from harvest.types import Item, OptionOrder


class PromptKind(StrEnum):
    ROLE = "role"
    # the speaker is raised to prize the item's aspect
    NEUTRAL = "neutral"


def message(item: Item, kind: PromptKind, order: OptionOrder) -> str:
    """What the user says to the model.

    Raises PromptError if there is no template for the item's benchmark and language.
    """
    template_format = "value_insight" if item.options is None else "c_voice"
    template = TEMPLATES.get((template_format, item.language, kind.value))
    if template is None:
        known = ", ".join(sorted({language for name, language, _ in TEMPLATES if name == template_format}))
        raise PromptError(f"{item.item_id}: no {kind} prompt for language {item.language!r}; known are {known}")
    shown = item.options or ("", "")
    option_a, option_b = shown if order is OptionOrder.PUBLISHED else shown[::-1]
    return template.format(
        prized=item.prized, description=item.description, question=item.question, option_a=option_a, option_b=option_b
    )
