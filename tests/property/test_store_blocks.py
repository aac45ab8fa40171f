"""Asking one question more re-keys the blocks around it and no other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harvest.store.key import question_blocks
from harvest.types import question_bits

IDS = st.sets(st.text(max_size=8), max_size=300) | st.integers(1, 2000).map(lambda num: {f"q{i}" for i in range(num)})


def _stretches(ids: set[str]) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """The blocks, gathered into stretches that end with a question whose hash closes a block."""
    stretches, open_blocks = [], []
    for block in question_blocks(ids):
        open_blocks.append(block)
        if question_bits(block[-1]) % 32 == 0:
            stretches.append(open_blocks)
            open_blocks = []
    return {sum(blocks, ()): blocks for blocks in [*stretches, open_blocks]}


@given(IDS)
def test_blocks_hold_every_question_once_in_hash_order(ids: set[str]):
    blocks = question_blocks(ids)
    assert sum(blocks, ()) == tuple(sorted(ids, key=lambda one: (question_bits(one), one)))
    assert all(1 <= len(block) <= 64 for block in blocks)


@given(IDS, st.text(max_size=8))
def test_a_new_question_changes_blocks_only_between_two_closing_hashes(ids: set[str], new: str):
    before, after = _stretches(ids - {new}), _stretches(ids | {new})
    changed = [stretch for stretch in after if before.get(stretch) != after[stretch]]
    # the stretch it falls into; two, if it closes one itself
    assert len(changed) <= 1 + (question_bits(new) % 32 == 0)
    assert any(new in stretch for stretch in changed)
