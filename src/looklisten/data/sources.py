"""What the user names -> the list of sources: files, folders, globs, lists, tables, and anything that fsspec opens.

Knows names, sizes, labels and splits; opens no video. The list depends on the inputs alone, in order of path.
"""

import csv
import glob
import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import fsspec
import pyarrow as pa
from pyarrow import parquet

from looklisten.data.shards import Box
from looklisten.errors import ConfigError, SourceError

_SUFFIXES = """
    3g2 3gp asf avi divx dv f4v flv m2t m2ts m2v m4v mj2 mkv mov mp4 mpe mpeg mpg mts mxf nut ogm ogv ps qt rm rmvb ts vob webm wmv
"""
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""What counts as a video in a folder; a file named by itself is tried whatever its name."""

_SOUND_SUFFIXES = "aac ac3 aif aiff amr ape au caf flac m4a mka mp2 mp3 oga ogg opus spx wav wma wv"
_PICTURE_SUFFIXES = "avif bmp gif jfif jp2 jpeg jpg pgm png ppm tif tiff webp"
MEDIA_SUFFIXES = VIDEO_SUFFIXES | {f".{suffix}" for suffix in f"{_SOUND_SUFFIXES} {_PICTURE_SUFFIXES}".split()}
"""What can be embedded."""

Labels = Literal["table", "folder"]


@dataclass(frozen=True, slots=True)
class Source:
    """One input video, or the stretch [start, stop) of one.

    `path` starts at the inputs' common folder, so that moving the folder changes nothing; a remote one is its whole address.
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

    @property
    def name(self) -> str:
        """The path, and the stretch as a media fragment (W3C) where it is one."""
        if self.start_seconds is None and self.stop_seconds is None:
            return self.path
        stop = "" if self.stop_seconds is None else f",{self.stop_seconds:g}"
        return f"{self.path}#t={self.start_seconds or 0:g}{stop}"


@dataclass(frozen=True)
class Sources:
    """What was found: `root` is the folder that local paths start from, `missing` are names in tables that lead to no file."""

    root: Path
    found: tuple[Source, ...]
    missing: tuple[str, ...] = ()


def find_sources(
    inputs: Sequence[str | Path], labels: Labels = "table", root: Path | None = None, suffixes: Set[str] = VIDEO_SUFFIXES
) -> Sources:
    """The videos that `inputs` name, in order of name, each once.

    An input is a video, a folder (searched through for files with one of `suffixes`), a glob, a text list (`.txt`, one input a
    line), or a table (`.csv`, `.parquet`) with a column `path` and, if wanted, `label` (several joined by `|`), `split`, `video_id`,
    `start_seconds` and `stop_seconds`; each may be a local path or an address (`s3://`, `https://`). Paths in lists and tables
    start at the list's folder. With `labels="folder"` the label is the name of the folder a video lies in.
    Raises SourceError when an input is not there or holds no video, ConfigError when one video is given two splits.
    """
    rows: dict[tuple[str, float | None, float | None], Source] = {}
    missing: list[str] = []
    for given in inputs:
        for source in _expand(str(given), missing, suffixes):
            rows.setdefault((source.path, source.start_seconds, source.stop_seconds), source)
    if not rows:
        first = f"; the first of them: {missing[0]}" if missing else ""
        raise SourceError(f"{', '.join(map(str, inputs))} names {len(missing)} files, and none of them is there{first}")
    root = root or _common_folder(inputs, rows.values())
    sources = [_from_root(source, root, labels) for source in rows.values()]
    _check_splits(sources)
    return Sources(root, tuple(sorted(sources, key=lambda source: source.name)), tuple(sorted(missing)))


def _is_remote(path: str) -> bool:
    return "://" in path


def _expand(given: str, missing: list[str], suffixes: Set[str]) -> Iterator[Source]:
    suffix = Path(given.partition("?")[0]).suffix.lower()
    remote = _is_remote(given)
    if suffix == ".txt":
        for line in _read(given).decode("utf-8", "replace").splitlines():
            if line.strip() and not line.startswith("#"):
                yield from _named(_beside(given, line.strip()), missing)
    elif suffix in (".csv", ".parquet"):
        yield from _table(given, missing)
    elif not remote and Path(given).is_dir():
        yield from _folder(given, suffixes)
    elif glob.has_magic(given) and (remote or not Path(given).exists()):
        yield from _glob(given)
    elif remote and (not suffix or given.endswith("/")):
        yield from _folder(given, suffixes)
    elif not remote and not Path(given).exists():
        raise SourceError(f"there is no file or folder {given}")
    else:
        yield from _named(given, missing)


def _named(path: str, missing: list[str]) -> Iterator[Source]:
    """One video by its name; whether a remote one is there shows when it is fetched."""
    if _is_remote(path):
        yield Source(path)
        return
    try:
        yield Source(os.path.abspath(path), Path(path).stat().st_size)  # noqa: PTH100 (resolve would follow links)
    except OSError:
        missing.append(path)


def _folder(folder: str, suffixes: Set[str]) -> Iterator[Source]:
    found = 0
    for path, size in _walk(folder):
        name = path.rpartition("/")[2] if _is_remote(path) else Path(path).name
        if Path(name).suffix.lower() in suffixes and not name.startswith("."):
            found += 1
            yield Source(path, size)
    if not found:
        kinds = ", ".join(sorted(suffixes)[:6])
        what = "video" if suffixes <= VIDEO_SUFFIXES else "sound, picture or video"
        raise SourceError(f"the folder {folder} holds no {what} (looked for {kinds} … in it and below)")


def _walk(folder: str) -> Iterator[tuple[str, int | None]]:
    """Every file below a folder, with its size."""
    if not _is_remote(folder):
        for path in Path(folder).absolute().rglob("*"):
            if path.is_file():
                yield str(path), path.stat().st_size
        return
    with _plainly(folder):
        system, top = fsspec.url_to_fs(folder)
        for path, about in system.find(top, detail=True).items():
            yield system.unstrip_protocol(path), about.get("size")


def _glob(pattern: str) -> Iterator[Source]:
    if _is_remote(pattern):
        with _plainly(pattern):
            system, inside = fsspec.url_to_fs(pattern)
            paths = {system.unstrip_protocol(path): about for path, about in system.glob(inside, detail=True).items()}
            found = [Source(path, about.get("size")) for path, about in sorted(paths.items()) if about.get("type") != "directory"]
    else:
        files = map(Path, sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207 (the pattern may be absolute)
        found = [Source(str(file.absolute()), file.stat().st_size) for file in files if file.is_file()]
    if not found:
        raise SourceError(f"no file matches {pattern}")
    yield from found


class _plainly:  # noqa: N801 (used like a function)
    """What goes wrong at a remote place, as one sentence that names it."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ImportError):
            raise SourceError(f"{self._where} cannot be opened: {error}") from None
        if isinstance(error, Exception) and not isinstance(error, SourceError):
            raise SourceError(f"{self._where} cannot be opened: {type(error).__name__}: {error}") from error


def _read(path: str) -> bytes:
    with _plainly(path), fsspec.open(path, "rb") as file:
        data: bytes = file.read()
    return data


def _beside(table: str, path: str) -> str:
    """A path as it is written in a table or list: from the folder of that."""
    if _is_remote(path):
        return path
    if _is_remote(table):
        return f"{table.rpartition('/')[0]}/{path}"
    return str(Path(table).parent / path)


def _table(table: str, missing: list[str]) -> Iterator[Source]:
    rows = _rows(table, {"path"})
    if not rows:
        raise SourceError(f"the table {table} has no rows")
    for number, row in enumerate(rows, 2):
        start, stop = (_seconds(row.get(name), table, number) for name in ("start_seconds", "stop_seconds"))
        if stop is not None and stop <= (start or 0):
            raise SourceError(f"{table}, line {number}: stop_seconds {stop:g} is not after start_seconds")
        for source in _named(_beside(table, str(row["path"])), missing):
            labels = tuple(filter(None, (part.strip() for part in str(row.get("label") or "").split("|"))))
            split, video_id = (str(row.get(name) or "") for name in ("split", "video_id"))
            yield replace(source, labels=labels, split=split, video_id=video_id, start_seconds=start, stop_seconds=stop)


def _seconds(value: Any, table: str, line: int) -> float | None:
    try:
        return None if value is None or value == "" or value != value else float(value)
    except ValueError:
        raise SourceError(f"{table}, line {line}: {value!r} is no number of seconds") from None


def _rows(table: str, columns: set[str]) -> list[dict[str, Any]]:
    data = _read(table)
    rows: list[dict[str, Any]]
    try:
        if table.lower().endswith(".parquet"):
            rows = parquet.read_table(io.BytesIO(data)).to_pylist()
        else:
            rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise SourceError(f"the table {table} cannot be read: {error}") from None
    if rows and not columns <= rows[0].keys():
        raise SourceError(
            f"the table {table} lacks the column {', '.join(sorted(columns - rows[0].keys()))}; it has {', '.join(map(str, rows[0]))}"
        )
    return rows


def read_boxes(table: str | Path) -> dict[str, list[Box]]:
    """Boxes of each video by its path in the table; times are seconds of the video."""
    boxes: dict[str, list[Box]] = defaultdict(list)
    for row in _rows(str(table), {"path", "time", "x0", "y0", "x1", "y1", "label", "sounding"}):
        x0, y0, x1, y1 = (float(row[c]) for c in ("x0", "y0", "x1", "y1"))
        boxes[row["path"]].append(Box(float(row["time"]), x0, y0, x1, y1, row["label"], str(row["sounding"]) in ("1", "true", "True")))
    return boxes


def _common_folder(inputs: Sequence[str | Path], sources: Iterable[Source]) -> Path:
    """The lowest folder that holds all local inputs and all that lists and tables name."""
    named = [Path(given).absolute() for given in map(str, inputs) if not _is_remote(given) and not glob.has_magic(given)]
    folders = {path if path.is_dir() else path.parent for path in named}
    folders |= {Path(source.path).parent for source in sources if not _is_remote(source.path)}
    return Path(os.path.commonpath(folders)) if folders else Path.cwd()


def _from_root(source: Source, root: Path, labels: Labels) -> Source:
    path = source.path if _is_remote(source.path) else Path(os.path.relpath(source.path, root)).as_posix()
    if labels == "table":
        return replace(source, path=path)
    folder = path.rpartition("/")[0].rpartition("/")[2]
    return replace(source, path=path, labels=(folder,) if folder and folder != ".." else ())


def _check_splits(sources: Sequence[Source]) -> None:
    splits: dict[str, Source] = {}
    for source in sources:
        first = splits.setdefault(source.video_id or source.path, source)
        if first.split != source.split:
            raise ConfigError(
                f"{source.name} is in the split {source.split!r} and {first.name}, of the same video, in {first.split!r}; "
                f"give all clips of one video one split"
            )


def open_source(root: Path, source: Source) -> Any:
    """The bytes of a source as a file; a context manager."""
    return fsspec.open(source.path if _is_remote(source.path) else str(root / source.path), "rb")


def mark_duplicates(sources: Sequence[Source], root: Path, known: Sequence[Source] = ()) -> list[Source]:
    """`sources`, each that has the same bytes as an earlier one (or one `known` before) saying so in `same_as`.

    Only files of equal size are read, and whole only those that also begin and end alike. A duplicate takes over the video's
    id, so that the two never make a negative and never fall into two splits by chance.
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
        same = first.path != source.path
        marked.append(replace(source, same_as=first.path, video_id=first.video_id or first.path) if same else source)
    return marked


def _ends(root: Path, source: Source) -> bytes:
    """The first and last 64 kB of a file; of one that cannot be read, what no other has."""
    try:
        with open_source(root, source) as file:
            head = file.read(2**16)
            file.seek(max((source.bytes or 0) - 2**16, 0))
            return hashlib.sha256(head + file.read(2**16)).digest()
    except OSError:
        return source.path.encode()


def _whole(root: Path, source: Source) -> bytes:
    try:
        with open_source(root, source) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return source.path.encode()
