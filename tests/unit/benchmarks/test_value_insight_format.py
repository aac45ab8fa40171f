import json
from collections import Counter

import pytest

from harvest.benchmarks.registry import faults, groups, read_benchmark
from harvest.benchmarks.source import BenchmarkSource
from harvest.benchmarks.value_insight import description_index
from harvest.types import Half, half_of


def description(aspect, number=1, dimension="Calm", **more):
    text = f"You are {aspect}, variant {number}."
    return {
        "kind": "description",
        "id": f"{aspect}{number}",
        "dimension": dimension,
        "aspect": aspect,
        "text": text,
    } | more


def question(number=1, dimension="Calm", **more):
    return {"kind": "question", "id": f"q{number}", "dimension": dimension, "text": f"What of {number}?"} | more


PAIR = [description("positive"), description("opposing")]


@pytest.fixture
def written(tmp_path):
    def write(*lines, **entry):
        path = tmp_path / "insight.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        return BenchmarkSource(str(path), **entry)

    return write


def test_a_question_is_asked_of_both_persons_with_the_same_index(written):
    lines = [description(aspect, number) for number in range(5) for aspect in ("positive", "opposing")]
    items = read_benchmark(written(*lines, *(question(number) for number in range(30))))
    assert groups(items) == {f"value_insight.en/Calm/{aspect}": 30 for aspect in ("positive", "opposing")}
    for positive, opposing in zip(items[::2], items[1::2], strict=True):
        assert positive.question_id == opposing.question_id
        assert positive.description_id.removeprefix("positive") == opposing.description_id.removeprefix("opposing")
        assert positive.description == f"You are positive, variant {positive.description_id[-1]}."
        assert positive.question == opposing.question
        assert (positive.options, positive.prized) == (None, "")


def test_the_seed_moves_the_choice_and_nothing_else_does(written):
    lines = [*PAIR, *(description(aspect, 2) for aspect in ("positive", "opposing")), *map(question, range(20))]
    chosen = [[item.description_id for item in read_benchmark(written(*lines, seed=seed))] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    with_one_less = read_benchmark(written(*lines[:-1]))
    assert [item.description_id for item in with_one_less] == chosen[0][:-2]


def test_the_choice_of_description_is_even_and_blind_to_the_halves():
    ids = [f"q{number}" for number in range(4000)]
    for half in (Half.IDENTIFY, Half.EVALUATE):
        counts = Counter(description_index(name, 0, 4) for name in ids if half_of(name) is half)
        assert sorted(counts) == [0, 1, 2, 3]
        # 500 expected of each, with a standard deviation of 19
        assert all(abs(count - 500) < 100 for count in counts.values())


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ([description("positive"), question()], "Calm has 1 positive and 0 opposing descriptions"),
        ([*PAIR, description("positive", 2), question()], "Calm has 2 positive and 1 opposing descriptions"),
        (PAIR, "Calm has no questions"),
        ([question()], "Calm has 0 positive and 0 opposing descriptions"),
        ([*PAIR, question(), description("neutral")], "aspect is 'neutral'"),
        ([*PAIR, question(), question(kind="rumour")], "kind is 'rumour'"),
        ([*PAIR, question(), question(2, text="")], "text is blank"),
        ([*PAIR, question(), question()], "id 'q1' is used twice for Calm"),
        ([*PAIR, question(), description("positive"), description("opposing", 3)], "id 'positive1' is used twice"),
        ([*PAIR, question(dimension="a/b")], "dimension 'a/b' contains '/'"),
    ],
)
def test_each_fault_is_named(written, lines, what):
    assert any(fault.what.startswith(what) for fault in faults(written(*lines)))


def test_questions_without_ids_get_ids_of_their_contents(written):
    nameless = question()
    del nameless["id"]
    (item, _) = read_benchmark(written(*PAIR, nameless))
    assert item.question_id.startswith("q-")


def test_the_language_is_the_entrys_or_the_lines_or_english(written):
    assert read_benchmark(written(*PAIR, question()))[0].language == "en"
    assert read_benchmark(written(*PAIR, question(), language="de"))[0].benchmark == "value_insight.de"
    assert read_benchmark(written(*PAIR, question(language="fr")))[0].language == "fr"
