"""What a user names -> the list of sources: files, folders, globs, lists, tables and addresses.

The list depends on the inputs alone, in order of name. Opens lists and tables, but no video.
"""

import glob
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import fsspec

from looklisten import tables
from looklisten.cells import cell_text
from looklisten.data.options import LabelSource
from looklisten.data.sources import (
    Source,
    SourceList,
    as_file_name,
    check_splits,
    is_remote,
    merge_rows,
    next_to,
    path_cell,
    spellings,
)
from looklisten.errors import SourceError
from looklisten.media.formats import VIDEO_SUFFIXES
from looklisten.media.synth.options import COLLAGE_COLUMNS, WORLD_COLUMNS
from looklisten.names import decode_name, encode_name, printable
from looklisten.option_checks import check_one_of
from looklisten.system.folders import (
    File,
    FolderContents,
    find_files,
    is_left_out,
    match_paths,
    other_suffixes_line,
    unreadable_reason,
)

_log = logging.getLogger("looklisten")


SOURCE_COLUMNS = frozenset(("path", "label", "split", "video_id", "start_seconds", "stop_seconds"))


# Headings that people write for the known columns. If a table has such a heading but not the known
# column, it is an error. Otherwise its labels or times would be silently ignored.
SYNONYMS = tables.synonym_map(
    {
        "path": """file filename filepath file_name file_path name video_path video_file clip
            clip_path location uri url src source""",
        "label": """labels class classes class_name category categories tag tags target annotation
            caption y""",
        "split": "splits fold folds subset set partition phase",
        "video_id": "id ids video videoid vid youtube_id ytid group video_name",
        "start_seconds": """start starts begin start_time time_start start_sec start_secs start_s
            starttime begin_seconds begin_time onset from start_ms t0 t_start""",
        "stop_seconds": """stop stops end ends stop_time end_time time_end end_seconds end_sec
            end_secs end_s stop_s stop_sec endtime offset to end_ms t1 t_end duration
            duration_seconds length length_seconds""",
    }
)


NO_SUCH_FILE = "there is no such file"


@dataclass
class _Search:
    """What is gathered while inputs are expanded."""

    suffixes: Set[str]
    unusable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    other_suffixes: Counter[str] = field(default_factory=Counter)
    hidden: int = 0

    def add_unusable(self, name: str, reason: str) -> None:
        self.unusable.setdefault(encode_name(name), reason)

    def add_notes(self, *sentences: str) -> None:
        for sentence in sentences:
            if sentence and sentence not in self.notes:
                self.notes.append(sentence)

    def add_contents(self, contents: FolderContents) -> None:
        for path, reason in contents.problems:
            self.add_unusable(path, reason)
        self.other_suffixes.update(contents.other_suffixes)
        self.hidden += contents.hidden

    def all_notes(self) -> tuple[str, ...]:
        notes = [*self.notes, other_suffixes_line(self.other_suffixes)]
        if self.hidden:
            notes.append(f"{self.hidden:,} hidden files or folders and trash folders were left out")
        return tuple(filter(None, notes))


def find_sources(
    inputs: Sequence[str | Path],
    labels: LabelSource = "table",
    root: Path | None = None,
    suffixes: Set[str] = VIDEO_SUFFIXES,
) -> SourceList:
    """The videos that `inputs` name, in order of name, each once.

    An input is a file, a folder (searched for files with one of `suffixes`), a glob, a text list
    (`.txt`, one file or folder a line), or a table (`.csv`, `.tsv`, `.parquet`). Each may be a
    local path or an address (`s3://`, `https://`). A table has the column `path` and optionally
    `label` (several joined by `|`, or a list), `split`, `video_id`, `start_seconds` and
    `stop_seconds`. Relative paths in a list or table are relative to its folder.

    With `labels="folder"` the label is the name of the folder of a video. Rows with the same file,
    start and stop become one source with all their labels. `root`: the common folder, if it is
    known.

    Raises SourceError if an input does not exist or holds no video, ConfigError if one video is
    given two splits.
    """
    check_one_of(LabelSource, labels=labels)
    search = _Search(suffixes)
    sources: dict[tuple[str, float | None, float | None], Source] = {}
    for name in inputs:
        for source in _expand(str(name), search):
            key = (source.path, source.start_seconds, source.stop_seconds)
            sources[key] = merge_rows(sources[key], source) if key in sources else source
    if not sources:
        raise SourceError(_nothing_usable(inputs, search))
    root = root or _common_folder(inputs, sources.values())
    relative = [_from_root(source, root, labels) for source in sources.values()]
    check_splits(relative)
    notes = search.all_notes()
    for note in notes:
        _log.info("%s", note)
    in_order = tuple(sorted(relative, key=lambda source: source.name))
    return SourceList(root, in_order, dict(sorted(search.unusable.items())), notes)


def _nothing_usable(inputs: Sequence[str | Path], search: _Search) -> str:
    names = ", ".join(printable(name) for name in inputs)
    sentence = f"{names} names {len(search.unusable)} files, and none of them can be used"
    for name, reason in search.unusable.items():
        return f"{sentence}; the first: {printable(decode_name(name))} ({reason})"
    return sentence


def _expand(name: str, search: _Search) -> Iterator[Source]:
    """The sources of one input; local paths are absolute and as the system opens them."""
    # What exists is taken as it is, even if its name looks like an address or a glob. os.path is
    # used here because a name may be no possible path.
    exists = "\0" not in name and os.path.lexists(name)
    remote = is_remote(name) and not exists
    without_query = name.partition("?")[0] if remote else name
    suffix = os.path.splitext(without_query)[1].lower()  # noqa: PTH122
    is_list = suffix == ".txt" or suffix in tables.SUFFIXES
    # Before the suffixes: a folder named `videos.txt` is a folder.
    if not remote and os.path.isdir(name):  # noqa: PTH112
        yield from _folder(name, search)
    elif is_list and not remote and not exists:
        raise SourceError(f"there is no file or folder {printable(name)}")
    elif suffix == ".txt":
        yield from _list(name, search)
    elif suffix in tables.SUFFIXES:
        yield from _table(name, search)
    elif glob.has_magic(name) and not exists:
        yield from _glob(name, search)
    # To ask a server what an address is costs a request, so its name decides.
    elif remote and (not suffix or name.endswith("/")):
        yield from _folder(name, search)
    elif remote:
        yield Source(name)
    else:
        source = _local(name)
        if isinstance(source, Source):
            yield source
        # A mistyped name is an error. A broken link is one failed source.
        elif source == NO_SUCH_FILE and not exists:
            raise SourceError(f"there is no file or folder {printable(name)}")
        else:
            search.add_unusable(name, source)


def _local(path: str) -> Source | str:
    """A file of this machine, or the reason why it cannot be one."""
    try:
        status = os.stat(path)  # noqa: PTH116 (Path would lose a leading ./)
    except (OSError, ValueError) as error:
        reason = unreadable_reason(error)
        is_link = isinstance(error, OSError) and os.path.islink(path)  # noqa: PTH114
        return f"a broken link: {reason}" if is_link else reason
    if stat.S_ISDIR(status.st_mode):
        return "it is a folder; a table names files"
    absolute = os.path.abspath(path)  # noqa: PTH100 (resolve would follow links)
    return Source(absolute, status.st_size, modified_ns=status.st_mtime_ns)


def _listed_file(list_path: str, text: str, search: _Search) -> Source | None:
    """The source that a table or list names; None, and noted as unusable, if there is none.

    Tries the name as written, then the other spellings that `spellings` gives.
    """
    if is_remote(text.strip()) and not os.path.exists(next_to(list_path, text)):  # noqa: PTH110
        return Source(text.strip())
    if is_remote(list_path):
        # The server is not asked for the file: that would cost a request for each row.
        return Source(next_to(list_path, cell_text(text)))
    first = _local(next_to(list_path, as_file_name(text)))
    if isinstance(first, Source):
        return first
    for spelling in spellings(text):
        source = _local(next_to(list_path, spelling))
        if isinstance(source, Source):
            return source
    search.add_unusable(next_to(list_path, as_file_name(text.strip())), first)
    return None


def _list(list_path: str, search: _Search) -> Iterator[Source]:
    """The files, folders and addresses that a text list names."""
    lines, notes = tables.text_lines(list_path, read_bytes(list_path))
    search.add_notes(*notes)
    comments = 0
    for line in lines:
        path = next_to(list_path, as_file_name(line.strip()))
        local = not is_remote(list_path)
        # os.path, because a line may hold a NUL character, which Path refuses.
        if tables.is_comment(line) and not (local and os.path.exists(path)):  # noqa: PTH110
            comments += 1
        elif local and os.path.isdir(path):  # noqa: PTH112
            yield from _folder(path, search)
        elif source := _listed_file(list_path, line, search):
            yield source
    if comments == len(lines):
        raise SourceError(f"the list {printable(list_path)} names no file")


def _folder(folder: str, search: _Search) -> Iterator[Source]:
    if is_remote(folder):
        contents = _find_remote_files(folder, search.suffixes)
    else:
        contents = find_files(folder, search.suffixes.__contains__)
    search.add_contents(contents)
    for file in contents.files:
        yield Source(file.path, file.bytes, modified_ns=file.modified_ns)
    if contents.files:
        return
    if contents.problems:
        path, reason = contents.problems[0]
        raise SourceError(
            f"in the folder {printable(folder)} nothing can be read: {printable(path)}: {reason}"
        )
    examples = ", ".join(sorted(search.suffixes)[:6])
    only_videos = search.suffixes <= VIDEO_SUFFIXES
    kinds = "video" if only_videos else "sound, image or video"
    others = contents.others()
    raise SourceError(
        f"the folder {printable(folder)} holds no {kinds} (looked for {examples} … in it and "
        f"below){'; ' if others else ''}{others}"
    )


def _find_remote_files(folder: str, suffixes: Set[str]) -> FolderContents:
    """The files below an address that have one of `suffixes`, with their sizes."""
    contents = FolderContents()
    with _remote_errors(folder):
        system, top = fsspec.url_to_fs(folder)
        listed = system.find(top, detail=True)
    for path, details in listed.items():
        parts = path.removeprefix(top).strip("/").split("/")
        suffix = os.path.splitext(parts[-1])[1].lower()  # noqa: PTH122 (an address is no Path)
        if any(map(is_left_out, parts)):
            contents.hidden += 1
        elif suffix in suffixes:
            file = File(system.unstrip_protocol(path), details.get("size"), None)
            contents.files.append(file)
        else:
            contents.other_suffixes[suffix] += 1
    return contents


def _glob(pattern: str, search: _Search) -> Iterator[Source]:
    if is_remote(pattern):
        sources, folders = _match_remote(pattern)
    else:
        sources, folders = _match_local(pattern, search)
    if folders:
        search.add_notes(
            f"{printable(pattern)} matches {folders:,} folders, which were not searched; "
            "name them without a pattern"
        )
    if not sources:
        raise SourceError(f"no file matches {printable(pattern)}")
    yield from sources


def _match_remote(pattern: str) -> tuple[list[Source], int]:
    """The files at an address that match, and how many folders do."""
    with _remote_errors(pattern):
        system, inside = fsspec.url_to_fs(pattern)
        matches = system.glob(inside, detail=True)
    sources = []
    folders = 0
    for path, details in sorted(matches.items()):
        if details.get("type") == "directory":
            folders += 1
        else:
            sources.append(Source(system.unstrip_protocol(path), details.get("size")))
    return sources, folders


def _match_local(pattern: str, search: _Search) -> tuple[list[Source], int]:
    """The files that match, and how many folders do."""
    sources: list[Source] = []
    folders = 0
    for path in sorted(set(match_paths(pattern))):
        if os.path.isdir(path):  # noqa: PTH112 (path is text)
            folders += 1
            continue
        source = _local(path)
        if isinstance(source, Source):
            sources.append(source)
        else:
            search.add_unusable(path, source)
    return sources, folders


@contextmanager
def _remote_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong at a remote server into one sentence."""
    try:
        yield
    except SourceError:
        raise
    except ImportError as error:
        raise SourceError(f"{printable(name)} cannot be opened: {error}") from None
    except Exception as error:  # each file system of fsspec has errors of its own
        raise SourceError(
            f"{printable(name)} cannot be opened: {type(error).__name__}: {error}"
        ) from error


def read_bytes(path: str) -> bytes:
    """The content of a local or remote file. Raises SourceError."""
    with _remote_errors(path):
        if not is_remote(path):
            return Path(path).read_bytes()
        with fsspec.open(path, "rb") as file:
            data: bytes = file.read()
    return data


def _table(table_path: str, search: _Search) -> Iterator[Source]:
    table = tables.read_table(table_path, read_bytes(table_path))
    # Without a column `path` the sentence of `check_columns` below says more.
    if not table.rows and "path" in table.columns:
        raise SourceError(f"the table {printable(table_path)} has no rows")
    search.add_notes(*table.notes)
    notes = tables.check_columns(table, ("path",), SOURCE_COLUMNS, SYNONYMS)
    # What `synth` writes for people is no surprise.
    if tuple(table.columns) not in (WORLD_COLUMNS, COLLAGE_COLUMNS):
        search.add_notes(*notes)
    comments = 0
    for row in table.rows:
        start, stop = _stretch(row)
        path = path_cell(row)
        if not path.strip():
            search.add_unusable(row.location, "this row has no path")
        elif _is_comment_row(table_path, path):
            comments += 1
        elif source := _listed_file(table_path, path, search):
            yield replace(
                source,
                labels=row.texts("label"),
                split=row.text("split"),
                video_id=row.text("video_id"),
                start_seconds=start,
                stop_seconds=stop,
            )
    if comments == len(table.rows):
        raise SourceError(f"the table {printable(table_path)} names no file")
    if comments:
        search.add_notes(
            f"{printable(table_path)}: rows that begin with # were left out ({comments:,})"
        )


def _stretch(row: tables.Row) -> tuple[float | None, float | None]:
    """start_seconds and stop_seconds of a row."""
    start = row.seconds("start_seconds")
    stop = row.seconds("stop_seconds")
    if stop is not None and stop <= (start or 0):
        raise SourceError(
            f"{row.location}: stop_seconds {stop:g} is not after start_seconds {start or 0:g}"
        )
    return start, stop


def _is_comment_row(table_path: str, path: str) -> bool:
    """Whether a row is a comment; a file whose name begins with # is not."""
    if is_remote(table_path) or not tables.is_comment(path):
        return False
    return not os.path.exists(next_to(table_path, as_file_name(path)))  # noqa: PTH110


def _common_folder(inputs: Sequence[str | Path], sources: Iterable[Source]) -> Path:
    """The lowest folder that holds all local inputs and all files that lists and tables name."""
    folders = set()
    for name in map(str, inputs):
        if is_remote(name) or (glob.has_magic(name) and not os.path.lexists(name)):
            continue
        path = Path(name).absolute()
        folders.add(path if path.is_dir() else path.parent)
    for source in sources:
        if not is_remote(source.path):
            folders.add(Path(source.path).parent)
    return Path(os.path.commonpath(folders)) if folders else Path.cwd()


def relative_path(path: str, root: Path) -> str:
    """A local path as `Source.path` has it, before `encode_name`."""
    # With `/` on every system, because shards must not depend on the system.
    return Path(os.path.relpath(path, root)).as_posix()


def _from_root(source: Source, root: Path, labels: LabelSource) -> Source:
    """The source with its path relative to `root`."""
    path = source.path if is_remote(source.path) else relative_path(source.path, root)
    path = encode_name(path)
    if labels == "table":
        return replace(source, path=path)
    folder = path.rpartition("/")[0].rpartition("/")[2]
    # A video directly in `root`, or outside of it, has no folder that could be its label.
    is_inside = folder not in ("", "..")
    return replace(source, path=path, labels=(folder,) if is_inside else ())
