"""Names of files, as text that every format can hold, and names of splits, as people write them.

A file name is bytes on most systems, and not every name is UTF-8. `encode_name` gives text for
JSON, Arrow and messages; `decode_name` gives back the name that opens the file. Reads no file.
"""

import os
import re
from collections.abc import Sequence

SPLITS = {
    "train": "train training tr trn trainset",
    "val": "val valid validate validation dev devel development",
    "test": "test testing tst te eval evaluate evaluation",
}
"""The three splits, and how people write each of them; upper case is the same as lower case."""

_SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words.split()}
TRAIN_NAMES = frozenset(SPLITS["train"].split())
HELD_OUT_NAMES = frozenset(_SPLIT_OF) - TRAIN_NAMES

# A name may itself hold the text of an escape, such as \xe9. Its backslash is then escaped too, so
# that no two names give the same text.
_AMBIGUOUS = re.compile(rb"\\(?=x(?:5c|[89a-f][0-9a-f]))")
_ESCAPE = re.compile(rb"\\x(5c|[89a-f][0-9a-f])")


def parse_split(name: str) -> str:
    """`train`, `val` or `test` if `name` is a usual word for one of them, else ""."""
    return _SPLIT_OF.get(name.strip().casefold(), "")


def normalize_split(name: str) -> str:
    """The usual name of a split; an unknown name stays as it is."""
    return parse_split(name) or name.strip()


def encode_name(name: str) -> str:
    r"""A file name as text without lone surrogates: bytes that are not UTF-8 become `\xe9`."""
    try:
        raw = os.fsencode(name)
    except UnicodeEncodeError:  # no file can have this name
        return name.encode("utf-8", "backslashreplace").decode()
    return _AMBIGUOUS.sub(rb"\\x5c", raw).decode("utf-8", "backslashreplace")


def decode_name(encoded: str) -> str:
    """The name that opens the file: the inverse of `encode_name`."""
    raw = encoded.encode("utf-8", "backslashreplace")
    return os.fsdecode(_ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), raw))


def without_surrogates(text: str) -> str:
    r"""Text that UTF-8 can hold.

    Python keeps bytes of a file name that it cannot decode as lone surrogates. Here they become
    letters where they are UTF-8, else escapes such as `\xe9`. Other text stays as it is.
    """
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        raw = text.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")


def printable(name: object) -> str:
    r"""A name for a sentence: one line, without control characters; a line feed becomes `\n`."""
    letters = []
    for letter in encode_name(str(name)):
        letters.append(letter if letter.isprintable() else repr(letter)[1:-1])
    return "".join(letters)


def first_few(names: Sequence[str], count: int = 3) -> str:
    """The first `count` names for a sentence, and "…" if there are more."""
    listed = ", ".join(printable(name) for name in names[:count])
    return f"{listed}, …" if len(names) > count else listed
