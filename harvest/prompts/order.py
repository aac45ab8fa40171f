"""Which option of a dilemma is shown as A."""

from __future__ import annotations

from enum import StrEnum

from harvest.types import Item, OptionOrder, question_bits


class OrderRule(StrEnum):
    PUBLISHED = "published"
    BALANCED = "balanced"
    # a hash-chosen half of the questions has its options swapped, the same half under both aspects


def option_order(item: Item, rule: OrderRule) -> OptionOrder:
    """The order of an item's options under a rule; an open question keeps the published order."""
    swapped = rule is OrderRule.BALANCED and item.options is not None and question_bits(item.question_id) >> 1 & 1
    return OptionOrder.SWAPPED if swapped else OptionOrder.PUBLISHED
