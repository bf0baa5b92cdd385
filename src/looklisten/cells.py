"""One cell of a table -> text, several texts, seconds, a number, yes or no.

A value is missing if it is None, NaN, NaT or empty text, and only then: 0 and False are values.
Knows no file.
"""

import datetime
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from numbers import Real
from typing import Any

from looklisten.names import printable

# A list as Python and NumPy print it, such as ['a', 'b'] or [1. 2.].
_ITEM = r"""'[^']*'|"[^"]*"|-?\d+(?:\.\d+)?"""
_LIST = re.compile(rf"\[\s*(?:(?:{_ITEM})(?:\s*,\s*|\s+|(?=\])))*\]")

# 1:02:03.5, 1:30, or 1 day, 2:03:04, as programs print a duration.
_CLOCK = re.compile(r"(?:(\d+) days?,? \+?)?(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d*)?)")

# 0,125 and 12,5 are numbers with a decimal comma. 1,500 may be fifteen hundred, so it is refused.
_DECIMAL_COMMA = re.compile(r"\d+,\d{1,2}|0,\d+")

_TRUE = {"true", "yes", "y", "t", "1"}
_FALSE = {"false", "no", "n", "f", "0"}


def is_missing(value: Any) -> bool:
    """None, NaN, NaT and text of nothing but spaces; nothing else."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    # Only NaN differs from itself.
    if isinstance(value, (Real, Decimal)) and value != value:
        return True
    return type(value).__name__ == "NaTType"  # of pandas, which need not be installed


def cell_text(value: Any) -> str:
    """A single cell as text: numbers without `.0`, a missing value as "".

    Raises ValueError for lists and records.
    """
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return _from_bytes(value.strip())
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace").strip()
    if isinstance(value, (list, tuple, dict, set)):
        kind = "record" if isinstance(value, dict) else "list"
        raise ValueError(f"{value!r} is a {kind}, where one value is expected")
    if isinstance(value, Decimal):
        # `f`, because `normalize` alone makes 1E+2 of 100.
        return format(value.normalize(), "f")
    if isinstance(value, int):
        return str(value)  # True is an int and becomes "True"
    if isinstance(value, Real):
        number = float(value)
        return str(int(number)) if number.is_integer() else str(number)
    return str(value)


def cell_texts(value: Any) -> tuple[str, ...]:
    """A cell of several values: a list, text joined by `|`, or a list as Python prints it."""
    if isinstance(value, (list, tuple, set)):
        texts: list[str] = []
        for item in value:
            texts += cell_texts(item) if isinstance(item, (list, tuple)) else [cell_text(item)]
        return _unique(texts)
    text = cell_text(value)
    is_printed_list = _LIST.fullmatch(text) is not None
    if is_printed_list:
        parts = [item.strip("'\"") for item in re.findall(_ITEM, text)]
    else:
        parts = text.split("|")
    return _unique(part.strip() for part in parts)


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts that are not empty, each once, in order."""
    return tuple(dict.fromkeys(filter(None, texts)))


def cell_seconds(value: Any) -> float | None:
    """Seconds from a number, a duration, a time of day or text (`1.5`, `mm:ss`, `h:mm:ss`).

    None if missing. Raises ValueError for dates and other values, and for times below 0.
    """
    if is_missing(value) or (isinstance(value, str) and value.strip().casefold() in ("nan", "nat")):
        return None
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError(f"{_quoted(value)} is no number of seconds")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{_quoted(value)} is no time in a file; seconds are 0 or more")
    return seconds


def _seconds(value: Any) -> float | None:
    # bool is a kind of int, but True is no time.
    if isinstance(value, (bool, datetime.datetime, datetime.date)):
        return None
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.time):
        whole_seconds = (value.hour * 60 + value.minute) * 60 + value.second
        return whole_seconds + value.microsecond / 1e6
    if isinstance(value, (Real, Decimal)):
        return float(value)
    text = cell_text(value)
    if clock := _CLOCK.fullmatch(text):
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        whole_minutes = (days * 24 + hours) * 60 + minutes
        # 1:75 is a mistake, and no other way to write 2:15.
        return whole_minutes * 60 + seconds if seconds < 60 else None
    if _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return None


def cell_boolean(value: Any) -> bool:
    """Yes or no from a boolean, 0 or 1, or a word. Raises ValueError for anything else."""
    word = cell_text(value).casefold()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"{_quoted(value)} is neither yes nor no (write 1 or 0)")
    return word in _TRUE


def _quoted(value: Any) -> str:
    return repr(printable(value)) if isinstance(value, str) else str(value)


def _from_bytes(text: str) -> str:
    """The text of a cell of `decode_text`: one that is not UTF-8 is Latin-1."""
    if not re.search("[\ud800-\udfff]", text):
        return text
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def cell_number(value: Any) -> float:
    """A finite number. Raises ValueError for anything else, and for a missing value."""
    try:
        text = cell_text(value).strip()
        if _DECIMAL_COMMA.fullmatch(text.lstrip("-")):
            text = text.replace(",", ".")
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{_quoted(value)} is no number")
    return number
