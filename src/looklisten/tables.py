"""A table or a text list -> its rows. CSV and Parquet follow the same rules. Knows no media."""

import csv
import difflib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from looklisten.cells import (
    cell_boolean,
    cell_number,
    cell_seconds,
    cell_text,
    cell_texts,
    is_missing,
)
from looklisten.errors import SourceError
from looklisten.names import printable

SUFFIXES = frozenset((".csv", ".tsv", ".parquet"))
DELIMITERS = (",", ";", "\t")
SIMILAR = 0.8
"""A heading this similar to a known one is taken for a spelling mistake."""

_INTEGER_WITH_POINT = re.compile(r"-?\d+\.0+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
# What Excel writes above the headings.
_SEPARATOR_LINE = re.compile(r"\A\ufeff?sep=.\r?\n", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    location: str
    """Table and line, for messages."""
    cells: Mapping[str, Any]
    """Value of each column, by its heading in lower case."""

    def _read(self, column: str, convert: Callable[[Any], Any]) -> Any:
        try:
            return convert(self.cells.get(column))
        except ValueError as error:
            raise SourceError(f"{self.location}: {error}, in the column {column}") from None

    def text(self, column: str) -> str:
        """One value; "" if missing."""
        text: str = self._read(column, cell_text)
        return text

    def texts(self, column: str) -> tuple[str, ...]:
        """Several values, each once."""
        texts: tuple[str, ...] = self._read(column, cell_texts)
        return texts

    def seconds(self, column: str) -> float | None:
        """A time from the start of the file; None if missing."""
        seconds: float | None = self._read(column, cell_seconds)
        return seconds

    def number(self, column: str) -> float:
        """A finite number, which may not be missing."""
        number: float = self._read(column, cell_number)
        return number

    def boolean(self, column: str) -> bool:
        """Yes or no, which may not be missing."""
        truth: bool = self._read(column, cell_boolean)
        return truth


@dataclass(frozen=True)
class Table:
    """The rows of a table that have at least one value."""

    name: str
    columns: tuple[str, ...]
    """The headings in lower case, in their order."""
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    """Sentences on what was guessed."""


def read_table(name: str, data: bytes) -> Table:
    """Read a table. Its name decides: `.parquet`, or CSV with comma, semicolon or tab.

    Raises SourceError if it cannot be read or has two columns of one name.
    """
    if name.partition("?")[0].lower().endswith(".parquet"):
        return _from_parquet(name, data)
    return _from_csv(name, data)


def heading_of(text: object) -> str:
    """A heading as it is compared: lower case, no outer spaces, `_` for spaces and hyphens."""
    return re.sub(r"[\s-]+", "_", str(text).strip().strip("\ufeff").strip()).casefold()


def _headings(name: str, written: Sequence[object]) -> tuple[str, ...]:
    headings = tuple(heading_of(text) for text in written)
    counts = Counter(filter(None, headings))
    repeated = sorted(heading for heading, count in counts.items() if count > 1)
    if repeated:
        raise SourceError(
            f"the table {printable(name)} has two columns named {', '.join(repeated)}; "
            "remove or rename one"
        )
    return headings


def _from_csv(name: str, data: bytes) -> Table:
    text, notes = decode_text(name, data)
    text = _SEPARATOR_LINE.sub("", text, count=1)
    try:
        lines = _csv_lines(text)
    except csv.Error as error:
        raise SourceError(f"the table {printable(name)} cannot be read: {error}") from None
    # Comments may stand above the headings.
    while lines and is_comment(lines[0][1][0]):
        lines = lines[1:]
    columns = _headings(name, lines[0][1]) if lines else ()
    body = []
    for line, cells in lines[1:]:
        if any(cell.strip() for cell in cells):
            body.append((line, cells))
    for line, cells in body:
        # A separator in a cell without quotes moves all that follows into wrong columns.
        if any(cell.strip() for cell in cells[len(columns) :]) and not is_comment(cells[0]):
            raise SourceError(
                f"{printable(name)}, line {line}: has {len(cells)} cells where the heading has "
                f"{len(columns)}; put a cell that holds the separator into quotes"
            )
    body = _without_nan(columns, body)
    integer_columns = _integer_columns(columns, [cells for _, cells in body])
    rows = []
    for line, cells in body:
        values = {column: cell for column, cell in zip(columns, cells, strict=False) if column}
        for column in integer_columns & values.keys():
            values[column] = values[column].strip().partition(".")[0]
        rows.append(Row(f"{printable(name)}, line {line}", values))
    return Table(name, columns, tuple(rows), notes)


def _csv_lines(text: str) -> list[tuple[int, list[str]]]:
    """Line numbers and cells of the lines that are not empty."""
    # In `a.mp4, "cat, dog"` the quote opens a cell although a space is before it.
    after_space = re.search(r"[,;\t] +\"", text) is not None
    delimiter = _delimiter(text)
    # newline="" leaves line ends in quoted cells as they are, as the module `csv` asks for.
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=after_space
    )
    return [(reader.line_num, cells) for cells in reader if cells]


def _delimiter(text: str) -> str:
    """What separates the headings: comma, semicolon or tab, whichever is most frequent."""
    for line in text.splitlines():
        if line.strip() and not is_comment(line):
            outside_quotes = re.sub(r'"[^"]*"', "", line)
            # max takes the first of equals, and the comma is the first delimiter.
            return max(DELIMITERS, key=outside_quotes.count)
    return ","


def _without_nan(
    columns: Sequence[str], body: Sequence[tuple[int, list[str]]]
) -> list[tuple[int, list[str]]]:
    """The lines, with no value for each `nan` in a column of numbers.

    Python writes a missing number so. In a column of words `nan` is a word.
    """
    texts: list[set[str]] = [set() for _ in columns]
    for _, cells in body:
        for column_texts, cell in zip(texts, cells, strict=False):
            column_texts.add(cell.strip().casefold())
    of_numbers = set()
    for number, column_texts in enumerate(texts):
        values = column_texts - {"", "nan"}
        # A file may be named `nan`.
        if values and columns[number] != "path" and all(map(_NUMBER.fullmatch, values)):
            of_numbers.add(number)
    cleaned = []
    for line, cells in body:
        new_cells = list(cells)
        for number in of_numbers.intersection(range(len(cells))):
            if cells[number].strip().casefold() == "nan":
                new_cells[number] = ""
        cleaned.append((line, new_cells))
    return cleaned


def _integer_columns(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> set[str]:
    """Columns of nothing but `1.0`, `2.0`.

    pandas writes integers so if values are missing among them.
    """
    with_values: set[str] = set()
    with_other_values: set[str] = set()
    for cells in rows:
        for column, cell in zip(columns, cells, strict=False):
            if not cell.strip():
                continue
            with_values.add(column)
            if not _INTEGER_WITH_POINT.fullmatch(cell.strip()):
                with_other_values.add(column)
    # A file may be named `1.0`.
    return with_values - with_other_values - {"path"}


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
        cells = {}
        for column, column_values in zip(columns, values, strict=True):
            if column:
                cells[column] = column_values[number]
        if not all(is_missing(cell) for cell in cells.values()):
            rows.append(Row(f"{printable(name)}, row {number + 1}", cells))
    return Table(name, columns, tuple(rows))


def _values(column: pa.ChunkedArray) -> list[Any]:
    """The values as Python objects; nanoseconds, which Python cannot hold, become microseconds."""
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
    # Arrow gives a map as a list of pairs, which would pass for a list of labels.
    if pa.types.is_map(kind):
        return [None if value is None else dict(value) for value in column.to_pylist()]
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:  # a column of type text that holds other bytes
        values = column.cast(pa.binary()).to_pylist()
    return values


_BYTE_ORDER_MARKS = (
    # UTF-32 first: its mark begins like that of UTF-16.
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def decode_text(name: str, data: bytes) -> tuple[str, tuple[str, ...]]:
    """(the text of a table or list, a note if it is not UTF-8).

    UTF-16 and UTF-32 are recognized by their byte-order mark. Bytes that are not UTF-8 stay in the
    text as surrogates: a file name is taken byte by byte, other text as Latin-1.
    """
    for byte_order_mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(byte_order_mark):
            try:
                return data.decode(encoding), ()
            except UnicodeDecodeError as error:
                raise SourceError(
                    f"{printable(name)} begins as {encoding.upper()} and is damaged: {error}; "
                    "save it as UTF-8"
                ) from None
    # Every other byte of Latin text in UTF-16 is 0.
    if len(data) > 3 and (data[1:20:2].count(0) > 8 or data[0:20:2].count(0) > 8):
        raise SourceError(
            f"{printable(name)} looks like UTF-16 without a byte-order mark; save it as UTF-8"
        )
    # -sig, because Excel and others write a byte-order mark before UTF-8 too.
    text = data.decode("utf-8-sig", "surrogateescape")
    surrogate = re.search("[\udc80-\udcff]", text)
    if not surrogate:
        return text, ()
    line = text.count("\n", 0, surrogate.start()) + 1
    note = (
        f"{printable(name)} is not UTF-8 from line {line} on: names are taken byte by byte, "
        "or as Latin-1 where that names a file; other text as Latin-1. "
        "Save it as UTF-8 where this is wrong"
    )
    return text, (note,)


def text_lines(name: str, data: bytes) -> tuple[list[str], tuple[str, ...]]:
    """(the lines of a text list that are not empty, notes)."""
    text, notes = decode_text(name, data)
    # Not str.splitlines, which also splits at characters that a file name may hold.
    return [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()], notes


def check_columns(
    table: Table, required: Sequence[str], known: Set[str], synonyms: Mapping[str, str]
) -> list[str]:
    """See that a table has the columns that are `required`.

    `synonyms`: headings that people write for known ones -> the known one. A table with a synonym,
    or a heading that is nearly spelled like a known one, is refused if the known one is missing:
    what the column holds would be lost.

    Returns a note on columns that are ignored, or nothing. Raises SourceError.
    """
    name = printable(table.name)
    columns = [column for column in table.columns if column]
    meant = {}
    for column in columns:
        if column not in known:
            meant[column] = _meant_column(column, known, synonyms)
    missing = [column for column in required if column not in columns]
    if missing:
        parts = [
            f"the table {name} lacks the column {', '.join(missing)}",
            f"it has {', '.join(map(printable, columns)) or 'none'}",
        ]
        for column, known_column in meant.items():
            if known_column in missing:
                parts.append(f"did you mean {known_column} by {printable(column)}?")
        raise SourceError("; ".join(parts))
    mistakes = []
    for column, known_column in meant.items():
        if known_column and known_column not in columns:
            mistakes.append(f"{printable(column)} (did you mean {known_column}?)")
    if mistakes:
        raise SourceError(
            f"the table {name} has columns that are not known: {', '.join(mistakes)}; "
            "rename them, or remove them"
        )
    ignored = [printable(column) for column in meant]
    if len(columns) < len(table.columns):
        ignored.append("one without a heading")
    if not ignored:
        return []
    return [f"{name}: ignored columns: {', '.join(ignored)}; known are {', '.join(sorted(known))}"]


def _meant_column(column: str, known: Set[str], synonyms: Mapping[str, str]) -> str:
    """The known column that `column` was probably meant to be, or ""."""
    if column in synonyms:
        return synonyms[column]
    near = difflib.get_close_matches(column, sorted(known), 1, SIMILAR)
    return near[0] if near else ""


def synonym_map(known: Mapping[str, str]) -> dict[str, str]:
    """`{"label": "class labels"}` inverted: each word -> the column that it stands for."""
    columns = {}
    for column, words in known.items():
        for word in words.split():
            columns[word] = column
    return columns


def is_comment(text: str) -> bool:
    """Whether a line of a list is a comment; the caller sees whether a file has that name."""
    return text.lstrip().startswith("#")


def as_records(table: Table, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """The rows as text, by column: those of `columns` that the table has.

    Other columns may hold anything, such as lists.
    """
    present = [column for column in columns if column in table.columns]
    for row in table.rows:
        yield {column: row.text(column) for column in present}
