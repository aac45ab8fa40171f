import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.benchmarks.conflicts import simplified, spelling_key, split_conflict
from harvest.benchmarks.fields import clean

SEPARATORS = [
    " vs ",
    "vs",
    " VS ",
    " Vs. ",
    " v s ",
    "v.s.",
    " v. s. ",
    "ＶＳ",
    "　ｖｓ　",
    "\u00a0vs\u00a0",
    " versus ",
]
CHINESE = st.text("富强民主文明和谐自由平等公正法治爱国敬业诚信友善，、与", min_size=1, max_size=12)
LATIN = st.text("abcdehijklmnopqrtuwxyz -", min_size=1, max_size=20).map(str.strip).filter(bool)


@given(CHINESE, st.sampled_from(SEPARATORS), CHINESE)
def test_chinese_sides_survive_every_spelling_of_vs(value, separator, conflict):
    assert split_conflict(value + separator + conflict) == (value, conflict)


@given(LATIN, st.sampled_from([" vs ", " VS ", " v s ", " v.s. ", " vs.", " versus "]), LATIN)
def test_latin_sides_survive_every_spaced_vs(value, separator, conflict):
    assert split_conflict(value + separator + conflict) == (value, conflict)


@given(st.text())
def test_any_text_is_split_into_two_clean_sides_or_not_at_all(text):
    sides = split_conflict(text)
    if sides is not None:
        value, conflict = sides
        assert value == clean(value) != ""
        assert conflict == clean(conflict) != ""
        assert text.count(value) >= 1
        assert text.count(conflict) >= 1


@pytest.mark.parametrize("text", ["和谐", "vs 霸权", "和谐 vs", "canvas", "TVs and radios", "very sad", "revs up", ""])
def test_text_without_two_sides_is_not_split(text):
    assert split_conflict(text) is None


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("自由 vs 强制思想一致，压制差异", ("自由", "强制思想一致，压制差异")),
        ("Harmony vs.rivalry", ("Harmony", "rivalry")),
        ("\ufeff和諧 v s霸权主义 ", ("和諧", "霸权主义")),
        ("Peace vs war vs silence", ("Peace", "war vs silence")),
    ],
)
def test_noisy_conflict_types_are_read_as_meant(text, sides):
    assert split_conflict(text) == sides


def test_traditional_names_of_the_twelve_values_equal_the_simplified():
    traditional = "富強 民主 文明 和諧 自由 平等 公正 法治 愛國 敬業 誠信 友善"
    plain = "富强 民主 文明 和谐 自由 平等 公正 法治 爱国 敬业 诚信 友善"
    assert simplified(traditional) == plain
    assert spelling_key("選擇Ａ") == spelling_key("选择 A")
