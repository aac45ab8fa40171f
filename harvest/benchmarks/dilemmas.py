"""A dilemma between two options, and the two items it is asked as."""

from __future__ import annotations

from dataclasses import dataclass

from harvest.types import Item


@dataclass(frozen=True, slots=True)
class Dilemma:
    """A value against a conflicting one; option A is the value's, option B the other's."""

    value: str
    conflict: str
    dilemma: str
    option_a: str
    option_b: str

    @property
    def is_whole(self) -> bool:
        return bool(self.value and self.conflict and self.dilemma and self.option_a and self.option_b)

    @property
    def contents(self) -> tuple[str, str, str, str]:
        """What the question's id is made from, besides the value."""
        return self.conflict, self.dilemma, self.option_a, self.option_b

    def items(self, benchmark: str, language: str, question_id: str) -> tuple[Item, Item]:
        """The dilemma asked of one raised to prize the value, and of one raised to prize the conflicting value."""

        def item(aspect: str, prized: str) -> Item:
            return Item(
                question_id=question_id,
                benchmark=benchmark,
                value=self.value,
                aspect=aspect,
                language=language,
                question=self.dilemma,
                prized=prized,
                options=(self.option_a, self.option_b),
            )

        return item("support", self.value), item("conflict", self.conflict)
