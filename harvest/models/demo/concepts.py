"""The concepts that the demo model knows, as the built-in lexicon lists them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

LEXICON = files("harvest").joinpath("benchmarks/builtin/lexicon.json")


@dataclass(frozen=True, slots=True)
class Concept:
    """One aspect of one value: what it is called and the words that speak for it."""

    groups: tuple[str, ...]
    # the groups that ask under this aspect, one per language
    words: dict[str, tuple[str, ...]]
    # per language, in the order in which an answer uses them


def concepts() -> tuple[Concept, ...]:
    """Every (value, aspect) of the lexicon; the languages of one aspect are one concept."""
    lexicon = json.loads(LEXICON.read_text(encoding="utf-8"))
    dilemmas = [
        Concept(
            groups=tuple(f"c_voice.{language}/{entry[language]['value']}/{aspect}" for language in entry),
            words={language: tuple(entry[language][aspect]) for language in entry},
        )
        for entry in lexicon["c_voice"]
        for aspect in ("support", "conflict")
    ]
    descriptions = [
        Concept(groups=(f"value_insight.en/{entry['value']}/{aspect}",), words={"en": tuple(entry[aspect])})
        for entry in lexicon["value_insight"]
        for aspect in ("positive", "opposing")
    ]
    return (*dilemmas, *descriptions)
