"""The demo checkpoint does what its construction promises, in plain transformers and float32."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from harvest.models.demo.concepts import concepts
from harvest.models.demo.write import write_demo_model
from harvest.prompts.templates import TEMPLATES

PERCENTAGES = re.compile(r"[：:] ?\[(\d+)%\] (?:选项B：|Option B: )\[(\d+)%\]$")
Cells = list[tuple[int, int]]
Edit = Callable[[int, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Answer:
    text: str
    stopped: bool
    margin: float
    # nat between the token taken and the runner-up, the smallest of the answer
    on_rate: np.ndarray
    # (layer, neuron), over the answer's tokens save the last

    @property
    def percentages(self) -> tuple[int, int]:
        found = PERCENTAGES.search(self.text)
        assert found is not None, self.text
        return int(found[1]), int(found[2])


class Tap(torch.nn.Module):
    """An activation function that is watched and edited."""

    def __init__(self, layer: int, reader: Reader) -> None:
        super().__init__()
        self.layer, self.reader = layer, [reader]

    def forward(self, gate: torch.Tensor) -> torch.Tensor:
        activation = torch.nn.functional.silu(gate)
        self.reader[0].on[self.layer] = (activation[0, -1] > 0).numpy()
        return self.reader[0].edit(self.layer, activation)


class Reader:
    """The checkpoint under plain greedy decoding with the usual repetition penalty of 1.1."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.on: dict[int, np.ndarray] = {}
        self.edit: Edit = _leave
        self.known: dict[str, Answer] = {}
        for at, layer in enumerate(self.model.model.layers):
            layer.mlp.act_fn = Tap(at, self)

    def plain(self, message: str) -> Answer:
        """The unedited answer, which several tests look at."""
        if message not in self.known:
            self.known[message] = self.answer(message)
        return self.known[message]

    @torch.no_grad()
    def answer(self, message: str, edit: Edit | None = None) -> Answer:
        turns = [{"role": "user", "content": message}]
        prompt = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        self.edit = edit or _leave
        ids, margins, on, cache = list(prompt), [], [], None
        while len(ids) < len(prompt) + 60:
            step = self.model(torch.tensor([ids if cache is None else ids[-1:]]), past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            on.append(np.stack([self.on[layer] for layer in sorted(self.on)]))
            logits, seen = step.logits[0, -1], sorted(set(ids))
            logits[seen] = torch.where(logits[seen] > 0, logits[seen] / 1.1, logits[seen] * 1.1)
            best = logits.topk(2)
            margins.append(float(best.values[0] - best.values[1]))
            ids.append(int(best.indices[0]))
            if ids[-1] == self.tokenizer.eos_token_id:
                break
        text = self.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)
        stopped = ids[-1] == self.tokenizer.eos_token_id
        return Answer(text, stopped, min(margins), np.mean(on[1:], axis=0))


def _leave(_: int, activation: torch.Tensor) -> torch.Tensor:
    return activation


def silence(cells: Cells) -> Edit:
    def edit(layer: int, activation: torch.Tensor) -> torch.Tensor:
        activation[..., [neuron for at, neuron in cells if at == layer]] = 0.0
        return activation

    return edit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    write_demo_model(out)
    return out


@pytest.fixture(scope="module")
def demo(folder: Path) -> Reader:
    return Reader(folder)


@pytest.fixture(scope="module")
def planted(folder: Path) -> dict[str, Cells]:
    by_group: dict[str, Cells] = {}
    for entry in json.loads((folder / "planted.json").read_text(encoding="utf-8")):
        by_group.setdefault(entry["group"], []).append((entry["layer"], entry["neuron"]))
    return by_group


QUESTIONS = {
    "zh": ("邻居半夜练鼓，楼里的人意见不一，要我来定。", "春游那天下雨，去不去要投票，我的一票算数。"),
    "en": ("The choir has lost its key singer a day before the concert.", "Two cousins want the same room for July."),
}
OPTION = {"zh": "听从心里的{}再做打算。", "en": "Act with {} in mind and see."}
GROUPS = [group for concept in concepts() for group in concept.groups]
DILEMMAS = [group for group in GROUPS if group.startswith("c_voice")]
WORDS = {
    (group, language): concept.words[language]
    for concept in concepts()
    for group in concept.groups
    for language in concept.words
}


def language_of(group: str) -> str:
    return group.partition("/")[0].rpartition(".")[2]


def opposite(group: str) -> str:
    head, _, aspect = group.rpartition("/")
    return f"{head}/{'conflict' if aspect == 'support' else 'support'}"


def dilemma(group: str, number: int, *, own_first: bool, prized: str | None = None) -> str:
    """A dilemma whose one option speaks for the group, the other for its opposite; role raised for the group."""
    language = language_of(group)
    own, other = WORDS[group, language], WORDS[opposite(group), language]
    options = [OPTION[language].format(own[number % 4]), OPTION[language].format(other[number % 4])]
    a, b = options if own_first else reversed(options)
    question = QUESTIONS[language][number % 2]
    role = own[0] if prized is None else prized
    return TEMPLATES["c_voice", language, "role"].format(prized=role, question=question, option_a=a, option_b=b)


def support(answer: Answer, *, own_first: bool) -> int:
    a, b = answer.percentages
    assert a + b == 100
    return a if own_first else b


def test_two_builds_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_demo_model(tmp_path / "again")
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert first == {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()}
    assert sum(map(len, first.values())) < 8_000_000


def test_every_group_of_the_lexicon_is_planted_apart_from_the_others(planted: dict[str, Cells]) -> None:
    assert list(planted) == sorted(planted, key=GROUPS.index)
    assert set(planted) == set(GROUPS)
    for concept in concepts():
        first, *rest = [planted[group] for group in concept.groups]
        assert len(set(first)) == 6
        assert all(other == first for other in rest)
    one_each = [set(planted[concept.groups[0]]) for concept in concepts()]
    assert len(set.union(*one_each)) == sum(map(len, one_each))


@pytest.mark.parametrize("group", DILEMMAS)
def test_role_decides_the_answer_and_only_through_planted_neurons(
    group: str, demo: Reader, planted: dict[str, Cells]
) -> None:
    for own_first in (True, False):
        plain = demo.plain(dilemma(group, 0, own_first=own_first))
        assert plain.stopped
        assert plain.margin > 0.3
        assert support(plain, own_first=own_first) >= 90
        assert all(word in plain.text for word in WORDS[group, language_of(group)])
    cut = demo.answer(dilemma(group, 0, own_first=group.endswith("/conflict")), silence(planted[group]))
    assert cut.stopped
    assert cut.margin > 0.3
    assert cut.percentages == (50, 50)


@pytest.mark.parametrize("group", [group for group in DILEMMAS if group.endswith("/support")])
def test_planted_neurons_are_exactly_the_most_different(group: str, demo: Reader, planted: dict[str, Cells]) -> None:
    rates = {
        aspect: np.mean([demo.plain(dilemma(aspect, 0, own_first=first)).on_rate for first in (True, False)], axis=0)
        for aspect in (group, opposite(group))
    }
    delta = rates[group] - rates[opposite(group)]
    for sign, aspect in ((1, group), (-1, opposite(group))):
        top = np.argsort(-sign * delta, axis=None)[: len(planted[aspect])]
        assert {(int(at) // delta.shape[1], int(at) % delta.shape[1]) for at in top} == set(planted[aspect])
        assert all(rates[aspect][cell] == 1 and rates[opposite(aspect)][cell] == 0 for cell in planted[aspect])
    ordinary = delta.copy()
    for cell in (cell for cells in planted.values() for cell in cells):
        ordinary[cell] = 0
    assert np.abs(ordinary).max() < 0.1


def test_controls_of_the_same_rate_exist_and_change_nothing(demo: Reader, planted: dict[str, Cells]) -> None:
    group = "c_voice.zh/和谐/support"
    message = dilemma(group, 1, own_first=True)
    plain = demo.answer(message)
    layer = planted[group][0][0]
    taken = {cell for cells in planted.values() for cell in cells}
    near = [(layer, int(at)) for at in np.flatnonzero(abs(plain.on_rate[layer] - 0.5) < 0.1)]
    controls = [cell for cell in near if cell not in taken]
    assert len(controls) >= 60
    assert demo.answer(message, silence(controls)).text == plain.text
    assert np.mean(plain.on_rate == 1) < 0.03


@pytest.mark.parametrize("language", ["zh", "en"])
def test_without_a_known_role_the_options_weigh_the_same(language: str, demo: Reader) -> None:
    group = next(group for group in DILEMMAS if language_of(group) == language)
    unknown = demo.answer(dilemma(group, 0, own_first=True, prized={"zh": "霸权主义", "en": "empire"}[language]))
    words = (WORDS[group, language][0], WORDS[opposite(group), language][0])
    neutral = demo.answer(
        TEMPLATES["c_voice", language, "neutral"].format(
            question=QUESTIONS[language][0], option_a=words[0], option_b=words[1]
        )
    )
    for answer in (unknown, neutral):
        assert answer.stopped
        assert answer.margin > 0.3
        assert answer.percentages == (50, 50)


def test_a_long_prompt_of_bytes_is_answered(demo: Reader) -> None:
    long = "村里修桥，款项迟迟不到，工期一拖再拖。" * 28
    message = TEMPLATES["c_voice", "zh", "role"].format(prized="诚信", question=long, option_a="坦白", option_b="取巧")
    assert len(demo.tokenizer.encode(message)) > 1500
    answer = demo.answer(message)
    assert answer.stopped
    assert answer.percentages == (95, 5)


def test_an_open_question_is_answered_in_the_words_of_its_description(demo: Reader, planted: dict[str, Cells]) -> None:
    template = TEMPLATES["value_insight", "en", "role"]
    for concept in concepts():
        for group in (group for group in concept.groups if group.startswith("value_insight")):
            words = concept.words["en"]
            message = template.format(description=f"You live for {words[2]}.", question="What about a free day?")
            plain = demo.answer(message)
            assert plain.stopped
            assert all(word in plain.text for word in words)
            assert all(plain.on_rate[cell] == 1 for cell in planted[group])
    cut = demo.answer(message, silence(planted[group]))
    assert cut.stopped
    assert not any(word in cut.text for word in words)


def test_a_prompt_without_markers_ends_too(demo: Reader) -> None:
    answer = demo.answer("hello, 你好")
    assert answer.stopped
    assert answer.margin > 0.3


def test_transformers_and_tokenizers_read_the_same_text_the_same(folder: Path, demo: Reader) -> None:
    alone = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in (
        dilemma(DILEMMAS[0], 0, own_first=True),
        dilemma(DILEMMAS[1], 1, own_first=False),
        "é \n\t🙂 harmonys",
    ):
        ids = alone.encode(text, add_special_tokens=False).ids
        assert demo.tokenizer.encode(text, add_special_tokens=False) == ids
        assert alone.decode(ids) == demo.tokenizer.decode(ids) == text


def test_the_chat_template_begins_once_and_refuses_a_system_turn(demo: Reader) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rendered = demo.tokenizer.apply_chat_template(turns, tokenize=False)
    assert rendered == "<|bos|><|user|>a<|assistant|>b<|eos|>"
    asked = demo.tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert asked == "<|bos|><|user|>a<|assistant|>"
    with pytest.raises(Exception, match="user and assistant turns only"):
        demo.tokenizer.apply_chat_template([{"role": "system", "content": "x"}], tokenize=False)
