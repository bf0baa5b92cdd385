"""Files that are either complete or absent, and folders that can be written to.

Knows nothing of what is in them.
"""

import contextlib
import errno
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from looklisten.errors import ConfigError
from looklisten.names import printable

MACHINE_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EMFILE,
    errno.ENFILE,
    errno.EROFS,
    errno.EACCES,
}
"""Errors of the machine, such as a full disk. They stop the whole task."""

READING_MACHINE_ERRORS = MACHINE_ERRORS - {errno.EACCES}
"""Those of the machine while a source is read: EACCES then concerns this source only."""

ABANDONED_SECONDS = 86_400
"""A temporary folder of another machine is removed if it is older than this."""

_SCRATCH_PREFIX = ".aside-"


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` if the block succeeds, and is removed if it fails.

    The bytes are on the disk before the name is: after a crash `path` is complete or absent. Works
    for files and folders. An existing file is replaced. Raises ConfigError when a folder is there
    that holds anything else than what replaces it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch_dir = _make_scratch_folder(path.parent)
    scratch = scratch_dir / path.name
    try:
        yield scratch
        written = [scratch]
        if scratch.is_dir():
            written += scratch.rglob("*")
        for file in written:
            _flush_to_disk(file)
        if path.is_dir() and scratch.is_dir():
            _move_replaced_folder(path, scratch, scratch_dir / "replaced")
        scratch.replace(path)
        # A new name is on the disk only when its folder is.
        _flush_to_disk(path.parent)
    finally:
        shutil.rmtree(scratch_dir, ignore_errors=True)


def _move_replaced_folder(path: Path, new: Path, aside: Path) -> None:
    """Move `path` to `aside`, since a folder cannot be renamed over another one.

    Raises ConfigError where that would lose a file that `new` does not write again.
    """
    new_names = {file.name for file in new.iterdir()}
    for file in sorted(path.iterdir()):
        if file.name not in new_names or file.is_dir():
            raise ConfigError(
                f"{printable(str(path))} is a folder that holds {printable(file.name)}, which "
                "would be lost; give a new folder"
            )
    path.rename(aside)


@contextlib.contextmanager
def atomic_write_files(folder: Path) -> Iterator[Path]:
    """A temporary folder; its files move into `folder` if the block succeeds, and else are removed.

    As with `atomic_write`, each of the files is complete or absent after a crash. Flushing many
    files at once costs little more than flushing one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scratch_dir = _make_scratch_folder(folder)
    try:
        yield scratch_dir
        written = sorted(scratch_dir.iterdir())
        for file in written:
            _flush_to_disk(file)
        for file in written:
            file.replace(folder / file.name)
        # New names are on the disk only when their folder is.
        _flush_to_disk(folder)
    finally:
        shutil.rmtree(scratch_dir, ignore_errors=True)


def _make_scratch_folder(folder: Path) -> Path:
    # In the same folder, because only within one file system is a rename atomic.
    prefix = f"{_SCRATCH_PREFIX}{_host()}-{os.getpid()}-"
    return Path(tempfile.mkdtemp(prefix=prefix, dir=folder))


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_abandoned_scratch(folder: Path) -> None:
    """Remove temporary files of killed runs from `folder`, which `atomic_write` never renamed.

    Those of a running process of this machine stay, and those that another machine wrote within a
    day.
    """
    for scratch in folder.glob(f"{_SCRATCH_PREFIX}*"):
        host, _, process_and_random = scratch.name.removeprefix(_SCRATCH_PREFIX).partition("-")
        with contextlib.suppress(OSError, ValueError):
            # Processes of another machine cannot be asked for here, so the age decides.
            is_old = time.time() - scratch.stat().st_mtime > ABANDONED_SECONDS
            if is_old or (host == _host() and not _is_running(_process(process_and_random))):
                shutil.rmtree(scratch, ignore_errors=True)


def _process(process_and_random: str) -> int:
    """The process that a temporary folder belongs to. Raises ValueError."""
    return int(process_and_random.partition("-")[0])


def _host() -> str:
    # In the name of a temporary folder the first hyphen ends the host.
    return platform.node().replace("-", "_")


def _is_running(process: int) -> bool:
    try:
        # Signal 0 is never delivered: the system only checks that the process exists.
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON; the same value gives the same bytes."""
    with atomic_write(path) as scratch:
        scratch.write_bytes(json_bytes(value, indent=1))


def json_bytes(value: object, indent: int | None = None) -> bytes:
    """`value` as JSON with a line feed at its end."""
    text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
    # A lone surrogate, which UTF-8 cannot hold, becomes an escape.
    return text.encode("utf-8", "backslashreplace")


def check_writable(folder: Path) -> None:
    """See that files can be written into `folder`, which need not exist. Leaves nothing behind.

    Call it before long work. Raises ConfigError if a file is in the way, without permission, on a
    read-only file system, and for a name that no file can have. A full disk stays an OSError.
    """
    try:
        existing = folder.absolute()
        # `lexists`, because a broken link is in the way like a file.
        while not os.path.lexists(existing):
            existing = existing.parent
        if not existing.is_dir():
            is_broken_link = existing.is_symlink() and not existing.exists()
            obstacle = "a broken link" if is_broken_link else "a file"
            raise ConfigError(
                f"{printable(folder)} cannot be a folder: {printable(existing)} is {obstacle}; "
                "choose another folder"
            )
        trial = _make_scratch_folder(existing)
        try:
            missing = folder.absolute().relative_to(existing)
            # A name may be too long, or hold letters that this file system refuses.
            (trial / missing).mkdir(parents=True, exist_ok=True)
            (trial / missing / "trial").write_bytes(b"1")
        finally:
            shutil.rmtree(trial, ignore_errors=True)
    except OSError as error:
        # For a full disk the command line has a sentence of its own.
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(
            f"{printable(folder)} cannot be written to: {error.strerror}; choose another folder"
        ) from None
    except ValueError:
        raise ConfigError(
            f"{printable(folder)} cannot be a folder: its name holds a NUL character; "
            "choose another folder"
        ) from None
