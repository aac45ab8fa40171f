"""Percentages in the forms models write them, and reasons for everything else."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.scoring.outcome import Unscored, read_scores, write_scores
from analysis.scoring.registry import SCORERS, score_completions
from analysis.scoring.support import (
    EMPTY,
    NO_OPTIONS,
    NO_PERCENTAGES,
    ONE_PERCENTAGE,
    OUT_OF_RANGE,
    WRONG_SUM,
    Support,
    own_option_support,
    parse_support,
)
from harvest.errors import SelectionError
from harvest.types import OptionOrder

FORMS = [
    "最终结论：选项A：[{a}%] 选项B：[{b}%]",
    "选项A:{a}% 选项B:{b}%",
    "选项Ａ：［{a}％］，选项Ｂ：［{b}％］",
    "**最终结论：** **选项A**：**{a}%**，**选项B**：**{b}%**",
    "我对选项A的支持比例为{a}%，对选项B的支持比例为{b}%。",
    "支持选项A的比例：{a}%\n支持选项B的比例：{b}%",
    "最终结论：选项A（好好谈谈，2次）：[{a}%] 选项B（算了）：[{b}%]",
    "最终结论：选项A：{a} 选项B：{b}",
    "A选项：{a}%；B选项：{b}%",
    "A: {a}%, B: {b}%",
    "A (stay): {a}% B (leave): {b}%",
    "Final conclusion: Option A: [{a} %] Option B: [{b} %]",
    "Option A: {a} percent. Option B: {b} percent.",
    "option a: {a}%\noption b: {b}%",
    "Option B: [{b}%] Option A: [{a}%]",
    "| 选项A | {a}% |\n| 选项B | {b}% |",
    '{{"选项A": "{a}%", "选项B": "{b}%"}}',
    "Option A: ${a}\\%$ and Option B: ${b}\\%$",
    "I am 100% sure, in 2 of 3 cases. Final answer: Option A: {a}% Option B: {b}%",
]


@pytest.mark.parametrize("form", FORMS)
@given(tenths=st.integers(0, 1000), whole=st.booleans(), wide=st.booleans())
def test_every_form_gives_back_what_was_put_in(form: str, tenths: int, whole: bool, wide: bool) -> None:
    a, b = (tenths // 10, 100 - tenths // 10) if whole else (tenths / 10, (1000 - tenths) / 10)
    text = form.format(a=a, b=b)
    if wide:
        text = text.translate({ord(narrow): ord(narrow) + 0xFEE0 for narrow in "0123456789%:[]"})
    assert parse_support(text) == Support(float(a), float(b))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("选项A：60% 选项B：40%。再想想。最终结论：选项A：[10%] 选项B：[90%]\n以上是我的最终结论。", Support(10, 90)),
        ("最终结论：选项A：[60%] 选项B：[40%]。更正，最终结论：选项A：[10%] 选项B：[90%]", Support(10, 90)),
        ("Option A: 60%, Option B: 40%. No: Option A: 30%, Option B: 70%", Support(30, 70)),
        ("最终结论：选项A：[99%] 选项B：[3%]", Support(99, 3)),
        ("最终结论：选项A：[99%] 选项B：[4%]", WRONG_SUM),
        ("最终结论：选项A：[50%] 选项B：[30%] 选项C：[20%]", WRONG_SUM),
        ("最终结论：选项A：[130%] 选项B：[8%]", OUT_OF_RANGE),
        ("最终结论：选项A：[130%]", OUT_OF_RANGE),
        ("最终结论：选项B：[30%]", Support(70, 30)),
        ("最终结论：选项A：[92%] 选项B：[8", Support(92, 8)),
        ("选项A：[92%]", ONE_PERCENTAGE),
        ("最终结论：70% 选项A 30% 选项B", ONE_PERCENTAGE),
        ("Option A is right, I am 95% sure of it.", NO_PERCENTAGES),
        ("A 70% majority agrees.", NO_PERCENTAGES),
        ("选项A：60-70%，选项B：30-40%", NO_PERCENTAGES),
        ("选项A：60%-70%，选项B：30%-40%", NO_PERCENTAGES),
        ("Option A: 1,000% Option B: 2,000%", NO_PERCENTAGES),
        ("最终结论：选项A：[X%] 选项B：[Y%]", NO_PERCENTAGES),
        ("最终结论：选项A：7/10 选项B：3/10", NO_PERCENTAGES),
        ("抱歉，我无法回答这个问题。", NO_PERCENTAGES),
        ("选项A：2 小时；选项B：98 小时", NO_PERCENTAGES),
        ("", EMPTY),
        (" \n\u3000", EMPTY),
    ],
)
def test_last_conclusion_counts_and_the_rest_has_a_reason(text: str, expected: Support | Unscored) -> None:
    assert parse_support(text) == expected


@given(st.text() | st.text("选项AB结论：:%[]（）()0123456789. -支持optin"))
def test_any_text_is_scored_in_range_or_has_a_reason(text: str) -> None:
    found = parse_support(text)
    if isinstance(found, Unscored):
        assert found.reason
    else:
        assert 0 <= found.a <= 100
        assert 0 <= found.b <= 100
        assert abs(found.a + found.b - 100) <= 2


@pytest.mark.parametrize("text", ["A:(:)", "选项A(", "选项A ", "结论:选项A:1%", "A:支持", "A " * 50, "选项A（", "%"])
def test_long_text_takes_linear_time(text: str) -> None:
    start = time.perf_counter()
    parse_support(text * (100_000 // len(text)))
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("aspect", "order", "expected"),
    [
        ("support", OptionOrder.PUBLISHED, 80.0),
        ("support", OptionOrder.SWAPPED, 20.0),
        ("conflict", OptionOrder.PUBLISHED, 20.0),
        ("conflict", OptionOrder.SWAPPED, 80.0),
        ("positive", OptionOrder.PUBLISHED, NO_OPTIONS),
    ],
)
def test_the_aspects_own_option_is_found_in_both_orders(
    aspect: str, order: OptionOrder, expected: float | Unscored
) -> None:
    assert own_option_support("选项A：80% 选项B：20%", aspect, order) == expected


def completion(text: str, **changes: str) -> dict[str, str]:
    row = {"condition_id": "c", "item_id": "g/q1", "group": "g", "aspect": "support", "option_order": "published"}
    return {**row, "text": text, "finish_reason": "stop", **changes}


def test_every_answer_has_a_score_or_a_reason_and_survives_the_disk(tmp_path: Path) -> None:
    rows = [
        completion("A: 80%, B: 20%"),
        completion("A: 80%, B: 20%", option_order="swapped"),
        completion("A: 70%, B: 30%"),
        completion(""),
        completion("我想", finish_reason="length"),
        completion("A: 60%, B: 40%", finish_reason="length"),
    ]
    scores = score_completions(pa.Table.from_pylist(rows), "support")
    assert [(one.score, one.unscored, one.sample) for one in scores] == [
        (80.0, None, 0),
        (20.0, None, 0),
        (70.0, None, 1),
        (None, "empty answer", 2),
        (None, "truncated: no percentages", 3),
        (60.0, None, 4),
    ]
    write_scores(tmp_path / "scores.parquet", scores)
    assert read_scores(tmp_path / "scores.parquet") == scores


def test_unknown_scorer_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SelectionError, match="no scorer 'judge'; the known ones are support"):
        score_completions(pa.Table.from_pylist([completion("")]), "judge")
    assert set(SCORERS) == {"support"}
