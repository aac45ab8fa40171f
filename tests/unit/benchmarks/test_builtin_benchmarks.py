"""The rules the built-in benchmarks are written by: the demo checkpoint answers by the lexicon's words alone."""

import re
from collections import Counter

import pytest

from harvest.benchmarks.packaged import lexicon
from harvest.benchmarks.registry import read_benchmark
from harvest.benchmarks.source import BenchmarkSource

LEXICON = lexicon()
INSIGHT_WORDS = {
    (entry["value"], aspect): entry[aspect] for entry in LEXICON["value_insight"] for aspect in ("positive", "opposing")
}


def words_in(text, words, language="en"):
    """Which of the words stand in the text: Chinese ones anywhere, English ones as whole lower-case words."""
    if language == "zh":
        return {word for word in words if word in text}
    return set(words) & set(re.findall(r"[a-z]+", text))


def test_words_belong_to_one_concept_only():
    for language in ("zh", "en"):
        words = [
            word for entry in LEXICON["c_voice"] for side in ("support", "conflict") for word in entry[language][side]
        ]
        assert max(Counter(words).values()) == 1
    assert max(Counter(word for words in INSIGHT_WORDS.values() for word in words).values()) == 1


@pytest.mark.parametrize("language", ["zh", "en"])
def test_c_voice_options_say_their_own_side_and_dilemmas_neither(language):
    items = read_benchmark(BenchmarkSource(f"builtin:c_voice.{language}"))
    entries = {entry[language]["value"]: entry[language] for entry in LEXICON["c_voice"]}
    assert Counter(item.value for item in items if item.aspect == "support") == dict.fromkeys(entries, 40)
    assert len({item.question_id for item in items}) == 160
    assert not any(item.question_id.startswith("q-") for item in items)
    assert len({item.question for item in items}) == 160
    for item in items:
        support, conflict = entries[item.value]["support"], entries[item.value]["conflict"]
        option_a, option_b = item.options
        assert words_in(option_a, support, language), item
        assert words_in(option_b, conflict, language), item
        assert not words_in(option_a.lower(), conflict, language), item
        assert not words_in(option_b.lower(), support, language), item
        assert not words_in(item.question.lower(), [*support, *conflict], language), item
        if item.aspect == "conflict":
            assert item.prized in entries[item.value]["conflict_types"], item


def test_value_insight_descriptions_say_their_own_aspect_only():
    # under several seeds every description is given to some question
    items = [
        item for seed in range(5) for item in read_benchmark(BenchmarkSource("builtin:value_insight.en", seed=seed))
    ]
    descriptions = {(item.description_id, item.value, item.aspect, item.description) for item in items}
    assert Counter((value, aspect) for _, value, aspect, _ in descriptions) == dict.fromkeys(INSIGHT_WORDS, 6)
    for name, value, aspect, text in descriptions:
        slug = value.lower().replace(" ", "-")
        assert re.fullmatch(rf"{slug}-{aspect}-0[1-6]", name)
        assert text.startswith("You ")
        assert 20 <= len(text.split()) <= 40
        assert words_in(text, INSIGHT_WORDS[value, aspect]), text
        others = [word for key, words in INSIGHT_WORDS.items() if key != (value, aspect) for word in words]
        assert not words_in(text.lower(), others), text


def test_value_insight_questions_are_open_and_say_no_aspect():
    items = read_benchmark(BenchmarkSource("builtin:value_insight.en"))
    questions = {(item.question_id, item.value, item.question) for item in items}
    assert Counter(value for _, value, _ in questions) == {entry["value"]: 40 for entry in LEXICON["value_insight"]}
    assert len({text for _, _, text in questions}) == len({name for name, _, _ in questions}) == 160
    for name, value, text in questions:
        assert re.fullmatch(rf"{value.lower().replace(' ', '-')}-q\d\d", name)
        assert 12 <= len(text.split()) <= 30
        assert text.endswith("?")
        assert not words_in(text.lower(), [word for words in INSIGHT_WORDS.values() for word in words]), text
