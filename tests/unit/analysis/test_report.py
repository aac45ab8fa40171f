"""The report: right numbers, one offline file, and text that stays text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from analysis.effects import SetEffect, Shift
from analysis.neurons.neuron_set import NeuronSet
from analysis.report.examples import Answer, Example, pick_examples
from analysis.report.figure import figure_of
from analysis.report.headline import format_table
from analysis.report.page import render
from analysis.report.summary import BenchmarkFacts, RunFacts, summarise
from analysis.scoring.outcome import Score
from harvest.types import Item, OptionOrder, question_bits

FACTS = RunFacts(
    title="Demo study",
    model="models/demo",
    fingerprint="0123abcd",
    benchmarks=(BenchmarkFacts("b.zh", "built-in", 32),),
    num_items=64,
    num_tokens=12345,
    num_answers=256,
    split=True,
    prompt="role",
    phase="both",
    versions={"vllm": "0.32.0"},
)
NASTY = "<script>alert(1)</script></style>{{7*7}}{% raw %}\"'><img src=x onerror=alert(1)>\u202eabc\nשלום"


def make_set(group: str, neurons: list[int], draw: int = -1) -> NeuronSet:
    size = len(neurons)
    values = np.linspace(0.9, 0.5, size)
    set_id = f"{group}|probability"
    return NeuronSet(
        set_id if draw < 0 else f"{set_id}|control-{draw}",
        group,
        "probability" if draw < 0 else "control",
        np.ones(size, np.int32),
        np.array(neurons, np.int32),
        values,
        values,
        values,
        draw,
        "" if draw < 0 else set_id,
        {"rate_gap": np.linspace(0, 0.02, size)} if draw >= 0 else {},
    )


def make_shift(name: str, shift: float, draw: int = -1, num_items: int = 8) -> Shift:
    return Shift(name, draw, num_items, 1, 18, 2, 90.0, 90.0 - shift, shift, shift - 3, shift + 3)


def make_effect(group: str, shift: float = 45.0) -> SetEffect:
    set_id = f"{group}|probability"
    controls = tuple(make_shift(f"{set_id}|control-{at}|cut-zero", 0.5 * at - 1, at) for at in range(3))
    return SetEffect(set_id, group, "zero", f"{group}|none", 1, make_shift(f"{set_id}|cut-zero", shift), controls)


GROUPS = ["b.zh/和谐/support", "b.zh/和谐/conflict"]


def make_summary(groups: list[str] = GROUPS, planted: bool = True) -> dict[str, Any]:
    sets = [make_set(group, [1, 2, 3, 4]) for group in groups]
    sets += [make_set(group, [7, 8, 9, 10], draw) for group in groups for draw in range(3)]
    truth = {groups[0]: {(1, 1), (1, 2), (1, 3), (1, 99)}} if planted else None
    return summarise(FACTS, sets, [make_effect(group) for group in groups], truth)


def test_summary_has_the_headline_numbers_and_is_json() -> None:
    summary = make_summary()
    first, second = json.loads(json.dumps(summary, allow_nan=False))["headline"]
    assert (first["k"], first["planted"], first["hits"], first["precision"], first["recall"]) == (4, 4, 3, 0.75, 0.75)
    assert (first["baseline_support"], first["support_after"], first["shift"]) == (90.0, 45.0, 45.0)
    assert first["interval"] == [42.0, 48.0]
    assert [one["shift"] for one in first["controls"]] == [-1.0, -0.5, 0.0]
    assert (first["largest_control"], first["largest_rate_gap"]) == (1.0, 0.02)
    assert first["unscored"] == {"baseline": 1, "cut": 2, "controls": 6, "answers": 18}
    assert (second["planted"], second["precision"], second["recall"]) == (None, None, None)


def test_missing_numbers_are_null_and_dashes() -> None:
    nan = float("nan")
    empty = Shift("c", -1, 0, 8, 16, 16, nan, nan, nan, nan, nan)
    effect = SetEffect(f"{GROUPS[0]}|probability", GROUPS[0], "zero", "n", 0, empty, ())
    sets = [make_set(GROUPS[0], [1]), make_set(GROUPS[1], [2])]
    summary = summarise(FACTS, sets, [effect], None)
    json.dumps(summary, allow_nan=False)
    unscored, not_ablated = summary["headline"]
    assert (unscored["shift"], unscored["interval"], unscored["unscored"]["cut"]) == (None, None, 16)
    assert (not_ablated["operation"], not_ablated["shift"], not_ablated["controls"]) == (None, None, [])
    assert figure_of(summary["headline"]) is None
    page = render(summary, [])
    assert "nan" not in re.findall(r"\w+", page.lower())
    assert "precision" not in format_table(summary)


def test_table_for_the_terminal_shows_found_against_planted() -> None:
    lines = format_table(make_summary()).splitlines()
    assert len(lines) == 3
    assert "3 of 4" in lines[1]
    assert "+45.0" in lines[1]
    assert "+42.0 to +48.0" in lines[1]
    assert GROUPS[0] in lines[1]


class Reader(HTMLParser):
    """Collects tags and text, and fails on a tag that is closed out of order."""

    VOID = frozenset({"meta", "br", "line", "circle", "img", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def make_example(text: str) -> Example:
    return Example(text, text, (text, text), Answer(text, 92.0, None), Answer(text, None, text))


def test_malicious_text_stays_text() -> None:
    facts = {**make_summary()["run"], "title": NASTY, "model": NASTY, "versions": {NASTY: NASTY}}
    facts["benchmarks"] = [{"name": NASTY, "source": NASTY, "num_questions": 1}]
    summary = {**make_summary([f"b.zh/{NASTY}/support"]), "run": facts}
    for entry in summary["headline"]:
        entry["method"] = entry["operation"] = NASTY
    hostile = read(render(summary, [make_example(NASTY)]))
    harmless = read(render(make_summary(GROUPS[:1]), [make_example("text")]))
    # the same elements with the same attributes, but for the geometry: nothing of the text became markup
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in harmless.tags]
    assert not {"script", "img", "iframe", "link"} & {tag for tag, _ in hostile.tags}
    assert not any(name.startswith("on") for _, attributes in hostile.tags for name in attributes)
    assert hostile.words.count(NASTY) >= 8


def test_page_is_one_offline_file() -> None:
    reader = read(render(make_summary(), [make_example("text")]))
    loads = {"src", "href", "srcset", "data", "action", "xlink:href", "background"}
    assert not any(loads & attributes.keys() for _, attributes in reader.tags)
    page = render(make_summary(), [])
    assert "@import" not in page
    assert "url(" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page


def test_page_says_what_the_numbers_rest_on() -> None:
    page = read(render(make_summary(), [])).words
    assert "chosen on one half of the questions and judged on the other" in " ".join(page.split())
    same = {**make_summary(), "run": {**make_summary()["run"], "split": False}}
    assert "effects are optimistic" in " ".join(read(render(same, [])).words.split())
    assert "With 3 control draws" in page
    assert "12\u202f345" in page


@pytest.mark.parametrize("shifts", [[45.0], [0.0], [-30.0, 80.0], [0.004, 0.001], [100.0, -100.0, 3.0]])
def test_figure_keeps_everything_inside_and_zero_on_a_tick(shifts: list[float]) -> None:
    headline = [
        {**entry, "shift": shift, "interval": [shift - abs(shift) / 9, shift + abs(shift) / 9], "controls": []}
        for shift, entry in zip(
            shifts, make_summary([f"b/{at}/support" for at in range(len(shifts))])["headline"], strict=True
        )
    ]
    figure = figure_of(headline)
    assert figure is not None
    assert (figure.zero_x, "0") in figure.ticks
    assert 3 <= len(figure.ticks) <= 14
    left, right = figure.ticks[0][0], figure.ticks[-1][0]
    for row in figure.rows:
        assert row.x is not None
        assert row.interval is not None
        assert left <= row.interval[0] <= row.x <= row.interval[1] <= right
        assert 0 < row.y < figure.height


def make_item(group: str, question: str) -> Item:
    benchmark, value, aspect = group.split("/")
    return Item(question, benchmark, value, aspect, "zh", f"困境 {question}", options=("让步", "争先"))


def test_examples_are_the_first_by_hash_and_not_the_most_striking() -> None:
    questions = [f"q{at}" for at in range(6)]
    items = {item.item_id: item for group in GROUPS for item in (make_item(group, name) for name in questions)}
    effects = [make_effect(GROUPS[0], 10.0), make_effect(GROUPS[1], 50.0)]
    conditions = [(one.group, name) for one in effects for name in (one.baseline_id, one.cut.condition_id)]
    rows = [
        {
            "condition_id": condition,
            "item_id": f"{group}/{name}",
            "option_order": str(order),
            "text": f"{condition} {name}",
        }
        for group, condition in conditions
        for name in questions
        for order in OptionOrder
    ]
    scores = [
        Score(row["condition_id"], row["item_id"], "g", OptionOrder(row["option_order"]), 0, "support", 50.0, None)
        for row in rows
    ]
    examples = pick_examples(effects, items, pa.Table.from_pylist(rows), scores)
    assert [one.group for one in examples] == [GROUPS[1], GROUPS[0]]
    first = min(questions, key=question_bits)
    assert examples[0].question == f"困境 {first}"
    assert examples[0].before == Answer(f"{GROUPS[1]}|none {first}", 50.0, None)
    assert examples[0].after.text == f"{GROUPS[1]}|probability|cut-zero {first}"
    assert len(pick_examples(effects, items, pa.Table.from_pylist(rows), scores, limit=1)) == 1
