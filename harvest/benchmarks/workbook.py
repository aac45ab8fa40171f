"""Sheets of an xlsx file from anywhere, as rows of plain values; what could harm the reader is refused first."""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from io import BytesIO
from xml.etree.ElementTree import ParseError
from xml.parsers import expat

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from harvest.benchmarks.fields import is_blank
from harvest.benchmarks.source import Faults

ZIP_MAGIC = b"PK\x03\x04"
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
MAX_UNPACKED_BYTES = 256 * 2**20
MAX_ENTRIES = 4096
# Excel's own limit; a sheet can claim a row 10**12, and the reader would fill up to it
MAX_ROWS = 1_048_576
MAX_COLUMNS = 64

Row = tuple[object, ...]
Sheet = tuple[str, list[tuple[int, Row]]]

# openpyxl lets whatever its parsers meet in a damaged file come through
_DAMAGED = (
    AttributeError, EOFError, InvalidFileException, LookupError, NotImplementedError, OSError, OverflowError,
    ParseError, TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class _DoctypeFoundError(Exception):
    pass


class _RootReachedError(Exception):
    pass


def read_sheets(data: bytes, faults: Faults) -> list[Sheet]:
    """(title, [(row number from 1, cells)]) of every sheet that has a cell; blank rows are left out."""
    if data.startswith(OLE_MAGIC):
        faults.add("is encrypted or an old .xls", "save it as .xlsx without a password")
        return []
    try:
        refused = _refusal(data)
        if refused:
            faults.add(refused, "save the sheets anew in a spreadsheet program")
            return []
        return _rows(data)
    except _DAMAGED as error:
        faults.add(f"is no readable workbook ({type(error).__name__}: {error})", "save it anew as .xlsx")
        return []


def _refusal(data: bytes) -> str:
    """Why this archive is not unpacked; "" if nothing speaks against it.

    zipfile never yields more of an entry than its declared size, so that the sum of those is a true bound.
    """
    with zipfile.ZipFile(BytesIO(data)) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            return f"holds {len(entries)} parts, more than {MAX_ENTRIES}"
        unpacked_bytes = sum(entry.file_size for entry in entries)
        if unpacked_bytes > MAX_UNPACKED_BYTES:
            return f"would unpack to {unpacked_bytes} bytes, more than {MAX_UNPACKED_BYTES}"
        if any(entry.flag_bits & 1 for entry in entries):
            return "is encrypted"
        if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
            return "is packed in a way no spreadsheet program uses"
        # whatever its name: a relation can point openpyxl to any part
        for entry in entries:
            if _has_doctype(archive, entry):
                return f"declares a document type in {entry.filename}, where entities can hide"
    return ""


def _has_doctype(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Whether the part has a DOCTYPE; it can only stand before the root element, where reading stops.

    Parsed rather than searched for: a part may be in UTF-16 or stranger. openpyxl itself refuses entities only
    where defusedxml happens to be installed.
    """

    def doctype(*_: object) -> None:
        raise _DoctypeFoundError

    def root(*_: object) -> None:
        raise _RootReachedError

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = root
    with archive.open(entry) as part:
        try:
            while chunk := part.read(65536):
                parser.Parse(chunk)
        except _DoctypeFoundError:
            return True
        except (_RootReachedError, expat.ExpatError):
            # what is not XML at all is openpyxl's to refuse, if it needs that part
            return False
    return False


def _rows(data: bytes) -> list[Sheet]:
    with warnings.catch_warnings():
        # about styles and extensions that are not read here
        warnings.simplefilter("ignore", UserWarning)
        book = openpyxl.load_workbook(BytesIO(data), read_only=True, data_only=True, keep_links=False)
        sheets = []
        for sheet in book.worksheets:
            # explicit bounds: the sheet's own statement of its size may be wrong
            cells = sheet.iter_rows(max_row=MAX_ROWS, max_col=MAX_COLUMNS, values_only=True)
            rows = []
            for number, row in enumerate(cells, 1):
                if number == MAX_ROWS:
                    raise ValueError(f"sheet {sheet.title!r} reaches row {MAX_ROWS}")
                # the count first: a sheet may have a million rows of nothing
                if row.count(None) < len(row) and not all(is_blank(cell) for cell in row):
                    rows.append((number, row))
            if rows:
                sheets.append((sheet.title, rows))
    return sheets
