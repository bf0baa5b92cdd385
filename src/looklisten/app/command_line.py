"""What verbs share: wrong usage, and checks of their output."""

from pathlib import Path

from looklisten.errors import LookListenError
from looklisten.names import printable
from looklisten.system.files import check_writable


class UsageError(LookListenError):
    """A command line that cannot be meant; exit code 2."""


def check_writable_file(file: Path) -> None:
    """The same for a file as `check_writable` for a folder."""
    if file.is_dir():
        raise UsageError(f"{printable(file)} is a folder; name a file")
    check_writable(file.parent)
