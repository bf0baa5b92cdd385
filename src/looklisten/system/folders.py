"""A folder of this machine -> the files in it and below, and what was left out. Opens no file.

Links to folders are followed, each folder once. Hidden files and trash folders are left out.
"""

import fnmatch
import glob
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from looklisten.names import encode_name, printable

_log = logging.getLogger("looklisten")

_TRASH_NAMES = """
    $recycle.bin recycler @eadir @recycle @recently-snapshot #recycle #snapshot __macosx lost+found
    system_volume_information
"""
TRASH = frozenset(_TRASH_NAMES.split())
"""Folders that systems and storage devices fill by themselves; a space counts as `_`."""

LISTED_SUFFIXES = 8
"""So many suffixes are named in a sentence."""


@dataclass(frozen=True)
class File:
    """A regular file."""

    path: str
    """Absolute, as the system opens it; or an address."""
    bytes: int | None
    modified_ns: int | None


@dataclass
class FolderContents:
    """The files in a folder and below, and what is not among them."""

    files: list[File] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    """Paths that could not be read, and why."""
    other_suffixes: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    """Hidden files and folders, and trash folders."""

    def others(self) -> str:
        """One line on files with other suffixes; "" when there are none."""
        return other_suffixes_line(self.other_suffixes)

    def log_left_out(self, folder: Path) -> None:
        """Log what of `folder` is not among the files: other suffixes, and what is unreadable."""
        others = self.others()
        if others:
            _log.info("%s: %s", printable(folder), others)
        for path, reason in self.problems:
            _log.warning("%s is left out: %s", printable(path), reason)


def other_suffixes_line(suffixes: Counter[str]) -> str:
    """Such as `27 files with other suffixes were not looked at (.heic 20, .insv 7)`, or ""."""
    count = suffixes.total()
    if not count:
        return ""
    most = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(
        f"{printable(suffix) or 'no suffix'} {times:,}" for suffix, times in most[:LISTED_SUFFIXES]
    )
    more = ", …" if len(most) > LISTED_SUFFIXES else ""
    files = (
        "1 file with another suffix was"
        if count == 1
        else f"{count:,} files with other suffixes were"
    )
    return f"{files} not looked at ({listed}{more})"


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name is hidden or the system's trash."""
    return name.startswith(".") or name.casefold().replace(" ", "_") in TRASH


def find_files(top: str | Path, has_suffix: Callable[[str], bool]) -> FolderContents:
    """The regular files in and below `top` for whose suffix (such as ".mp4") `has_suffix` is true.

    Folders come before links to folders: a file that is reached in two ways has the name without
    the link.
    """
    contents = FolderContents()
    visited: set[tuple[int, int]] = set()
    folders = [os.path.abspath(top)]  # noqa: PTH100 (Path.resolve would follow links)
    links: list[str] = []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            file_status = os.stat(folder)  # noqa: PTH116 (names here are text, for speed)
            # By inode, because links give a folder several paths, and may lead in a circle.
            if (file_status.st_dev, file_status.st_ino) in visited:
                continue
            visited.add((file_status.st_dev, file_status.st_ino))
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            contents.problems.append((folder, f"the folder cannot be searched: {error.strerror}"))
            continue
        for entry in entries:
            _sort_entry(entry, contents, has_suffix, folders, links)
    return contents


def files_with_suffix(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files with these suffixes in and below a folder, sorted by path.

    Links to folders are followed; hidden files and trash are left out. What else is not among the
    files is logged: other suffixes, and what cannot be read.
    """
    if not folder.is_dir():
        return []
    contents = find_files(folder, suffixes.__contains__)
    contents.log_left_out(folder)
    top = os.path.abspath(folder)  # noqa: PTH100 (as `find_files` writes paths)
    # Sorted, since the order of items is part of caches and of random choices.
    return sorted(folder / Path(file.path).relative_to(top) for file in contents.files)


def match_paths(pattern: str) -> Iterator[str]:
    """Local paths that match a glob.

    With `**` each folder is searched once, so that links in a circle do no harm.
    """
    before, stars, after = pattern.partition("**")
    parts = ["**", *filter(None, after.split("/"))] if after else ["**", "*"]
    begins_a_part = before == "" or before.endswith("/")
    ends_a_part = after == "" or after.startswith("/")
    # `find_files` leaves hidden files out, so a pattern that names them is for `glob`.
    names_hidden = any(part.startswith(".") for part in parts)
    if not stars or not begins_a_part or not ends_a_part or names_hidden:
        yield from glob.glob(pattern)  # noqa: PTH207 (the pattern may be absolute)
        return
    tops = glob.glob(before) if before else ["."]  # noqa: PTH207
    for top in tops:
        contents = find_files(top, lambda _: True)
        paths = [file.path for file in contents.files]
        # What cannot be read matches too, so that it becomes a failed source.
        paths += [path for path, _ in contents.problems]
        top_length = len(os.path.abspath(top).rstrip(os.sep)) + 1  # noqa: PTH100
        for path in paths:
            if _parts_match(path[top_length:].split(os.sep), parts):  # noqa: PTH206 (for speed)
                yield path


def _parts_match(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path matches, part by part; `**` stands for any number of folders."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_parts_match(parts[start:], patterns[1:]) for start in range(len(parts)))
    if not parts or not fnmatch.fnmatchcase(parts[0], patterns[0]):
        return False
    return _parts_match(parts[1:], patterns[1:])


def _sort_entry(
    entry: os.DirEntry[str],
    contents: FolderContents,
    has_suffix: Callable[[str], bool],
    folders: list[str],
    links: list[str],
) -> None:
    """Sort one entry of a folder into `contents`, or into the folders still to be searched."""
    if is_left_out(entry.name):
        contents.hidden += 1
        return
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 (a Path for each of many names is slow)
    try:
        # The listing tells this already. `stat` would be one more system call for each folder.
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.path)
            return
        file_status = entry.stat()
    except OSError as error:
        problem = unreadable_reason(error)
        if entry.is_symlink():
            problem = f"a broken link: {problem}"
        # A broken link without a suffix may have led to a folder.
        if has_suffix(suffix) or (entry.is_symlink() and not suffix):
            contents.problems.append((entry.path, problem))
        else:
            contents.other_suffixes[suffix] += 1
        return
    if stat.S_ISDIR(file_status.st_mode):
        links.append(entry.path)
    elif not has_suffix(suffix):
        contents.other_suffixes[suffix] += 1
    elif stat.S_ISREG(file_status.st_mode):
        contents.files.append(File(entry.path, file_status.st_size, file_status.st_mtime_ns))
    else:
        contents.problems.append((entry.path, "it is no file but a pipe, a socket or a device"))


def unreadable_reason(error: Exception) -> str:
    """Why a path cannot be used, as a part of a sentence."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return "there is no such file"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # Python says "embedded null byte", in an error without a number.
    if "null" in str(error):
        return "its name holds a NUL character, which no file name can"
    return f"no file can have this name here ({encode_name(str(error))})"
