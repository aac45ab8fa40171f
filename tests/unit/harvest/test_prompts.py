"""An item becomes exactly one text, exactly once through the model's own chat template."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import write_byte_tokenizer
from tokenizers import Tokenizer

from harvest.benchmarks.registry import read_benchmark
from harvest.benchmarks.source import BenchmarkSource
from harvest.errors import ModelError, PromptError
from harvest.prompts.message import PromptKind, message
from harvest.prompts.order import OrderRule, option_order
from harvest.prompts.render import Renderer
from harvest.types import Item, OptionOrder

BUILTIN = {
    name: read_benchmark(BenchmarkSource(f"builtin:{name}"))
    for name in ("c_voice.zh", "c_voice.en", "value_insight.en")
}
DILEMMAS = [*BUILTIN["c_voice.zh"], *BUILTIN["c_voice.en"]]
ITEM = Item(
    "q1", "mine.en", "Harmony", "support", "en", "Who {bakes} %s?", prized="Harmony", options=("Split {it}.", "Race.")
)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer")
    write_byte_tokenizer(out)
    return out


def renderer(folder: Path, max_model_len: int = 4096, max_tokens: int = 500) -> Renderer:
    return Renderer(folder, max_model_len, max_tokens)


def test_a_role_prompt_names_what_is_prized_and_a_neutral_one_is_the_rest_of_it():
    for item in DILEMMAS:
        role = message(item, PromptKind.ROLE, OptionOrder.PUBLISHED)
        neutral = message(item, PromptKind.NEUTRAL, OptionOrder.PUBLISHED)
        raised, rest = role.split("\n", 1)
        assert item.prized in raised
        assert rest == neutral
    for item in BUILTIN["value_insight.en"]:
        role = message(item, PromptKind.ROLE, OptionOrder.PUBLISHED)
        assert role == f"{item.description}\n" + message(item, PromptKind.NEUTRAL, OptionOrder.PUBLISHED)
        assert item.description
        assert item.question in role


def test_both_aspects_of_a_question_read_the_same_but_for_the_role():
    by_question: dict[tuple[str, str, str], list[Item]] = {}
    for item in DILEMMAS:
        by_question.setdefault((item.benchmark, item.value, item.question_id), []).append(item)
    for pair in by_question.values():
        one, other = pair
        assert one.prized != other.prized
        neutral = {message(item, PromptKind.NEUTRAL, OptionOrder.SWAPPED) for item in pair}
        assert len(neutral) == 1


@pytest.mark.parametrize("kind", PromptKind)
def test_swapping_swaps_the_two_options_and_nothing_else(kind: PromptKind):
    for item in DILEMMAS:
        first, second = item.options or ("", "")
        published = message(item, kind, OptionOrder.PUBLISHED)
        swapped = message(item, kind, OptionOrder.SWAPPED)
        lines, other = published.split("\n"), swapped.split("\n")
        different = [at for at, line in enumerate(lines) if line != other[at]]
        at_a, at_b = different
        assert lines[at_a].endswith(first)
        assert lines[at_b].endswith(second)
        assert other[at_a] == lines[at_a].removesuffix(first) + second
        assert other[at_b] == lines[at_b].removesuffix(second) + first


def test_braces_and_percent_signs_in_a_text_stay_as_they_are():
    text = message(ITEM, PromptKind.ROLE, OptionOrder.PUBLISHED)
    assert "Who {bakes} %s?" in text
    assert "Option A: Split {it}." in text


def test_an_unknown_language_is_refused_with_the_known_ones():
    with pytest.raises(
        PromptError, match=r"mine.en/Harmony/support/q1: no role prompt for language 'sw'; known are en, zh"
    ):
        message(replace(ITEM, language="sw"), PromptKind.ROLE, OptionOrder.PUBLISHED)


def test_balanced_swaps_a_half_the_same_for_both_aspects_and_never_an_open_question():
    orders = {(item.benchmark, item.question_id): option_order(item, OrderRule.BALANCED) for item in DILEMMAS}
    for item in DILEMMAS:
        assert option_order(item, OrderRule.BALANCED) is orders[item.benchmark, item.question_id]
        assert option_order(item, OrderRule.PUBLISHED) is OptionOrder.PUBLISHED
    many = [option_order(replace(ITEM, question_id=f"q{at}"), OrderRule.BALANCED) for at in range(2000)]
    assert 900 < many.count(OptionOrder.SWAPPED) < 1100
    for item in BUILTIN["value_insight.en"]:
        assert option_order(item, OrderRule.BALANCED) is OptionOrder.PUBLISHED


def test_a_prompt_is_the_chat_template_s_text_with_one_bos(tokenizer_folder: Path):
    """Decoded without any skipping, against the template written out by hand."""
    plain = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    for item in (DILEMMAS[0], DILEMMAS[-1], BUILTIN["value_insight.en"][0]):
        prompt = renderer(tokenizer_folder).render(item, PromptKind.ROLE, OptionOrder.PUBLISHED)
        said = message(item, PromptKind.ROLE, OptionOrder.PUBLISHED)
        assert plain.decode(list(prompt.token_ids), skip_special_tokens=False) == f"<s><|user|>{said}<|assistant|>"
        assert prompt.token_ids.count(plain.token_to_id("<s>")) == 1
        assert (prompt.item_id, prompt.group, prompt.question_id) == (item.item_id, item.group, item.question_id)


def test_a_tokenizer_that_adds_bos_by_itself_still_gives_one(tokenizer_folder: Path, tmp_path: Path):
    folder = shutil.copytree(tokenizer_folder, tmp_path / "adds-bos")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode("x").ids[0] == 256
    prompt = renderer(folder).render(ITEM, PromptKind.ROLE, OptionOrder.PUBLISHED)
    assert prompt.token_ids.count(256) == 1


def test_a_prompt_that_fits_to_the_last_token_is_taken_and_one_more_is_refused(tokenizer_folder: Path):
    length = len(renderer(tokenizer_folder).render(ITEM, PromptKind.ROLE, OptionOrder.PUBLISHED).token_ids)
    exact = renderer(tokenizer_folder, length + 20, 20)
    assert len(exact.render(ITEM, PromptKind.ROLE, OptionOrder.PUBLISHED).token_ids) == length
    message_ = (
        f"mine.en/Harmony/support/q1: the prompt has {length} tokens and the answer may have 20, more than the context "
        f"of {length + 19}; raise model.max_model_len or lower respond.max_tokens"
    )
    with pytest.raises(PromptError) as refused:
        renderer(tokenizer_folder, length + 19, 20).render(ITEM, PromptKind.ROLE, OptionOrder.PUBLISHED)
    assert str(refused.value) == message_


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def broken_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def other_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')


def broken_settings(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[]")


def no_settings(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer.json").unlink()


def no_files(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (without_template, "has no chat template"),
        (broken_json, "cannot be read"),
        (other_json, "cannot be read"),
        (broken_settings, "cannot be read"),
        (no_settings, "cannot be read"),
        (no_files, "cannot be read"),
    ],
)
def test_a_damaged_tokenizer_is_a_model_error_of_one_sentence(
    damage, what: str, tokenizer_folder: Path, tmp_path: Path
):
    folder = shutil.copytree(tokenizer_folder, tmp_path / "copy")
    damage(folder)
    with pytest.raises(ModelError, match=what) as refused:
        renderer(folder)
    assert str(refused.value).startswith(str(folder))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "template", ["{% for %}", "{{ raise_exception('no user turns') }}", "{{ nothing.at.all }}", "{{ messages[0] + 1 }}"]
)
def test_a_template_that_refuses_is_a_prompt_error(template: str, tokenizer_folder: Path, tmp_path: Path):
    folder = shutil.copytree(tokenizer_folder, tmp_path / "copy")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(PromptError, match=r"^mine.en/Harmony/support/q1: the model's chat template refuses the prompt"):
        renderer(folder).render(ITEM, PromptKind.ROLE, OptionOrder.PUBLISHED)
