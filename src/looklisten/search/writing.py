"""The right to write into an index, and the sentence when that fails."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from looklisten.errors import ConfigError, FolderInUseError, StoreError, StoreInUseError
from looklisten.names import first_few, printable
from looklisten.system.folder_lock import FolderLock, LockedTask

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

INDEXING = LockedTask(
    file_name="index.lock",
    activity="is being written",
    alternative="another folder for the index",
    outcome="this process writes no more, and what it committed is kept",
)


class WriterLock:
    """The right to write into an index, from the first write until `release`."""

    def __init__(self, db: Path) -> None:
        self._lock = FolderLock(db, INDEXING)
        self._is_held = False

    @contextlib.contextmanager
    def taken(self) -> Iterator[bool]:
        """Take the lock, unless it is held; whether it was taken now.

        Raises StoreInUseError when another process has it.
        """
        is_new = not self._is_held
        if is_new:
            try:
                self._lock.acquire()
            except FolderInUseError as error:
                raise StoreInUseError(str(error)) from None
            except ConfigError as error:
                raise StoreError(str(error)) from None
            self._is_held = True
        yield is_new

    def check(self) -> None:
        """Raises LookListenError when another process took the lock over."""
        self._lock.check()

    def release(self) -> None:
        self._lock.release()
        self._is_held = False


@contextlib.contextmanager
def writing(db: Path, errors: tuple[type[Exception], ...] = (OSError,)) -> Iterator[None]:
    """Turn an error of the block, when the disk is full or broken, into one sentence."""
    try:
        yield
    except errors as error:
        reason = first_few(str(error).splitlines()[:1])
        if isinstance(error, OSError) and error.errno:
            reason = os.strerror(error.errno)
        # LanceDB gives no number, but the words of the system among its own.
        full = [sentence for sentence in map(os.strerror, _FULL) if sentence in reason]
        if full:
            reason = full[0]
        advice = "free some space" if full else "see that the folder can be written to"
        raise StoreError(
            f"{printable(db)} could not be written ({reason}); the index is as it was before; "
            f"{advice} and run the same command again"
        ) from error


def folder_bytes(folder: Path) -> int:
    """The size of all files in a folder and below."""
    total = 0
    for path in folder.rglob("*"):
        # A file may vanish while another process merges.
        with contextlib.suppress(OSError):
            if path.is_file():
                total += path.stat().st_size
    return total
