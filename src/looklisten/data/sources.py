"""Input videos as records, their paths as lists write them, and the rules of their splits.

Opens no video.
"""

import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec

from looklisten import tables
from looklisten.cells import cell_text
from looklisten.errors import ConfigError
from looklisten.names import decode_name, first_few, normalize_split, parse_split, printable

# Also addresses such as simplecache::s3://bucket/a.mp4: fsspec chains file systems with `::`.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:::[A-Za-z][A-Za-z0-9+.-]*)*://")


@dataclass(frozen=True, slots=True)
class Source:
    """One input video, or the stretch [start, stop) of one."""

    path: str
    """Relative to the common folder of the inputs, so that the folder can be moved; a remote one is
    its full address. It is text that every format can hold (`names.encode_name`)."""
    bytes: int | None = None
    """None where finding out would cost a request for each file."""
    labels: tuple[str, ...] = ()
    split: str = ""
    video_id: str = ""
    """Sources with one id never make a negative pair and are never in two splits; "": the path."""
    start_seconds: float | None = None
    stop_seconds: float | None = None
    same_as: str = ""
    """The path of an earlier source with the same bytes."""
    # Not compared, because a copy or a checkout changes the time and not the content.
    modified_ns: int | None = field(default=None, compare=False)
    """When the file was last written, in nanoseconds since 1970; None for remote ones."""

    @property
    def name(self) -> str:
        """The path, and the stretch as a media fragment (W3C) where it is one."""
        if self.start_seconds is None and self.stop_seconds is None:
            return self.path
        stop = "" if self.stop_seconds is None else f",{self.stop_seconds:g}"
        return f"{self.path}#t={self.start_seconds or 0:g}{stop}"

    def local_path(self, root: Path) -> Path:
        """The path that opens the file of a local source."""
        return root / decode_name(self.path)

    def named_in(self, sentence: str, path: str) -> str:
        """The sentence with the user's name of the source in place of `path`, a fetched copy."""
        # Errors of Python quote a path with escapes.
        as_python_prints_it = repr(path)[1:-1]
        for written in (path, as_python_prints_it):
            sentence = sentence.replace(written, self.name)
        return sentence.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class SourceList:
    """What a user's inputs name."""

    root: Path
    """The common folder, from which local paths start."""
    sources: tuple[Source, ...]
    """In order of name."""
    unusable: dict[str, str] = field(default_factory=dict)
    """Names of files that cannot be used, and why."""
    notes: tuple[str, ...] = ()
    """Sentences on what was left out or guessed; they are logged too."""


def is_remote(path: str) -> bool:
    """Whether a path is an address such as s3://bucket/video.mp4."""
    return _ADDRESS.match(path) is not None


def absolute_address(name: str | Path) -> str:
    """A path or an address, for processes that work in another folder."""
    return str(name) if is_remote(str(name)) else str(Path(name).absolute())


def open_source(root: Path, source: Source) -> Any:
    """The bytes of a source as a file; a context manager."""
    if is_remote(source.path):
        return fsspec.open(decode_name(source.path), "rb")
    return source.local_path(root).open("rb")


@contextmanager
def path_on_this_machine(root: Path, source: Source) -> Iterator[Path]:
    """A path on this machine; the copy of a remote source is deleted afterwards."""
    if not is_remote(source.path):
        yield source.local_path(root)
        return
    with TemporaryDirectory(prefix="looklisten-") as scratch:
        path = Path(scratch) / Path(source.path.partition("?")[0]).name
        with open_source(root, source) as remote, path.open("wb") as copy:
            shutil.copyfileobj(remote, copy, 2**20)
        yield path


def check_no_stretches(verb: str, sources: Iterable[Source]) -> None:
    """See that all of `sources` are whole files. Raises ConfigError."""
    for source in sources:
        if source.start_seconds is not None or source.stop_seconds is not None:
            raise ConfigError(
                f"{verb} takes whole files, and this table names stretches; remove start_seconds "
                "and stop_seconds"
            )


def merge_rows(first: Source, second: Source) -> Source:
    """One file and stretch that is named twice: it has the labels of both.

    Raises ConfigError if the two contradict each other.
    """
    for column in ("split", "video_id"):
        values = (getattr(first, column), getattr(second, column))
        # `train` and `Training` do not contradict each other.
        if all(values) and normalize_split(values[0]) != normalize_split(values[1]):
            raise ConfigError(
                f"{printable(first.name)} is named twice, with the {column} {values[0]!r} and "
                f"{values[1]!r}; keep one of the two rows"
            )
    return replace(
        first,
        labels=tuple(dict.fromkeys(first.labels + second.labels)),
        split=first.split or second.split,
        video_id=first.video_id or second.video_id,
    )


def check_splits(sources: Iterable[Source]) -> None:
    """See that no video is in two splits. Raises ConfigError."""
    first_of_video: dict[str, Source] = {}
    for source in sources:
        first = first_of_video.setdefault(source.video_id or source.path, source)
        if normalize_split(first.split) != normalize_split(source.split):
            raise ConfigError(
                f"{printable(source.name)} is in the split {source.split!r} and "
                f"{printable(first.name)}, of the same video, in {first.split!r}; "
                "give all clips of one video one split"
            )


def check_mixture(sources: Sequence[Source]) -> None:
    """See that all of `sources` have a split, or none. Raises ConfigError."""
    without = [source.name for source in sources if not source.split]
    if not without or len(without) == len(sources):
        return
    # Where any split is named, all but `train` is held out: these would be lost without a word.
    splits = sorted({repr(source.split) for source in sources if source.split})
    raise ConfigError(
        f"{len(without):,} of {len(sources):,} sources have no split, and the others are in "
        f"{', '.join(splits)}; give each a split, or none. "
        f"Without a split: {first_few(without)}"
    )


def unknown_splits(sources: Iterable[Source]) -> str:
    """A sentence on splits whose names are not usual; "" if there are none."""
    counts: Counter[str] = Counter()
    for source in sources:
        if source.split and not parse_split(source.split):
            counts[source.split] += 1
    if not counts:
        return ""
    listed = ", ".join(f"{printable(name)} ({count:,})" for name, count in sorted(counts.items()))
    return (
        "splits of these names are held out from training, and only train is trained on: "
        f"{listed} sources"
    )


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
