"""Files that are either complete or absent, and folders that can be written to."""

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
from typing import TYPE_CHECKING

from looklisten.errors import ConfigError
from looklisten.names import printable

if TYPE_CHECKING:
    pass


ABANDONED_SECONDS = 86_400
"""Scratch of another machine that is older than this belongs to nobody."""
_ASIDE = ".aside-"


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A scratch path in the same folder that becomes `path` when the block ends well and vanishes
    when it does not.

    The bytes are on the disk before the name is: after a crash `path` is whole or absent. Works for
    files and folders.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch_dir = Path(
        tempfile.mkdtemp(prefix=f"{_ASIDE}{_host()}-{os.getpid()}-", dir=path.parent)
    )
    scratch = scratch_dir / path.name
    try:
        yield scratch
        for file in [scratch, *scratch.rglob("*")] if scratch.is_dir() else [scratch]:
            _flush_to_disk(file)
        if path.is_dir() and scratch.is_dir():
            shutil.rmtree(path)  # a file never takes the place of a folder
        scratch.replace(path)
        _flush_to_disk(path.parent)
    finally:
        shutil.rmtree(scratch_dir, ignore_errors=True)


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_abandoned_scratch(folder: Path) -> None:
    """Remove what killed runs left in `folder`: scratch of `atomic_write` that was never renamed.

    What a running process of this machine writes stays, and so does what another machine wrote
    within a day.
    """
    for scratch in folder.glob(f"{_ASIDE}*"):
        host, _, rest = scratch.name.removeprefix(_ASIDE).partition("-")
        with contextlib.suppress(OSError, ValueError):
            old = time.time() - scratch.stat().st_mtime > ABANDONED_SECONDS
            if old or (host == _host() and not _is_running(int(rest.partition("-")[0]))):
                shutil.rmtree(scratch, ignore_errors=True)


def _host() -> str:
    return platform.node().replace("-", "_")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_json(path: Path, value: object) -> None:
    """`value` as indented JSON, whole or absent, the same bytes for the same value."""
    with atomic_write(path) as scratch:
        scratch.write_bytes(json_bytes(value, indent=1))


def json_bytes(value: object, indent: int | None = None) -> bytes:
    """`value` as JSON with a line feed at its end; a lone surrogate, which UTF-8 has not, is
    written as an escape.
    """
    return (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def check_writable(folder: Path) -> None:
    """See that files can be written into `folder`, which need not be there yet. Leaves nothing
    behind.

    Meant to be called before long work. Raises ConfigError: a file is in the way, no permission, a
    read-only file system, a name that no file can have. A full disk stays an OSError.
    """
    try:
        there = folder.absolute()
        while not os.path.lexists(there):
            there = there.parent
        if not there.is_dir():
            link = "a broken link" if there.is_symlink() and not there.exists() else "a file"
            raise ConfigError(
                f"{printable(folder)} cannot be a folder: {printable(there)} is {link}; choose another folder"
            )
        trial = Path(tempfile.mkdtemp(prefix=f"{_ASIDE}{_host()}-{os.getpid()}-", dir=there))
        try:
            missing = folder.absolute().relative_to(there)
            (trial / missing).mkdir(parents=True, exist_ok=True)  # shows whether the names can be
            (trial / missing / "trial").write_bytes(b"1")
        finally:
            shutil.rmtree(trial, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(
            f"{printable(folder)} cannot be written to: {error.strerror}; choose another folder"
        ) from None
    except ValueError:
        raise ConfigError(
            f"{printable(folder)} cannot be a folder: its name holds a NUL character; choose another folder"
        ) from None
