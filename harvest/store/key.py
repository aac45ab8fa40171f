"""Names that come from content: the same content has the same name on every machine. Pure.

User text is hashed, never spelled out in a name, so no id can lead outside the store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b

from harvest.types import question_bits

KINDS = frozenset({"answers", "moments", "rows", "histogram", "maxima"})
MAX_BLOCK = 64
# questions
CLOSE_EVERY = 32
# a question closes its block where its hash is a multiple of this
_DIGEST = re.compile(r"[0-9a-f]{40}")
_UNIT = re.compile(rf"({'|'.join(sorted(KINDS))})-[0-9a-f]{{40}}")


def canonical_json(obj: object) -> bytes:
    """The one spelling of a JSON value: sorted keys, no whitespace, UTF-8; a tuple is a list.

    Raises ValueError on NaN, infinities and lone surrogates, TypeError on anything JSON has no type for.
    """
    _refuse_odd_keys(obj)
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _refuse_odd_keys(obj: object) -> None:
    # json.dumps turns 1, True and None into strings when they are keys: {1: x} and {"1": x} would be one name
    if isinstance(obj, dict):
        for key, value in obj.items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} of {type(key).__name__}: JSON keys are strings")
            _refuse_odd_keys(value)
    elif isinstance(obj, list | tuple):
        for value in obj:
            _refuse_odd_keys(value)


def digest(obj: object) -> str:
    """40 hex digits: blake2b of the value's canonical JSON."""
    return blake2b(canonical_json(obj), digest_size=20).hexdigest()


def is_digest(name: str) -> bool:
    """Whether a text is a hash that digest gives."""
    return _DIGEST.fullmatch(name) is not None


def unit_name(kind: str, content: Mapping[str, object]) -> str:
    """The unit's name and key, e.g. "moments-3f2a…"; raises ValueError on a kind that is not one of KINDS."""
    if kind not in KINDS:
        raise ValueError(f"unit kind {kind!r}: use one of {', '.join(sorted(KINDS))}")
    return f"{kind}-{digest(dict(content))}"


def is_unit(name: str) -> bool:
    """Whether a text is a name that unit_name gives."""
    return _UNIT.fullmatch(name) is not None


def question_blocks(question_ids: Iterable[str]) -> list[tuple[str, ...]]:
    """Distinct questions in hash order, cut where the content says so; a new question moves only cuts near it.

    A block ends with a question whose hash is a multiple of CLOSE_EVERY, or at MAX_BLOCK questions.
    """
    blocks: list[tuple[str, ...]] = []
    block: list[str] = []
    for bits, question_id in sorted((question_bits(one), one) for one in question_ids):
        block.append(question_id)
        if bits % CLOSE_EVERY == 0 or len(block) == MAX_BLOCK:
            blocks.append(tuple(block))
            block = []
    return [*blocks, tuple(block)] if block else blocks
