"""The choices of indexing and searching, as records: the command line offers them.

Imports neither torch nor numpy, so that the help of the command line needs no second.
"""

from dataclasses import dataclass
from typing import Literal, TypedDict

from looklisten.errors import OptionError
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.option_checks import check_above_zero, check_at_least, check_one_of

FindSide = Literal["sound", "picture", "both"]
"""What of the moments is compared with the query."""
QuerySide = Literal["auto", "sound", "picture"]
"""What of the query is compared with the moments; `auto`: all that it has."""


@dataclass(frozen=True)
class IndexOptions:
    """The choices of `index`."""

    every_seconds: float = 1.0
    """Seconds from one moment to the next."""
    store: Literal["arrow", "lance"] | None = None
    """Kind of a new index: arrow, which compares with every moment, or lance (extra search), for
    more than some 500,000 moments. Default: arrow."""
    tags: bool = True
    """Whether to store tags, the classes that the towers of the network were published with."""
    retry_crashed: bool = False
    """Open files again that crashed the decoder in an earlier run."""
    stall_seconds: float = WorkerLimits.stall_seconds
    """Give up a file if decoding does not advance by one second in this time."""
    memory_megabytes: int = WorkerLimits.memory_megabytes
    """Memory that decoding one file may take."""

    def __post_init__(self) -> None:
        check_above_zero(every_seconds=self.every_seconds, stall_seconds=self.stall_seconds)
        check_at_least(1, memory_megabytes=self.memory_megabytes)


class IndexChoices(TypedDict, total=False):
    """The fields of `IndexOptions` as keyword arguments, for functions that people call."""

    every_seconds: float
    store: Literal["arrow", "lance"] | None
    tags: bool
    retry_crashed: bool
    stall_seconds: float
    memory_megabytes: int


@dataclass(frozen=True)
class SearchOptions:
    """The choices of `search`."""

    find: FindSide = "both"
    """What of the moments is compared: their sound, their picture, or both."""
    by: QuerySide = "auto"
    """What of the query is compared: auto (all), sound, or picture. Sound finds sound and a
    picture finds pictures where both are there; else one finds the other."""
    where: str | None = None
    """Filter, such as: label = 'dog' AND seconds < 60. Columns: source, video_id, seconds, label,
    tag, marks."""
    threshold: float | None = None
    """Score from which a scene is found. Default: 0.6, and 0.2 for tags."""

    def __post_init__(self) -> None:
        check_one_of(FindSide, find=self.find)
        check_one_of(QuerySide, by=self.by)
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise OptionError(
                f"threshold {self.threshold:g} must be a score from 0 to 1, such as 0.5",
                "threshold",
            )


class SearchChoices(TypedDict, total=False):
    """The fields of `SearchOptions` as keyword arguments, for functions that people call."""

    find: FindSide
    by: QuerySide
    where: str | None
    threshold: float | None
