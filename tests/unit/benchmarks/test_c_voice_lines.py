import json

import pytest

from harvest.benchmarks.registry import faults, groups, read_benchmark
from harvest.benchmarks.source import BenchmarkSource
from harvest.errors import BenchmarkError

LINE = {
    "value": "Calm",
    "conflict": "haste",
    "dilemma": "A train leaves now.",
    "option_a": "Wait.",
    "option_b": "Run.",
    "language": "en",
}


@pytest.fixture
def written(tmp_path):
    """Writes lines (objects, or text as it is) to a file; returns a source of them."""

    def write(*lines, **entry):
        path = tmp_path / "lines.jsonl"
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return BenchmarkSource(str(path), **entry)

    return write


def without(*fields):
    return {name: text for name, text in LINE.items() if name not in fields}


def test_a_line_is_asked_under_both_aspects_with_one_id(written):
    support, conflict = read_benchmark(written(LINE))
    assert support.group == "c_voice.en/Calm/support"
    assert conflict.group == "c_voice.en/Calm/conflict"
    assert (support.prized, conflict.prized) == ("Calm", "haste")
    assert support.question_id == conflict.question_id
    assert support.options == conflict.options == ("Wait.", "Run.")


def test_an_own_id_is_kept_as_it_is(written):
    ids = {item.question_id for item in read_benchmark(written(LINE | {"id": "../x"}))}
    assert ids == {"../x"}


def test_a_content_id_moves_with_the_contents_and_not_with_their_place_or_spacing(written):
    other = LINE | {"dilemma": "A bus leaves now."}
    spaced = LINE | {"dilemma": " A  train leaves\u00a0now. "}
    first = [item.question_id for item in read_benchmark(written(LINE, other))][::2]
    second = [item.question_id for item in read_benchmark(written(other, spaced))][::2]
    assert first == second[::-1]
    assert all(len(question_id) == 14 and question_id.startswith("q-") for question_id in first)


def test_repeated_contents_are_numbered(written):
    ids = [item.question_id for item in read_benchmark(written(LINE, LINE, LINE))][::2]
    assert ids == [ids[0], f"{ids[0]}~2", f"{ids[0]}~3"]


def test_the_same_id_under_two_values_is_fine_and_under_one_a_fault(written):
    read_benchmark(written(LINE | {"id": "1"}, LINE | {"id": "1", "value": "Rest"}))
    (fault,) = faults(written(LINE | {"id": "1"}, LINE | {"id": "1"}))
    assert fault.row == 2
    assert "id '1' is used twice for Calm" in str(fault)


def test_the_entry_names_benchmark_and_language(written):
    items = read_benchmark(written(without("language"), language="en-GB", name="mine"))
    assert list(groups(items)) == ["mine.en-GB/Calm/support", "mine.en-GB/Calm/conflict"]


def test_value_picks_the_questions_of_one_value(written):
    rest = LINE | {"value": "Rest"}
    assert groups(read_benchmark(written(LINE, rest, rest, value="rest"))) == {
        "c_voice.en/Rest/support": 2,
        "c_voice.en/Rest/conflict": 2,
    }
    with pytest.raises(BenchmarkError, match="has no questions on 'War'; give `value` as one of Calm, Rest"):
        read_benchmark(written(LINE, rest, value="War"))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{'a': 1}", "is not JSON"),
        ("[" * 100_000, "is nested too deeply"),
        ("[1]", "is a JSON list, not an object"),
        (without("option_b"), "option_b is missing"),
        (LINE | {"option_b": " \u3000\u200b"}, "option_b is blank"),
        (LINE | {"dilemma": 7}, "dilemma is 7, a int"),
        (LINE | {"dilemma": "#REF!"}, "dilemma is the spreadsheet's error #REF!"),
        (LINE | {"dilemma": "\ud800"}, "dilemma holds half a surrogate pair"),
        (LINE | {"value": "a/b"}, "value 'a/b' contains '/'"),
        (LINE | {"id": ""}, "id is blank"),
        (LINE | {"language": "zh"}, "language is 'zh' in an entry of 'en'"),
    ],
)
def test_each_fault_is_named_with_its_row(written, line, what):
    (fault,) = faults(written(LINE, "", line, LINE, format="c_voice"))
    assert fault.row == 3
    assert fault.what.startswith(what)
    assert fault.remedy


def test_faults_of_the_whole_file_name_no_row(written):
    (fault,) = faults(written(without("language")))
    assert str(fault).endswith(
        "lines.jsonl: names no language; give `language` in the benchmark's entry or in every line"
    )
    (fault,) = faults(written(LINE | {"language": "../x"}))
    assert "no language tag" in fault.what


def test_bytes_that_are_not_utf8_are_named_with_their_row(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(json.dumps(LINE).encode() + b"\n\n\xff\xfe")
    (fault,) = faults(BenchmarkSource(str(path), format="c_voice"))
    assert (fault.row, fault.what) == (3, "is not UTF-8")


def test_many_faults_are_all_listed_and_the_first_are_raised_with_their_number(written):
    source = written(*[without("dilemma")] * 9, format="c_voice")
    assert [fault.row for fault in faults(source)] == list(range(1, 10))
    with pytest.raises(BenchmarkError, match=r"lines\.jsonl:1: dilemma is missing.*:3: .*9 faults in all") as caught:
        read_benchmark(source)
    assert ":4: " not in str(caught.value)
