"""Results on stdout: JSON, or tables on a terminal."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from looklisten.system.processes import is_first_process

Result = dict[str, Any]

TABULAR = ("rows", "other_sounds", "published")
"""Parts of a result that are records of one kind, which a table shows under headings."""
TABLE_ENTRIES = 20
"""Entries of one part of a result that a table shows; JSON has them all."""


def emit(result: Result, as_json: bool) -> None:
    """The result on stdout: one line of JSON, or a table for people; of many processes the first
    one's.
    """
    if not is_first_process():
        return
    if as_json:
        sys.stdout.write(json.dumps(_plain(result)) + "\n")
        sys.stdout.flush()
        return
    console = Console(markup=False, emoji=False)  # a name in brackets is a name
    table = Table(show_header=False, box=None)
    for name, value in _flat(
        {key: value for key, value in result.items() if key not in TABULAR}
    ).items():
        table.add_row(name.replace("_", " "), value)
    console.print(table)
    for key in filter(result.get, TABULAR):
        console.print(_with_headings(result[key]))


def _with_headings(rows: Sequence[dict[str, Any]]) -> Table:
    """Records of one kind as a table, their fields' names above."""
    table = Table(box=None)
    for heading in rows[0] if rows else ():
        table.add_column(heading.replace("_", " "))
    for row in rows:
        table.add_row(
            *(
                _joined(list(value)) if isinstance(value, (list, tuple)) else _cell(value)
                for value in row.values()
            )
        )
    return table


def _plain(value: Any) -> Any:
    """Paths as text, no-number as null, so that the JSON is JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(result: Result, above: str = "") -> dict[str, str]:
    rows: dict[str, str] = {}
    for key, value in result.items():
        if isinstance(value, dict) and value:
            rows |= _flat(dict(list(value.items())[:TABLE_ENTRIES]), f"{above}{key} ")
            if len(value) > TABLE_ENTRIES:
                rows[f"{above}{key} …"] = (
                    f"and {len(value) - TABLE_ENTRIES:,} more (--json has all)"
                )
        elif (
            isinstance(value, (list, tuple))
            and value
            and all(isinstance(item, dict) for item in value)
        ):
            rows |= {
                f"{above}{key} {item['name']}": " · ".join(
                    _cell(v) for k, v in item.items() if k != "name"
                )
                for item in value
            }
        elif isinstance(value, (dict, list, tuple)):
            rows[above + key] = _joined(list(value))
        else:
            rows[above + key] = _cell(value)
    return rows


def _joined(items: Sequence[Any]) -> str:
    """Numbers as a range, words in a line, sentences under each other."""
    if not all(isinstance(item, str) for item in items):
        return " – ".join(_cell(item) for item in items)
    return ("\n" if any(" " in item for item in items) else ", ").join(items) or "none"


def _cell(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,}"
        if isinstance(value, (int, float))
        else str(value)
    )
