"""Paths as lists and tables write them: where they start, and how their names are spelled."""

import os
import unicodedata
from collections.abc import Iterator

from looklisten import tables
from looklisten.cells import cell_text
from looklisten.data.sources import is_remote
from looklisten.names import decode_name


def as_file_name(text: str) -> str:
    """The file name whose bytes are those of `text` in UTF-8, whatever the system's encoding."""
    try:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return text


def spellings(text: str) -> Iterator[str]:
    """Other names that `text` may stand for."""
    stripped = text.strip()
    yield as_file_name(stripped)
    # A list that is not UTF-8 may be Latin-1 where the name on the disk is UTF-8.
    readable = cell_text(stripped)
    yield as_file_name(readable)
    # macOS and other systems store accents composed or decomposed.
    yield as_file_name(unicodedata.normalize("NFC", readable))
    yield as_file_name(unicodedata.normalize("NFD", readable))
    if "\\" in stripped:
        yield decode_name(readable)  # as failures.jsonl writes it
        yield as_file_name(readable.replace("\\", "/"))  # as Windows separates folders


def next_to(list_path: str, path: str) -> str:
    """A path from a table or list, relative to the folder of that table or list."""
    if is_remote(list_path):
        return f"{list_path.rpartition('/')[0]}/{path}"
    return os.path.join(os.path.dirname(list_path), path)  # noqa: PTH118, PTH120 (may be no path)


def path_cell(row: tables.Row) -> str:
    """The column `path` as it is written."""
    # A file name may hold bytes that no encoding can decode, so it is not read as text first.
    cell = row.cells.get("path")
    return cell if isinstance(cell, str) else row.text("path")
