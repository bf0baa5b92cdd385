"""Which sources hold the same bytes. Reads files; decodes none."""

import hashlib
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from looklisten.data.sources import Source, open_source
from looklisten.names import normalize_split, printable

END_BYTES = 2**16
"""So much of the start and of the end of a file is compared first."""


def with_duplicates(
    sources: Sequence[Source], root: Path, known: Sequence[Source] = ()
) -> list[Source]:
    """`sources`, where each copy of an earlier or `known` source names that one in `same_as`.

    A copy gets the video id and the split of the first file, so that the two never make a negative
    pair and never are in two splits.
    """
    first_of = _first_of_equal_files([*known, *sources], root)
    result = []
    for source in sources:
        first = first_of.get(source.path, source)
        if first.path != source.path:
            video_id = first.video_id or first.path
            source = replace(source, same_as=first.path, video_id=video_id, split=first.split)
        result.append(source)
    return result


def _first_of_equal_files(sources: Sequence[Source], root: Path) -> dict[str, Source]:
    """Path -> the first source with the same bytes, for paths that have one.

    Reading is what costs time. So only files of equal size are opened, and read completely only
    those that also begin and end alike.
    """
    by_size: dict[object, dict[str, Source]] = {}
    for source in sources:
        if source.bytes:  # empty files, and files of unknown size, are never compared
            by_size.setdefault(source.bytes, {}).setdefault(source.path, source)
    groups = list(by_size.values())
    # The cheap digest first: it parts nearly all groups.
    for digest in (_digest_of_ends, _digest_of_content):
        groups = _split_groups(groups, digest, root)
    first_of = {}
    for group in groups:
        first = next(iter(group.values()))
        for path in group:
            first_of[path] = first
    return first_of


def _split_groups(
    groups: list[dict[str, Source]], digest: Callable[[Path, Source], bytes], root: Path
) -> list[dict[str, Source]]:
    """Groups of two or more, parted by a digest of their files."""
    smaller: list[dict[str, Source]] = []
    for group in groups:
        if len(group) < 2:
            continue
        by_digest: dict[bytes, dict[str, Source]] = {}
        for path, source in group.items():
            by_digest.setdefault(digest(root, source), {})[path] = source
        smaller += by_digest.values()
    return smaller


def _digest_of_ends(root: Path, source: Source) -> bytes:
    """A digest of the start and end of a file; of one that cannot be read, its path."""
    try:
        with open_source(root, source) as file:
            return _ends(file, source.bytes or 0)
    except Exception:  # whatever a remote server answers costs this file only
        # No other file has this digest: what cannot be read is the copy of nothing.
        return source.path.encode()


def _digest_of_content(root: Path, source: Source) -> bytes:
    try:
        with open_source(root, source) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except Exception:  # whatever a remote server answers costs this file only
        return source.path.encode()


def _ends(file: Any, size: int) -> bytes:
    start = file.read(END_BYTES)
    file.seek(max(size - END_BYTES, 0))
    return hashlib.sha256(start + file.read(END_BYTES)).digest()


def fingerprint(path: Path) -> str:
    """A digest of the first and last 64 kB of a file; "" if it cannot be read.

    With the size it shows whether a file has changed.
    """
    try:
        status = path.stat()
        # To open a pipe would wait for somebody who writes into it.
        if not stat.S_ISREG(status.st_mode):
            return ""
        with path.open("rb") as file:
            return _ends(file, status.st_size).hex()
    except (OSError, ValueError):
        return ""


def moved_duplicates(before: Sequence[Source], after: Sequence[Source]) -> str:
    """A sentence on copies that `with_duplicates` put into another split; "" if there are none."""
    moved = []
    for old, new in zip(before, after, strict=True):
        if normalize_split(old.split) != normalize_split(new.split):
            moved.append((old, new))
    if not moved:
        return ""
    old, new = moved[0]
    example = (
        f"{printable(old.name)} ({old.split or 'no split'}) follows "
        f"{printable(new.same_as)} ({new.split or 'no split'})"
    )
    files = "1 file has" if len(moved) == 1 else f"{len(moved):,} files have"
    more = ", …" if len(moved) > 1 else ""
    return (
        f"{files} the same bytes as a file of another split and the split of that one now: "
        f"{example}{more}"
    )
