"""Names: of files, as text that every format can hold, and of splits, as people write them.

A file name is bytes on most systems, and not every name is UTF-8. `encode_name` gives text for
JSON, Arrow and messages; `decode_name` gives back the name that opens the file. Reads no file.
"""

import os
import re

SPLITS = {
    "train": "train training tr trn trainset",
    "val": "val valid validate validation dev devel development",
    "test": "test testing tst te eval evaluate evaluation",
}
"""The three splits, and how people write each of them; upper case is the same as lower case."""

_SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words.split()}
TRAIN_NAMES = frozenset(SPLITS["train"].split())
HELD_OUT_NAMES = frozenset(_SPLIT_OF) - TRAIN_NAMES

_AMBIGUOUS = re.compile(rb"\\(?=x(?:5c|[89a-f][0-9a-f]))")
_ESCAPED = re.compile(rb"\\x(5c|[89a-f][0-9a-f])")


def parse_split(name: str) -> str:
    """`train`, `val` or `test` where `name` is a usual word for one of them, else ""."""
    return _SPLIT_OF.get(name.strip().casefold(), "")


def normalize_split(name: str) -> str:
    """The split's usual name; one that is not known stays as it is."""
    return parse_split(name) or name.strip()


def encode_name(name: str) -> str:
    r"""A file name as text without lone surrogates: bytes that are not UTF-8 become `\xe9`.

    No two names give the same text: where a name holds such an escape itself, its backslash becomes
    `\x5c`.
    """
    try:
        raw = os.fsencode(name)
    except UnicodeEncodeError:  # no file can have this name
        return name.encode("utf-8", "backslashreplace").decode()
    return _AMBIGUOUS.sub(rb"\\x5c", raw).decode("utf-8", "backslashreplace")


def decode_name(stored: str) -> str:
    """The name that opens the file which `encode_name` stored."""
    raw = stored.encode("utf-8", "backslashreplace")
    return os.fsdecode(_ESCAPED.sub(lambda escape: bytes([int(escape[1], 16)]), raw))


def name_of_bytes(raw: bytes) -> str:
    """The file name of these bytes, as the system's functions take it."""
    return os.fsdecode(raw)


def printable(name: object) -> str:
    r"""A name for a sentence: one line, no control characters; a line feed becomes `\n`."""
    text = encode_name(str(name))
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def first_few(names: list[str], count: int = 3) -> str:
    """The first `count` names for a sentence, with a sign that there are more."""
    listed = ", ".join(printable(name) for name in names[:count])
    return f"{listed}, …" if len(names) > count else listed
