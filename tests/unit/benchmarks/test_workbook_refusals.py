import tracemalloc
import zipfile
from io import BytesIO

import openpyxl
import pytest

from harvest.benchmarks.c_voice import read_c_voice
from harvest.benchmarks.source import BenchmarkSource, Faults
from harvest.benchmarks.workbook import MAX_ENTRIES, MAX_UNPACKED_BYTES, OLE_MAGIC, ZIP_MAGIC

SHEET = "xl/worksheets/sheet1.xml"
ENTITIES = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'


@pytest.fixture(scope="module")
def sound():
    book = openpyxl.Workbook()
    book.active.append(["冲突类型", "决策困境", "选择A", "选择B"])
    book.active.append(["和谐 vs 争斗", "邻居吵架", "A. 劝和", "B. 起哄"])
    file = BytesIO()
    book.save(file)
    return file.getvalue()


def repacked(data, change, compression=zipfile.ZIP_DEFLATED):
    """The archive with its parts {name: bytes} as `change` leaves them."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    file = BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return file.getvalue()


def refusal(data):
    """What is wrong with the file, which must be one thing."""
    faults = Faults("book.xlsx")
    assert read_c_voice(BenchmarkSource("book.xlsx"), data, faults) == []
    (fault,) = faults.found
    return fault.what


def test_a_sound_workbook_is_read_however_it_is_repacked(sound):
    faults = Faults("book.xlsx")
    assert len(read_c_voice(BenchmarkSource("book.xlsx"), repacked(sound, lambda parts: None), faults)) == 2
    assert not faults.found


def test_a_bomb_is_refused_before_it_is_unpacked(sound):
    bomb = repacked(sound, lambda parts: parts.update(bomb=bytes(MAX_UNPACKED_BYTES)))
    tracemalloc.start()
    assert refusal(bomb).startswith("would unpack to ")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_an_archive_of_absurdly_many_parts_is_refused(sound):
    crowd = repacked(sound, lambda parts: parts.update({str(number): b"" for number in range(MAX_ENTRIES)}))
    assert "parts, more than" in refusal(crowd)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_in_any_encoding(sound, encoding):
    def declare(parts):
        body = parts[SHEET].decode()
        head = f'<?xml version="1.0" encoding="{encoding}"?>'
        parts[SHEET] = (head + ENTITIES + body[body.index("<worksheet") :]).encode(encoding)

    assert refusal(repacked(sound, declare)) == f"declares a document type in {SHEET}, where entities can hide"


def test_a_part_outside_the_usual_names_is_looked_at_too(sound):
    disguised = repacked(sound, lambda parts: parts.update({"xl/image.png": f"{ENTITIES}<a/>".encode()}))
    assert refusal(disguised).startswith("declares a document type in xl/image.png")


@pytest.mark.parametrize("data", [OLE_MAGIC + bytes(512), b"no workbook", ZIP_MAGIC + bytes(64), ZIP_MAGIC])
def test_what_is_no_workbook_is_refused(data):
    assert refusal(data).startswith(("is encrypted or an old .xls", "is no readable workbook"))


def test_encrypted_entries_are_refused(sound):
    data = bytearray(sound)
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1
    assert refusal(bytes(data)) == "is encrypted"


def test_a_truncated_workbook_is_refused_wherever_it_ends(sound):
    for size_bytes in range(len(ZIP_MAGIC), len(sound), 97):
        assert refusal(sound[:size_bytes]).startswith("is no readable workbook")


def test_a_row_number_beyond_every_sheet_is_refused_rather_than_filled_up_to(sound):
    far = repacked(
        sound, lambda parts: parts.update({SHEET: parts[SHEET].replace(b'<row r="2"', b'<row r="999999999999"')})
    )
    assert "reaches row" in refusal(far)


@pytest.mark.parametrize("part", ["[Content_Types].xml", "xl/workbook.xml", SHEET])
def test_a_missing_part_is_refused(sound, part):
    assert refusal(repacked(sound, lambda parts: parts.pop(part)))


def test_methods_of_packing_that_can_ask_for_gigabytes_are_refused(sound):
    assert "packed" in refusal(repacked(sound, lambda parts: None, zipfile.ZIP_LZMA))
