"""The choices of `sync`, as a record: the command line offers them and the library takes them.

Imports neither torch nor numpy, so that the help of the command line needs no second.
"""

from dataclasses import dataclass
from typing import TypedDict

from looklisten.option_checks import check_above_zero


@dataclass(frozen=True)
class SyncOptions:
    """The choices of `sync`."""

    seconds: float = 60.0
    """So much of the beginning is compared at most."""
    max_offset_seconds: float = 5.0
    """Offsets up to this are tried, both ways, and never more than a third of the clip."""

    def __post_init__(self) -> None:
        check_above_zero(seconds=self.seconds, max_offset_seconds=self.max_offset_seconds)


class SyncChoices(TypedDict, total=False):
    """The fields of `SyncOptions` as keyword arguments, for functions that people call."""

    seconds: float
    max_offset_seconds: float
