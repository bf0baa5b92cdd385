"""What a verb returns, and how it is printed on stdout: JSON, or tables on a terminal.

Knows no verb. No verb writes to stdout by itself.
"""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from looklisten.names import without_surrogates
from looklisten.system.processes import is_first_process

SUCCESS = 0
FAILURE = 1
WRONG_USAGE = 2
SOME_INPUTS_FAILED = 3
INTERRUPTED = 130
"""The exit codes of the command line."""

MAX_TABLE_ENTRIES = 20
"""A table on a terminal has at most this many entries of one dict; JSON has all of them."""

UNWRAPPED_COLUMNS = ("name", "score", "source")
UNWRAPPED_LETTERS = 32
"""Columns of these names stay in one piece up to this width; the others get what is left."""

Values = Mapping[str, Any]
"""Names and values, with everything that JSON can hold and paths."""


@dataclass(frozen=True)
class Output:
    """The result of a verb: values for stdout, and the exit code."""

    values: Values
    """Printed on stdout; nothing is printed if it is empty."""
    exit_code: int = SUCCESS
    message: str = ""
    """A sentence for stderr."""
    terminal_values: Values | None = None
    """What a terminal shows instead of `values`; None where it shows them."""

    @classmethod
    def of_inputs(cls, values: Values, out: Path | str | None = None) -> "Output":
        """Values that count in `failed` the inputs that failed; if any did, the exit code is 3.

        `out`: the folder whose `failures.jsonl` has the reasons.
        """
        if not values["failed"]:
            return cls(values)
        message = f"inputs that failed are in {out}/failures.jsonl with the reason" if out else ""
        return cls(values, SOME_INPUTS_FAILED, message)


def emit(values: Values, as_json: bool) -> None:
    """Print values on stdout: one line of JSON, or tables.

    Of several training processes only the first one prints.
    """
    if not is_first_process():
        return
    if as_json:
        sys.stdout.write(json.dumps(_json_value(values)) + "\n")
        sys.stdout.flush()
        return
    # Without markup: a file named `a [b].mp4` is printed as it is.
    console = Console(markup=False, emoji=False)
    for table in tables_of(values):
        console.print(table)


def tables_of(values: Values) -> list[Table]:
    """One table of names and values, then one table for each list of records among the values."""
    lines: list[tuple[str, str]] = []
    lists_of_records: list[tuple[str, Sequence[Values]]] = []
    _separate_records(values, "", lines, lists_of_records)

    # Values of one line each come first; tables are below them, wherever they were in the values.
    names_and_values = Table(show_header=False, box=None)
    for name, text in lines:
        names_and_values.add_row(name, text)
    tables = [names_and_values]
    for name, records in lists_of_records:
        # A single list needs no title.
        title = name if len(lists_of_records) > 1 else None
        tables.append(_table_with_headings(title, records))
    return tables


def _separate_records(
    values: Values,
    prefix: str,
    lines: list[tuple[str, str]],
    lists_of_records: list[tuple[str, Sequence[Values]]],
) -> None:
    """Add each value to `lines` or, if it is a list of records, to `lists_of_records`."""
    for key, value in values.items():
        name = prefix + key.replace("_", " ")
        if isinstance(value, Mapping) and value:
            first_entries = dict(list(value.items())[:MAX_TABLE_ENTRIES])
            _separate_records(first_entries, f"{name} ", lines, lists_of_records)
            missing = len(value) - len(first_entries)
            if missing:
                lines.append((f"{name} …", f"and {missing:,} more (--json has all)"))
        elif _is_list_of_records(value):
            lists_of_records.append((name, value))
        else:
            lines.append((name, _cell(value)))


def _is_list_of_records(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(isinstance(item, Mapping) for item in value)


def _table_with_headings(title: str | None, records: Sequence[Values]) -> Table:
    """One row per record and one column per field; a field that a record lacks is an empty cell."""
    # Records of one list may have different fields; a dict keeps their order.
    fields = list(dict.fromkeys(field for record in records for field in record))
    table = Table(box=None, title=title, title_justify="left", title_style="bold")
    columns = []
    for field in fields:
        cells = [_cell(record[field]) if field in record else "" for record in records]
        is_unwrapped = field in UNWRAPPED_COLUMNS and max(map(len, cells)) <= UNWRAPPED_LETTERS
        heading = field.replace("_", " ")
        longest_word = max(map(len, heading.split()))
        # Folded, so that the end of a long path is not lost.
        table.add_column(heading, overflow="fold", no_wrap=is_unwrapped, min_width=longest_word)
        columns.append(cells)
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    return table


def _cell(value: Any) -> str:
    """One value as text for people."""
    if value is None:
        return "–"
    # Before numbers, because bool is a kind of int.
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isnan(value):
        return "–"
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:,.4g}"
    if isinstance(value, (int, float)):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return _joined([f"{key} {_cell(item)}" for key, item in value.items()])
    if isinstance(value, (list, tuple, set, frozenset)):
        return _joined(value)
    return without_surrogates(str(value))


def _joined(items: Iterable[Any]) -> str:
    """Words in one line, sentences below each other, all else with dashes between."""
    values = list(items)
    if not values:
        return "none"
    if not all(isinstance(value, str) for value in values):
        return " – ".join(_cell(value) for value in values)
    has_sentences = any(" " in value for value in values)
    return ("\n" if has_sentences else ", ").join(values)


def _json_value(value: Any) -> Any:
    """The same value in types of JSON: paths become text, infinities and NaN become null."""
    if isinstance(value, Mapping):
        return {_json_value(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    if isinstance(value, (str, Path)):
        # Many programs refuse JSON with lone surrogates, which names of files may hold.
        return without_surrogates(str(value))
    # JSON has no NaN. Python would write one, which other programs cannot read.
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
