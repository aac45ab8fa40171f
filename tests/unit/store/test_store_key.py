"""Names come from content alone, and user text never reaches a path."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from harvest.store.key import canonical_json, digest, is_unit, question_blocks, unit_name
from harvest.types import question_bits


def test_the_order_of_keys_and_the_kind_of_sequence_do_not_matter():
    assert canonical_json({"b": (1, 2), "a": "和谐"}) == '{"a":"和谐","b":[1,2]}'.encode()
    assert digest({"b": (1, 2), "a": 0.5}) == digest({"a": 0.5, "b": [1, 2]})


@pytest.mark.parametrize("obj", [{1: "a"}, {"a": {None: 1}}, [{True: 1}], {"a": {1}}, b"a", np.float32(1), object()])
def test_what_json_has_no_type_for_is_refused(obj: object):
    with pytest.raises(TypeError):
        canonical_json(obj)


@pytest.mark.parametrize("obj", [math.nan, [math.inf], {"a": -math.inf}, "\ud800"])
def test_what_has_no_one_spelling_is_refused(obj: object):
    with pytest.raises(ValueError, match=r"JSON|surrogates"):
        canonical_json(obj)


@pytest.mark.parametrize("kind", ["", "..", "moments/x", "/abs", "Moments", "moments\0", "und\u202eef", "m" * 4096])
def test_no_kind_leads_outside_the_store(kind: str):
    with pytest.raises(ValueError, match="unit kind"):
        unit_name(kind, {})


def test_odd_ids_give_distinct_plain_names():
    ids = ["..", "../x", "/abs", "a\0", "a", "%2e%2e", "\u202eabc", "q" * 4096, "q" * 4095, "é", "e\u0301", ""]
    names = {unit_name("rows", {"question": each}) for each in ids}
    assert len(names) == len(ids)
    assert all(is_unit(name) and name.isascii() and len(name) == 45 for name in names)


def test_the_name_is_the_same_in_another_process():
    code = "from harvest.store.key import unit_name; print(unit_name('moments', {'z': 1, 'a': ['和', 0.1]}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == unit_name("moments", {"a": ["和", 0.1], "z": 1})


def test_blocks_are_in_hash_order_and_close_where_the_hash_says_or_at_64():
    blocks = question_blocks(f"q{index}" for index in range(1000))
    assert [each for block in blocks for each in block] == sorted(
        (f"q{index}" for index in range(1000)), key=question_bits
    )
    assert all(question_bits(block[-1]) % 32 == 0 or len(block) == 64 for block in blocks[:-1])
    assert all(question_bits(each) % 32 for block in blocks for each in block[:-1])
    assert max(map(len, blocks)) == 64
    assert question_blocks([]) == []
