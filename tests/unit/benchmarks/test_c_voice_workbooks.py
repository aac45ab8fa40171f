from pathlib import Path

import openpyxl
import pytest

from harvest.benchmarks.registry import faults, groups, read_benchmark
from harvest.benchmarks.source import BenchmarkSource
from harvest.errors import BenchmarkError

PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "c_voice"
IDENTIFICATION = ("冲突类型", "决策困境", "选择A", "选择B")
EVALUATION = ("Type", "Context", "Action1", "Action2")
VALUES = ["富强", "民主", "文明", "和谐", "自由", "平等", "公正", "法治", "爱国", "敬业", "诚信", "友善"]


@pytest.fixture
def workbook(tmp_path):
    """Writes {sheet title: rows} as a workbook; returns a source of it."""

    def write(sheets, **entry):
        book = openpyxl.Workbook()
        book.remove(book.active)
        for title, rows in sheets.items():
            sheet = book.create_sheet(title)
            for row in rows:
                sheet.append(row)
        path = tmp_path / "book.xlsx"
        book.save(path)
        return BenchmarkSource(str(path), **entry)

    return write


def row(conflict_type="和谐 vs 争斗", dilemma="邻居吵架", option_a="A. 劝和", option_b="B. 起哄"):
    return (conflict_type, dilemma, option_a, option_b)


@pytest.mark.parametrize(("value", "num_questions"), [("和谐", 237), ("公正", 203), ("自由", 284)])
def test_published_identification_workbooks_are_read_whole(value, num_questions):
    path = PUBLISHED / f"{value}-final.xlsx"
    if not path.is_file():
        pytest.skip(f"the published workbook is not at {path}")
    items = read_benchmark(BenchmarkSource(str(path), format="c_voice", value=value, language="zh"))
    assert items == read_benchmark(BenchmarkSource(str(path)))
    assert groups(items) == {f"c_voice.zh/{value}/{aspect}": num_questions for aspect in ("support", "conflict")}
    assert len({item.prized for item in items if item.aspect == "conflict"}) == 4
    assert len({item.item_id for item in items}) == 2 * num_questions
    assert not any(text.startswith(("A", "B")) for item in items for text in item.options)


def test_repeated_rows_of_a_published_workbook_keep_their_own_ids():
    path = PUBLISHED / "公正-final.xlsx"
    if not path.is_file():
        pytest.skip(f"the published workbook is not at {path}")
    repeated = [item for item in read_benchmark(BenchmarkSource(str(path))) if item.question_id.endswith("~2")]
    assert len(repeated) == 6


def test_noisy_rows_become_the_same_clean_items(workbook):
    noisy = [
        (None, "选择Ａ", "冲突类型 ", "選擇B", " 决策困境"),
        (None, "A：劝和", "和諧v.s.争斗", "（B） 起哄", "一"),
        (None, None, None, None, None),
        ("a note", None, "\u3000", "", None),
        (None, "A.劝和", "和谐 v s 争斗", "选项B：起哄 ", "二"),
        (None, "劝和", "和谐ＶＳ争斗", "起哄", "三"),
    ]
    items = read_benchmark(workbook({"Sheet1": noisy, "Sheet2": []}))
    assert groups(items) == {"c_voice.zh/和谐/support": 3, "c_voice.zh/和谐/conflict": 3}
    assert {item.options for item in items} == {("劝和", "起哄")}
    assert {item.prized for item in items} == {"和谐", "争斗"}
    assert [item.question for item in items[::2]] == ["一", "二", "三"]


def test_an_evaluation_workbook_has_a_sheet_a_value(workbook):
    sheets = {
        value: [
            (*EVALUATION, None),
            *((f"{value} vs {other}", f"{value} {other}", "A. 是", "B. 否") for other in "甲乙"),
        ]
        for value in VALUES
    }
    sheets["和諧"] = [[text and str(text).replace("和谐", "和諧") for text in line] for line in sheets.pop("和谐")]
    items = read_benchmark(workbook(sheets, language="zh", name="evaluation"))
    assert groups(items) == {
        f"evaluation.zh/{value}/{aspect}": 2 for value in VALUES for aspect in ("support", "conflict")
    }
    only = read_benchmark(workbook(sheets, value="和谐"))
    assert groups(only) == {"c_voice.zh/和谐/support": 2, "c_voice.zh/和谐/conflict": 2}


def test_an_evaluation_row_about_another_value_than_its_sheet_is_a_fault(workbook):
    (fault,) = faults(workbook({"自由": [EVALUATION, row("自由 vs 管控"), row("公正 vs 特权")]}))
    assert (fault.sheet, fault.row) == ("自由", 3)
    assert "book.xlsx:自由!3: is about '公正' among rows of '自由'" in str(fault)


def test_mixed_values_name_the_odd_row_and_ask_for_the_value(workbook):
    (fault,) = faults(workbook({"S": [IDENTIFICATION, row("自由 vs 管控"), row(), row()]}))
    assert fault.row == 2
    assert fault.remedy.startswith("give the `value`")


def test_a_workbook_of_another_value_than_the_entry_names_is_refused(workbook):
    with pytest.raises(BenchmarkError, match="is about '和谐' among rows of '自由'"):
        read_benchmark(workbook({"S": [IDENTIFICATION, row()]}, value="自由"))


@pytest.mark.parametrize(
    ("cells", "what"),
    [
        (row(dilemma=None), "决策困境 is blank"),
        (row(option_a="A. "), "选择A is only its label"),
        (row(option_b="A. 起哄"), "选择B is labelled 'A.'"),
        (row(dilemma=12), "决策困境 is 12, a int"),
        (row(conflict_type="和谐"), "冲突类型 '和谐' has no 'vs'"),
    ],
)
def test_each_fault_of_a_row_is_named_with_its_place(workbook, cells, what):
    (fault,) = faults(workbook({"S": [IDENTIFICATION, row(), (), cells]}))
    assert (fault.sheet, fault.row) == ("S", 4)
    assert fault.what.startswith(what)


@pytest.mark.parametrize("header", [IDENTIFICATION[:3], (*IDENTIFICATION, "选择A"), ("Type", *IDENTIFICATION[1:])])
def test_missing_or_doubled_columns_are_named(workbook, header):
    (fault,) = faults(workbook({"S": [header, row()]}))
    assert fault.row == 1
    assert fault.remedy == "name them 冲突类型, 决策困境, 选择A, 选择B or Type, Context, Action1, Action2, each once"


def test_a_workbook_without_rows_holds_no_questions(workbook):
    (fault,) = faults(workbook({"S": [IDENTIFICATION]}))
    assert fault.what == "holds no questions"
