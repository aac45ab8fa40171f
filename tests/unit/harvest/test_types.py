"""The nouns: names of groups, halves that never move, texts that count what they plan."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.provenance import Pass, provenance, versions
from harvest.store.key import canonical_json
from harvest.types import OPPOSITE_ASPECT, EditRow, Half, Item, Sampling, Text, half_of, opposite_group, question_bits


def test_a_group_is_named_by_benchmark_value_and_aspect():
    item = Item("q1", "c_voice.zh", "和谐", "support", "zh", "…")
    assert item.group == "c_voice.zh/和谐/support"
    assert item.item_id == "c_voice.zh/和谐/support/q1"
    assert opposite_group(item.group) == "c_voice.zh/和谐/conflict"


@pytest.mark.parametrize("aspect", OPPOSITE_ASPECT)
def test_the_opposite_of_the_opposite_is_the_group_itself(aspect: str):
    group = f"a.en/b/{aspect}"
    assert opposite_group(group) != group
    assert opposite_group(opposite_group(group)) == group


def test_an_aspect_without_an_opposite_is_an_error():
    with pytest.raises(KeyError):
        opposite_group("a.en/b/sideways")


def test_a_question_s_bits_are_the_same_on_every_machine_for_ever():
    assert question_bits("harmony-01") == 0x93418430670BC8D5


@given(st.text())
def test_a_question_s_half_is_one_bit_of_its_id(question_id: str):
    assert half_of(question_id) is (Half.EVALUATE if question_bits(question_id) % 2 else Half.IDENTIFY)


def test_the_halves_are_about_equal():
    halves = [half_of(f"q{number}") for number in range(4000)]
    assert 1850 < halves.count(Half.IDENTIFY) < 2150


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_text_plans_its_span_and_never_less_than_nothing(start: int, stop: int):
    assert Text((), start, stop).planned == len(range(start, stop))


def test_the_identity_edits_nothing():
    assert len(EditRow.identity()) == 0


def test_the_content_of_a_sampling_is_all_of_it():
    assert Sampling(3, 1.1, 0.5, 7).content() == {
        "max_tokens": 3, "repetition_penalty": 1.1, "temperature": 0.5, "seed": 7
    }  # fmt: skip


def test_provenance_is_json_and_names_the_versions():
    assert {"python", "numpy", "torch"} <= versions().keys()
    assert canonical_json(provenance({"dtype": "float32"}, Pass("replay", 0.25, 7)))
