"""A table or a text list -> its rows. CSV and Parquet are read by the same rules, so that the same
cells mean the same.

A value is missing when it is None, NaN, NaT or empty text, and only then: 0 and False are values.
Knows no media.
"""

import csv
import datetime
import difflib
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from looklisten.errors import SourceError
from looklisten.names import printable

SUFFIXES = frozenset((".csv", ".tsv", ".parquet"))
DELIMITERS = (",", ";", "\t")
SIMILAR = 0.8
"""A heading so like a known one is taken for a mistake in writing."""

_ITEM = r"""'[^']*'|"[^"]*"|-?\d+(?:\.\d+)?"""
_LIST = re.compile(rf"\[\s*(?:(?:{_ITEM})(?:\s*,\s*|\s+|(?=\])))*\]")
_CLOCK = re.compile(r"(?:(\d+) days?,? \+?)?(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d*)?)")
_WHOLE = re.compile(r"-?\d+\.0+")
_SEPARATOR_LINE = re.compile(r"\A\ufeff?sep=.\r?\n", re.IGNORECASE)
"""What Excel writes above the headings."""

_DECIMAL_COMMA = re.compile(r"\d+,\d{1,2}|0,\d+")
_TRUE = {"true", "yes", "y", "t", "1"}
_FALSE = {"false", "no", "n", "f", "0"}


def is_missing(value: Any) -> bool:
    """None, NaN, NaT and text of nothing but spaces; nothing else."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    return (
        bool(isinstance(value, (Real, Decimal)) and value != value)
        or type(value).__name__ == "NaTType"
    )


def cell_text(value: Any) -> str:
    """A single cell as text: numbers without `.0`, missing as "". Raises ValueError for lists and
    records.
    """
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return _from_bytes(value.strip())
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace").strip()
    if isinstance(value, (list, tuple, dict, set)):
        raise ValueError(
            f"{value!r} is a {'record' if isinstance(value, dict) else 'list'}, where one value is expected"
        )
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, int):
        return str(value)  # of True, the word
    if isinstance(value, Real):
        number = float(value)
        return str(int(number)) if number.is_integer() else str(number)
    return str(value)


def cell_texts(value: Any) -> tuple[str, ...]:
    """A cell of several values: a list, text joined by `|`, or a list as Python and NumPy print it."""
    if isinstance(value, (list, tuple, set)):
        inner = [
            text
            for item in value
            for text in (
                cell_texts(item) if isinstance(item, (list, tuple)) else (cell_text(item),)
            )
        ]
        return tuple(dict.fromkeys(filter(None, inner)))
    text = cell_text(value)
    printed = _LIST.fullmatch(text)
    parts = [item.strip("'\"") for item in re.findall(_ITEM, text)] if printed else text.split("|")
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def cell_seconds(value: Any) -> float | None:
    """Seconds out of a number, a duration, a time of day or text (`1.5`, `mm:ss`, `h:mm:ss`); None
    when missing.

    Raises ValueError for what is no time from the beginning of a file, or is below 0.
    """
    if is_missing(value) or (isinstance(value, str) and value.strip().casefold() in ("nan", "nat")):
        return None
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError(f"{_plain(value)} is no number of seconds")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{_plain(value)} is no time in a file; seconds are 0 or more")
    return seconds


def _seconds(value: Any) -> float | None:
    if isinstance(value, (bool, datetime.datetime, datetime.date)):
        return None
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.time):
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    if isinstance(value, (Real, Decimal)):
        return float(value)
    text = cell_text(value)
    if clock := _CLOCK.fullmatch(text):
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        whole_minutes = (days * 24 + hours) * 60 + minutes
        return whole_minutes * 60 + seconds if seconds < 60 else None
    if _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return None


def cell_boolean(value: Any) -> bool:
    """Yes or no out of a boolean, 0 and 1, or a word. Raises ValueError for anything else."""
    word = cell_text(value).casefold()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"{_plain(value)} is neither yes nor no (write 1 or 0)")
    return word in _TRUE


def _plain(value: Any) -> str:
    return repr(printable(value)) if isinstance(value, str) else str(value)


@dataclass(frozen=True)
class Row:
    """One row of a table; `where` names table and line for messages. Columns have their headings in
    lower case.
    """

    where: str
    cells: Mapping[str, Any]

    def _read(self, column: str, how: Any) -> Any:
        try:
            return how(self.cells.get(column))
        except ValueError as error:
            raise SourceError(f"{self.where}: {error}, in the column {column}") from None

    def text(self, column: str) -> str:
        """One value; "" when missing."""
        text: str = self._read(column, cell_text)
        return text

    def texts(self, column: str) -> tuple[str, ...]:
        """Several values, each once."""
        texts: tuple[str, ...] = self._read(column, cell_texts)
        return texts

    def seconds(self, column: str) -> float | None:
        """A time from the beginning of the file."""
        seconds: float | None = self._read(column, cell_seconds)
        return seconds

    def number(self, column: str) -> float:
        """A finite number, which may not be missing."""
        try:
            text = cell_text(self.cells.get(column)).strip()
            number = float(
                text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text.lstrip("-")) else text
            )
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise SourceError(
                f"{self.where}: {_plain(self.cells.get(column))} is no number, in the column {column}"
            )
        return number

    def boolean(self, column: str) -> bool:
        """Yes or no, which may not be missing."""
        truth: bool = self._read(column, cell_boolean)
        return truth


@dataclass(frozen=True)
class Table:
    """`columns` are the headings in lower case, in their order; rows without any value are left
    out.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    """What a user wants to know of how it was read."""


def read_table(name: str, data: bytes) -> Table:
    """The table `data`; the suffix of `name` says whether it is Parquet or CSV (separated by comma,
    semicolon or tab).

    Raises SourceError when it cannot be read or has two columns of one name.
    """
    if name.partition("?")[0].lower().endswith(".parquet"):
        return _from_parquet(name, data)
    return _from_csv(name, data)


def heading_of(text: object) -> str:
    """A heading as it is compared: without spaces around it, in lower case, `_` for a space or a
    hyphen within.
    """
    return re.sub(r"[\s-]+", "_", str(text).strip().strip("\ufeff").strip()).casefold()


def _headings(name: str, given: Sequence[object]) -> tuple[str, ...]:
    headings = tuple(heading_of(text) for text in given)
    twice = sorted({heading for heading in headings if heading and headings.count(heading) > 1})
    if twice:
        raise SourceError(
            f"the table {printable(name)} has two columns named {', '.join(twice)}; remove or rename one"
        )
    return headings


def _from_csv(name: str, data: bytes) -> Table:
    text, notes = decode_text(name, data)
    text = _SEPARATOR_LINE.sub("", text, count=1)
    try:
        lines = _csv_lines(text)
    except csv.Error as error:
        raise SourceError(f"the table {printable(name)} cannot be read: {error}") from None
    first = next(
        (number for number, (_, cells) in enumerate(lines) if not is_comment(cells[0])), len(lines)
    )
    columns = _headings(name, lines[first][1]) if first < len(lines) else ()
    body = [
        (line, cells) for line, cells in lines[first + 1 :] if any(cell.strip() for cell in cells)
    ]
    for line, cells in body:
        if any(cell.strip() for cell in cells[len(columns) :]) and not is_comment(cells[0]):
            raise SourceError(
                f"{printable(name)}, line {line}: has {len(cells)} cells where the heading has {len(columns)}; "
                "put a cell that holds the separator into quotes"
            )
    whole = _whole_number_columns(columns, [cells for _, cells in body])
    rows = []
    for line, cells in body:
        values = {column: cell for column, cell in zip(columns, cells, strict=False) if column}
        for column in whole & values.keys():
            values[column] = values[column].strip().partition(".")[0]
        rows.append(Row(f"{printable(name)}, line {line}", values))
    return Table(name, columns, tuple(rows), notes)


def _csv_lines(text: str) -> list[tuple[int, list[str]]]:
    """Line numbers and cells, without lines of nothing."""
    after_space = re.search(r"[,;\t] +\"", text) is not None  # `a.mp4, "cat, dog"`
    delimiter = _delimiter(text)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=after_space
    )
    return [(reader.line_num, cells) for cells in reader if cells]


def _delimiter(text: str) -> str:
    """What separates the headings: of comma, semicolon and tab the one that is there most often."""
    for line in text.splitlines():
        if line.strip() and not is_comment(line):
            return max(
                DELIMITERS,
                key=lambda delimiter: (_outside_quotes(line).count(delimiter), delimiter == ","),
            )
    return ","


def _outside_quotes(line: str) -> str:
    return re.sub(r'"[^"]*"', "", line)


def _whole_number_columns(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> set[str]:
    """Columns of nothing but `1.0`, `2.0`: whole numbers that a program wrote with missing ones
    among them.
    """
    found: dict[str, bool] = {}
    for cells in rows:
        for column, cell in zip(columns, cells, strict=False):
            if cell.strip():
                found[column] = (
                    found.get(column, True) and _WHOLE.fullmatch(cell.strip()) is not None
                )
    return {column for column, whole in found.items() if whole and column != "path"}


def _from_parquet(name: str, data: bytes) -> Table:
    try:
        table = parquet.ParquetFile(io.BytesIO(data)).read()
        columns = _headings(name, table.column_names)
        values = [_values(column) for column in table.columns]
    except (pa.ArrowException, UnicodeDecodeError, ValueError, OSError) as error:
        first_line = str(error).partition("\n")[0]
        raise SourceError(f"the table {printable(name)} cannot be read: {first_line}") from None
    rows = []
    for number in range(table.num_rows):
        cells = {column: of[number] for column, of in zip(columns, values, strict=True) if column}
        if not all(is_missing(cell) for cell in cells.values()):
            rows.append(Row(f"{printable(name)}, row {number + 1}", cells))
    return Table(name, columns, tuple(rows))


def _values(column: pa.ChunkedArray) -> list[Any]:
    """The values as Python objects; nanoseconds, which Python has not, become microseconds."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = kind.value_type
    coarser = {
        pa.types.is_duration: pa.duration("us"),
        pa.types.is_time64: pa.time64("us"),
        pa.types.is_timestamp: pa.timestamp("us"),
    }
    for is_kind, microseconds in coarser.items():
        if is_kind(kind):
            column = column.cast(microseconds, safe=False)
    if pa.types.is_float16(kind) or pa.types.is_float32(kind):
        # As numbers of 64 bits 0.1 would be 0.10000000149011612.
        return [None if value is None else float(str(value)) for value in column.to_numpy()]
    if pa.types.is_map(kind):
        return [None if value is None else dict(value) for value in column.to_pylist()]
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:  # text that a careless program wrote
        values = column.cast(pa.binary()).to_pylist()
    return values


def decode_text(name: str, data: bytes) -> tuple[str, tuple[str, ...]]:
    """The text of a table or list, and a note where it is not UTF-8 (UTF-16 and UTF-32 are known by
    their byte-order mark).

    Bytes that are not UTF-8 stay in the text as surrogates: a file name is taken byte by byte,
    other text as Latin-1.
    """
    for mark, encoding in (
        (b"\xff\xfe\0\0", "utf-32"),
        (b"\0\0\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if data.startswith(mark):
            try:
                return data.decode(encoding), ()
            except UnicodeDecodeError as error:
                raise SourceError(
                    f"{printable(name)} begins as {encoding.upper()} and is damaged: {error}; save it as UTF-8"
                ) from None
    if len(data) > 3 and (data[1:20:2].count(0) > 8 or data[0:20:2].count(0) > 8):
        raise SourceError(
            f"{printable(name)} looks like UTF-16 without a byte-order mark; save it as UTF-8"
        )
    text = data.decode("utf-8-sig", "surrogateescape")
    odd = re.search("[\udc80-\udcff]", text)
    if not odd:
        return text, ()
    line = text.count("\n", 0, odd.start()) + 1
    note = (
        f"{printable(name)} is not UTF-8 from line {line} on: names are taken byte by byte, or as Latin-1 where that names a file; "
        "other text as Latin-1. Save it as UTF-8 where this is wrong"
    )
    return text, (note,)


def _from_bytes(text: str) -> str:
    """Text out of a cell of `decode_text`: one that is not UTF-8 is Latin-1."""
    if not re.search("[\ud800-\udfff]", text):
        return text
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def text_lines(name: str, data: bytes) -> tuple[list[str], tuple[str, ...]]:
    """The lines of a text list without their ends, and notes. Only line feeds and returns end a
    line.
    """
    text, notes = decode_text(name, data)
    return [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()], notes


def check_columns(
    table: Table, required: Sequence[str], known: Set[str], mistaken: Mapping[str, str]
) -> list[str]:
    """See that a table has what is `required`, and say which columns beside the `known` ones it
    has.

    `mistaken` are headings that people write for known ones: heading to known one. Such a column is
    an error where the known one is lacking, and so is one that is nearly spelled like it: what it
    holds would be lost. Returns a note, or nothing. Raises SourceError.
    """
    name, has = printable(table.name), [column for column in table.columns if column]
    meant = {column: _meant(column, known, mistaken) for column in has if column not in known}
    lacking = [column for column in required if column not in has]
    if lacking:
        hints = [
            f"did you mean {right} by {printable(wrong)}?"
            for wrong, right in meant.items()
            if right in lacking
        ]
        listed = ", ".join(map(printable, has)) or "none"
        said = "; ".join(
            [f"the table {name} lacks the column {', '.join(lacking)}", f"it has {listed}", *hints]
        )
        raise SourceError(said)
    wrong = {column: right for column, right in meant.items() if right and right not in has}
    if wrong:
        listed = ", ".join(
            f"{printable(column)} (did you mean {right}?)" for column, right in wrong.items()
        )
        raise SourceError(
            f"the table {name} has columns that are not known: {listed}; rename them, or remove them"
        )
    unnamed = len(table.columns) - len(has)
    ignored = [printable(column) for column in meant] + ["one without a heading"] * min(unnamed, 1)
    if not ignored:
        return []
    return [f"{name}: ignored columns: {', '.join(ignored)}; known are {', '.join(sorted(known))}"]


def _meant(column: str, known: Set[str], mistaken: Mapping[str, str]) -> str:
    """The known column that `column` was probably meant to be, or ""."""
    if column in mistaken:
        return mistaken[column]
    near = difflib.get_close_matches(column, sorted(known), 1, SIMILAR)
    return near[0] if near else ""


def synonym_map(known: Mapping[str, str]) -> dict[str, str]:
    """`{"label": "class labels"}` turned around: each word to the column that it stands for."""
    return {word: column for column, words in known.items() for word in words.split()}


def is_comment(text: str) -> bool:
    """Whether a line of a list is a remark; a file whose name begins so is told apart by being
    there.
    """
    return text.lstrip().startswith("#")


def as_records(table: Table) -> Iterator[dict[str, str]]:
    """Rows as plain text by column, for readers of tables that others made."""
    for row in table.rows:
        yield {column: row.text(column) for column in table.columns if column}
