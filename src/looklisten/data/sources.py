"""What the user names -> the list of sources: files, folders, globs, lists, tables, and anything
that fsspec opens.

Knows names, sizes, labels and splits; opens no video. The list depends on the inputs alone, in
order of path.
"""

import fnmatch
import glob
import hashlib
import logging
import os
import re
import stat
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fsspec

from looklisten import tables
from looklisten.data.clips import VideoBox
from looklisten.data.options import LabelSource
from looklisten.errors import ConfigError, SourceError
from looklisten.media.formats import VIDEO_SUFFIXES
from looklisten.names import (
    decode_name,
    encode_name,
    first_few,
    name_of_bytes,
    normalize_split,
    parse_split,
    printable,
)
from looklisten.system.folders import (
    File,
    FolderContents,
    find_files,
    is_left_out,
    other_suffixes_line,
    unreadable_reason,
)

log = logging.getLogger("looklisten")

TABLE_COLUMNS = frozenset(("path", "label", "split", "video_id", "start_seconds", "stop_seconds"))
MISTAKEN_COLUMNS = tables.words_for(
    {
        "path": "file filename filepath file_name file_path name video_path video_file clip clip_path location uri url src source",
        "label": "labels class classes class_name category categories tag tags target annotation caption y",
        "split": "splits fold folds subset set partition phase",
        "video_id": "id ids video videoid vid youtube_id ytid group video_name",
        "start_seconds": """start starts begin start_time time_start start_sec start_secs start_s starttime begin_seconds
            begin_time onset from start_ms t0 t_start""",
        "stop_seconds": """stop stops end ends stop_time end_time time_end end_seconds end_sec end_secs end_s stop_s stop_sec
            endtime offset to end_ms t1 t_end duration duration_seconds length length_seconds""",
    }
)
"""Headings that people write for the columns that are known."""

BOX_COLUMNS = ("path", "time", "x0", "y0", "x1", "y1", "label", "sounding")

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:::[A-Za-z][A-Za-z0-9+.-]*)*://")


@dataclass(frozen=True, slots=True)
class Source:
    """One input video, or the stretch [start, stop) of one.

    `path` starts at the inputs' common folder, so that moving the folder changes nothing; a remote
    one is its whole address. It is text that every format holds (`names.stored_name`); `local_path`
    is what opens the file.
    """

    path: str
    bytes: int | None = None
    """None where finding out would cost a request a file."""
    labels: tuple[str, ...] = ()
    split: str = ""
    video_id: str = ""
    """Sources with one id never make a negative and never fall into two splits; empty: the path."""
    start_seconds: float | None = None
    stop_seconds: float | None = None
    same_as: str = ""
    """The path of an earlier source with the same bytes."""
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
        """Where the file of a local source lies, as the system opens it."""
        return root / decode_name(self.path)


@dataclass(frozen=True)
class Sources:
    """What was found: `root` is the folder that local paths start from, `missing` are names that
    lead to nothing usable.
    """

    root: Path
    found: tuple[Source, ...]
    missing: tuple[str, ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)
    """Why each of `missing` cannot be used."""
    notes: tuple[str, ...] = ()
    """Sentences on what was left out or read with a guess; they are logged too."""


@dataclass
class _Search:
    """What is gathered while inputs are looked through."""

    suffixes: Set[str]
    missing: dict[str, str] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    other_suffixes: Counter[str] = field(default_factory=Counter)
    hidden: int = 0

    def miss(self, name: str, reason: str) -> None:
        self.missing.setdefault(encode_name(name), reason)

    def note(self, *sentences: str) -> None:
        self.notes.update(dict.fromkeys(filter(None, sentences)))

    def all_notes(self) -> tuple[str, ...]:
        hidden = (
            f"{self.hidden:,} hidden files, hidden folders or trash folders were left out"
            if self.hidden
            else ""
        )
        return tuple(filter(None, [*self.notes, other_suffixes_line(self.other_suffixes), hidden]))


def find_sources(
    inputs: Sequence[str | Path],
    labels: LabelSource = "table",
    root: Path | None = None,
    suffixes: Set[str] = VIDEO_SUFFIXES,
) -> Sources:
    """The videos that `inputs` name, in order of name, each once.

    An input is a video, a folder (searched through for files with one of `suffixes`), a glob, a
    text list (`.txt`, one file or folder a line), or a table (`.csv`, `.tsv`, `.parquet`) with a
    column `path` and, if wanted, `label` (several joined by `|`, or a list), `split`, `video_id`,
    `start_seconds` and `stop_seconds`; each may be a local path or an address (`s3://`,
    `https://`). Paths in lists and tables start at the list's folder. With `labels="folder"` the
    label is the name of the folder a video lies in. A file that is named several times gets the
    labels of all its rows. Raises SourceError when an input is not there or holds no video,
    ConfigError when one video is given two splits.
    """
    searched = _Search(suffixes)
    rows: dict[tuple[str, float | None, float | None], Source] = {}
    for given in inputs:
        for source in _expand(str(given), searched):
            key = (source.path, source.start_seconds, source.stop_seconds)
            rows[key] = _joined(rows[key], source) if key in rows else source
    if not rows:
        name, reason = next(iter(searched.missing.items()), ("", ""))
        first = f"; the first of them: {printable(decode_name(name))} ({reason})" if name else ""
        given_names = ", ".join(printable(given) for given in inputs)
        raise SourceError(
            f"{given_names} names {len(searched.missing)} files, and none of them is there{first}"
        )
    root = root or _common_folder(inputs, rows.values())
    sources = [_from_root(source, root, labels) for source in rows.values()]
    _check_splits(sources)
    notes = searched.all_notes()
    for note in notes:
        log.info("%s", note)
    found = tuple(sorted(sources, key=lambda source: source.name))
    return Sources(root, found, tuple(sorted(searched.missing)), searched.missing, notes)


def _joined(first: Source, second: Source) -> Source:
    """One file and stretch that is named twice: its labels are those of both.

    Raises ConfigError when the two contradict each other.
    """
    for what in ("split", "video_id"):
        one, other = getattr(first, what), getattr(second, what)
        if one and other and normalize_split(one) != normalize_split(other):
            raise ConfigError(
                f"{printable(first.name)} is named twice, with the {what} {one!r} and {other!r}; keep one of the two rows"
            )
    return replace(
        first,
        labels=tuple(dict.fromkeys(first.labels + second.labels)),
        split=first.split or second.split,
        video_id=first.video_id or second.video_id,
    )


def _is_remote(path: str) -> bool:
    return _ADDRESS.match(path) is not None


def _expand(given: str, searched: _Search) -> Iterator[Source]:
    """The sources of one input; local paths are absolute and as the system opens them."""
    there = "\0" not in given and os.path.lexists(given)
    remote = _is_remote(given) and not there
    suffix = os.path.splitext(given.partition("?")[0] if remote else given)[1].lower()  # noqa: PTH122 (may be an address)
    is_list = suffix == ".txt" or suffix in tables.SUFFIXES
    if not remote and os.path.isdir(given):  # noqa: PTH112 (the name may be too long for Path)
        yield from _folder(given, searched)
    elif is_list and not remote and not there:
        raise SourceError(f"there is no file or folder {printable(given)}")
    elif suffix == ".txt":
        yield from _list(given, searched)
    elif suffix in tables.SUFFIXES:
        yield from _table(given, searched)
    elif glob.has_magic(given) and not there:
        yield from _glob(given, searched)
    elif remote and (not suffix or given.endswith("/")):
        yield from _folder(given, searched)
    else:
        found = _local(given) if not remote else Source(given)
        if isinstance(found, Source):
            yield found
        elif found == "there is no such file" and not there:
            raise SourceError(f"there is no file or folder {printable(given)}")
        else:
            searched.miss(given, found)


def _local(path: str) -> Source | str:
    """A file of this machine; or why it cannot be one."""
    try:
        about = os.stat(path)  # noqa: PTH116 (Path would lose a leading ./)
    except (OSError, ValueError) as error:
        reason = unreadable_reason(error)
        with_link = isinstance(error, OSError) and os.path.islink(path)  # noqa: PTH114 (path is text)
        return f"a broken link: {reason}" if with_link else reason
    if stat.S_ISDIR(about.st_mode):
        return "it is a folder; a table names files"
    absolute = os.path.abspath(path)  # noqa: PTH100 (resolve would follow links)
    return Source(absolute, about.st_size, modified_ns=about.st_mtime_ns)


def _written(table: str, text: str, searched: _Search) -> Source | None:
    """The source whose name stands in a table or list; None, and noted as missing, when there is
    none.

    The name is tried as it is written, then in the ways that programs change names: see
    `_spellings`.
    """
    if _is_remote(text.strip()) and not os.path.exists(_beside(table, text)):  # noqa: PTH110 (text may hold NUL)
        return Source(text.strip())
    if _is_remote(table):
        return Source(_beside(table, tables.text_of(text)))
    tried = [_local(_beside(table, spelling)) for spelling in [_as_file_name(text)]]
    if not isinstance(tried[0], Source):
        tried += [_local(_beside(table, spelling)) for spelling in _spellings(text)]
    found = next((one for one in tried if isinstance(one, Source)), None)
    if found is None:
        first = tried[0]
        assert isinstance(first, str)
        searched.miss(_beside(table, _as_file_name(text.strip())), first)
    return found


def _as_file_name(text: str) -> str:
    """Text of a list as the system names files, byte by byte, whatever the system's encoding."""
    try:
        return name_of_bytes(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return text


def _spellings(text: str) -> Iterator[str]:
    """Other names that `text` may stand for.

    Without spaces around it; as Latin-1; with accents composed or not, as macOS and others store
    them; with the separator of Windows; as `failures.jsonl` writes it.
    """
    stripped = text.strip()
    yield _as_file_name(stripped)
    latin = tables.text_of(stripped)
    yield _as_file_name(latin)
    yield from (_as_file_name(unicodedata.normalize(form, latin)) for form in ("NFC", "NFD"))
    if "\\" in stripped:
        yield decode_name(latin)
        yield _as_file_name(latin.replace("\\", "/"))


def _list(given: str, searched: _Search) -> Iterator[Source]:
    """The files, folders and addresses that a text list names."""
    lines, notes = tables.lines_of(given, _read(given))
    searched.note(*notes)
    comments = 0
    for line in lines:
        beside = _beside(given, _as_file_name(line.strip()))
        local = not _is_remote(given)
        if tables.is_comment(line) and not (local and os.path.exists(beside)):  # noqa: PTH110 (may hold NUL)
            comments += 1
        elif local and os.path.isdir(beside):  # noqa: PTH112 (may hold NUL)
            yield from _folder(beside, searched)
        elif source := _written(given, line, searched):
            yield source
    if comments == len(lines):
        raise SourceError(f"the list {printable(given)} names no file")


def _folder(folder: str, searched: _Search) -> Iterator[Source]:
    account = (
        _search_remote(folder, searched.suffixes)
        if _is_remote(folder)
        else find_files(folder, searched.suffixes.__contains__)
    )
    yield from _accounted(account, searched)
    if account.files:
        return
    if account.problems:
        path, reason = account.problems[0]
        raise SourceError(
            f"in the folder {printable(folder)} nothing can be read: {printable(path)}: {reason}"
        )
    kinds = ", ".join(sorted(searched.suffixes)[:6])
    what = "video" if searched.suffixes <= VIDEO_SUFFIXES else "sound, picture or video"
    others = account.others()
    raise SourceError(
        f"the folder {printable(folder)} holds no {what} (looked for {kinds} … in it and below){'; ' if others else ''}{others}"
    )


def _accounted(account: FolderContents, searched: _Search) -> Iterator[Source]:
    for path, reason in account.problems:
        searched.miss(path, reason)
    searched.other_suffixes.update(account.other_suffixes)
    searched.hidden += account.hidden
    for file in account.files:
        yield Source(file.path, file.bytes, modified_ns=file.modified_ns)


def _search_remote(folder: str, suffixes: Set[str]) -> FolderContents:
    """Every file below an address, with its size."""
    account = FolderContents()
    with _plainly(folder):
        system, top = fsspec.url_to_fs(folder)
        listed = system.find(top, detail=True)
    for path, about in listed.items():
        parts = path.removeprefix(top).strip("/").split("/")
        suffix = os.path.splitext(parts[-1])[1].lower()  # noqa: PTH122 (an address is no Path)
        if any(map(is_left_out, parts)):
            account.hidden += 1
        elif suffix in suffixes:
            account.files.append(File(system.unstrip_protocol(path), about.get("size"), None))
        else:
            account.other_suffixes[suffix] += 1
    return account


def _glob(pattern: str, searched: _Search) -> Iterator[Source]:
    if _is_remote(pattern):
        with _plainly(pattern):
            system, inside = fsspec.url_to_fs(pattern)
            paths = {
                system.unstrip_protocol(path): about
                for path, about in system.glob(inside, detail=True).items()
            }
        found = [
            Source(path, about.get("size"))
            for path, about in sorted(paths.items())
            if about.get("type") != "directory"
        ]
        folders = len(paths) - len(found)
    else:
        found, folders = _local_glob(pattern, searched)
    if folders:
        searched.note(
            f"{printable(pattern)} matches {folders:,} folders, which were not searched; name them without a pattern"
        )
    if not found:
        raise SourceError(f"no file matches {printable(pattern)}")
    yield from found


def _local_glob(pattern: str, searched: _Search) -> tuple[list[Source], int]:
    """The files that match, and how many folders do."""
    found: list[Source] = []
    folders = 0
    for path in sorted(set(_matches(pattern))):
        if os.path.isdir(path):  # noqa: PTH112 (path is text)
            folders += 1
            continue
        one = _local(path)
        if isinstance(one, Source):
            found.append(one)
        else:
            searched.miss(path, one)
    return found, folders


def _matches(pattern: str) -> Iterator[str]:
    """Local paths that match; with `**` each folder is searched once, so that links in a circle do
    no harm.
    """
    before, stars, after = pattern.partition("**")
    is_folder = before == "" or before.endswith("/")
    below = ["**", *filter(None, after.split("/"))] if after else ["**", "*"]
    if (
        not stars
        or not is_folder
        or (after and not after.startswith("/"))
        or any(part.startswith(".") for part in below)
    ):
        yield from glob.glob(pattern)  # noqa: PTH207 (the pattern may be absolute)
        return
    for top in glob.glob(before) if before else ["."]:  # noqa: PTH207
        account = find_files(top, lambda _: True)
        start = len(os.path.abspath(top).rstrip(os.sep)) + 1  # noqa: PTH100
        for path in [file.path for file in account.files] + [path for path, _ in account.problems]:
            if _fits(path[start:].split(os.sep), below):  # noqa: PTH206 (text, for speed)
                yield path


def _fits(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path, part by part, is as the parts of a pattern say; `**` stands for any number of
    folders.
    """
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_fits(parts[skipped:], patterns[1:]) for skipped in range(len(parts)))
    return (
        bool(parts)
        and fnmatch.fnmatchcase(parts[0], patterns[0])
        and _fits(parts[1:], patterns[1:])
    )


class _plainly:  # noqa: N801 (used like a function)
    """What goes wrong at a remote place, as one sentence that names it."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, ImportError):
            raise SourceError(f"{printable(self._where)} cannot be opened: {error}") from None
        if isinstance(error, Exception) and not isinstance(error, SourceError):
            raise SourceError(
                f"{printable(self._where)} cannot be opened: {type(error).__name__}: {error}"
            ) from error


def _read(path: str) -> bytes:
    with _plainly(path):
        if not _is_remote(path):
            return Path(path).read_bytes()
        with fsspec.open(path, "rb") as file:
            data: bytes = file.read()
    return data


def _beside(table: str, path: str) -> str:
    """A path as it is written in a table or list: from the folder of that."""
    if _is_remote(table):
        return f"{table.rpartition('/')[0]}/{path}"
    return os.path.join(os.path.dirname(table), path)  # noqa: PTH118, PTH120 (path may be no possible name)


def _table(table: str, searched: _Search) -> Iterator[Source]:
    read = tables.read_table(table, _read(table))
    if not read.rows and "path" in read.columns:
        raise SourceError(f"the table {printable(table)} has no rows")
    searched.note(
        *read.notes, *tables.check_columns(read, ("path",), TABLE_COLUMNS, MISTAKEN_COLUMNS)
    )
    comments = 0
    for row in read.rows:
        start, stop = row.seconds("start_seconds"), row.seconds("stop_seconds")
        if stop is not None and stop <= (start or 0):
            raise SourceError(
                f"{row.where}: stop_seconds {stop:g} is not after start_seconds {start or 0:g}"
            )
        given = row.cells.get("path")
        text = given if isinstance(given, str) else row.text("path")
        if not text.strip():
            searched.miss(row.where, "this row has no path")
            continue
        if (
            tables.is_comment(text)
            and not _is_remote(table)
            and not os.path.exists(_beside(table, _as_file_name(text)))  # noqa: PTH110
        ):
            comments += 1
            continue
        source = _written(table, text, searched)
        if source:
            yield replace(
                source,
                labels=row.texts("label"),
                split=row.text("split"),
                video_id=row.text("video_id"),
                start_seconds=start,
                stop_seconds=stop,
            )
    if comments == len(read.rows):
        raise SourceError(f"the table {printable(table)} names no file")
    if comments:
        searched.note(f"{printable(table)}: rows that begin with # were left out ({comments:,})")


def read_boxes(table: str | Path) -> dict[str, list[VideoBox]]:
    """Boxes of each video by its path in the table; times are seconds of the video.

    Raises SourceError when a column is lacking or a cell is no number.
    """
    read = tables.read_table(str(table), _read(str(table)))
    for note in (*read.notes, *tables.check_columns(read, BOX_COLUMNS, frozenset(BOX_COLUMNS), {})):
        log.info("%s", note)
    boxes: dict[str, list[VideoBox]] = defaultdict(list)
    for row in read.rows:
        video_seconds = row.seconds("time")
        if video_seconds is None:
            raise SourceError(f"{row.where}: the time is missing")
        x0, y0, x1, y1 = (row.number(corner) for corner in ("x0", "y0", "x1", "y1"))
        given = row.cells.get("path")
        name = given if isinstance(given, str) else row.text("path")
        path = encode_name(_as_file_name(name.strip())).removeprefix("./")
        boxes[path].append(
            VideoBox(video_seconds, x0, y0, x1, y1, row.text("label"), row.truth("sounding"))
        )
    return boxes


def _common_folder(inputs: Sequence[str | Path], sources: Iterable[Source]) -> Path:
    """The lowest folder that holds all local inputs and all that lists and tables name."""
    named = [
        Path(given).absolute()
        for given in map(str, inputs)
        if not _is_remote(given) and (os.path.lexists(given) or not glob.has_magic(given))
    ]
    folders = {path if path.is_dir() else path.parent for path in named}
    folders |= {Path(source.path).parent for source in sources if not _is_remote(source.path)}
    return Path(os.path.commonpath(folders)) if folders else Path.cwd()


def _from_root(source: Source, root: Path, labels: LabelSource) -> Source:
    is_remote = _is_remote(source.path)
    path = encode_name(
        source.path if is_remote else Path(os.path.relpath(source.path, root)).as_posix()
    )
    if labels == "table":
        return replace(source, path=path)
    folder = path.rpartition("/")[0].rpartition("/")[2]
    return replace(source, path=path, labels=(folder,) if folder and folder != ".." else ())


def _check_splits(sources: Sequence[Source]) -> None:
    splits: dict[str, Source] = {}
    for source in sources:
        first = splits.setdefault(source.video_id or source.path, source)
        if normalize_split(first.split) != normalize_split(source.split):
            raise ConfigError(
                f"{printable(source.name)} is in the split {source.split!r} and {printable(first.name)}, of the same video, in {first.split!r}; "
                f"give all clips of one video one split"
            )


def check_mixture(sources: Sequence[Source]) -> None:
    """See that all of `sources` have a split or none. Raises ConfigError for a mixture."""
    without = [source.name for source in sources if not source.split]
    if not without or len(without) == len(sources):
        return
    named = ", ".join(sorted({repr(source.split) for source in sources if source.split}))
    raise ConfigError(
        f"{len(without):,} of {len(sources):,} sources have no split, and the others are in {named}; "
        f"give each a split, or none. Without a split: {first_few(without)}"
    )


def unknown_splits(sources: Sequence[Source]) -> str:
    """A sentence on splits whose names are not usual; "" when there are none."""
    names = Counter(
        source.split for source in sources if source.split and not parse_split(source.split)
    )
    if not names:
        return ""
    listed = ", ".join(f"{printable(name)} ({count:,})" for name, count in sorted(names.items()))
    return f"splits of these names are held out from training, and only train is trained on: {listed} sources"


def open_source(root: Path, source: Source) -> Any:
    """The bytes of a source as a file; a context manager."""
    if _is_remote(source.path):
        return fsspec.open(decode_name(source.path), "rb")
    return source.local_path(root).open("rb")


def mark_duplicates(
    sources: Sequence[Source], root: Path, known: Sequence[Source] = ()
) -> list[Source]:
    """`sources`, each that has the same bytes as an earlier one (or one `known` before) saying so
    in `same_as`.

    Only files of equal size are read, and whole only those that also begin and end alike. A
    duplicate takes over the video's id and split, so that the two never make a negative and never
    fall into two splits.
    """
    alike: dict[object, dict[str, Source]] = {None: {}}
    for source in (*known, *sources):
        alike.setdefault(source.bytes or None, {}).setdefault(source.path, source)
    del alike[None]  # empty, or of unknown size
    for looked_at in (_ends, _whole):
        finer: dict[object, dict[str, Source]] = {}
        for key, group in alike.items():
            for path, source in group.items() if len(group) > 1 else ():
                finer.setdefault((key, looked_at(root, source)), {})[path] = source
        alike = finer
    first_of = {path: next(iter(group.values())) for group in alike.values() for path in group}
    marked = []
    for source in sources:
        first = first_of.get(source.path, source)
        if first.path != source.path:
            source = replace(
                source, same_as=first.path, video_id=first.video_id or first.path, split=first.split
            )
        marked.append(source)
    return marked


def moved_duplicates(before: Sequence[Source], after: Sequence[Source]) -> str:
    """A sentence on duplicates that `mark_duplicates` put into another split; "" when there are
    none.
    """
    moved = [
        (old, new)
        for old, new in zip(before, after, strict=True)
        if normalize_split(old.split) != normalize_split(new.split)
    ]
    if not moved:
        return ""
    old, new = moved[0]
    first = f"{printable(old.name)} ({old.split or 'no split'}) follows {printable(new.same_as)} ({new.split or 'no split'})"
    files = "1 file has" if len(moved) == 1 else f"{len(moved):,} files have"
    return f"{files} the same bytes as a file of another split and the split of that one now: {first}{', …' if len(moved) > 1 else ''}"


def fingerprint(path: Path) -> str:
    """What tells a file from another of its size: a digest of its first and last 64 kB; "" when it
    cannot be read.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            return ""
        with path.open("rb") as file:
            return _digest_of_ends(file, about.st_size).hex()
    except (OSError, ValueError):
        return ""


def _digest_of_ends(file: Any, size: int) -> bytes:
    head = file.read(2**16)
    file.seek(max(size - 2**16, 0))
    return hashlib.sha256(head + file.read(2**16)).digest()


def _ends(root: Path, source: Source) -> bytes:
    """The first and last 64 kB of a file; of one that cannot be read, what no other has."""
    try:
        with open_source(root, source) as file:
            return _digest_of_ends(file, source.bytes or 0)
    except Exception:  # whatever a remote place answers costs this file only
        return source.path.encode()


def _whole(root: Path, source: Source) -> bytes:
    try:
        with open_source(root, source) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except Exception:  # whatever a remote place answers costs this file only
        return source.path.encode()
