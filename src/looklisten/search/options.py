"""The choices of indexing and searching, as records: the command line offers them.

Imports neither torch nor numpy, so that the help of the command line needs no second.
"""

from dataclasses import dataclass
from typing import Literal, TypedDict
from urllib.parse import urlsplit

from looklisten.errors import OptionError
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.names import printable
from looklisten.option_checks import check_above_zero, check_at_least, check_one_of

OBJECT_STORES = ("s3", "gs", "az")
"""The schemes of addresses that a table may have."""

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
    more than some 500,000 moments. Default: arrow, and lance with --table."""
    table: str | None = None
    """Address in an object store, such as s3://bucket/path, for the vectors and rows of a new index
    of the store lance. DB keeps the rest. Keys come from the environment."""
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
        if self.table is not None:
            _check_table(self.table, self.store)


def _check_table(table: str, store: str | None) -> None:
    """Raise OptionError for what is no address of an object store, or holds a key."""
    if store == "arrow":
        raise OptionError(
            f"table {printable(table)} is for the store lance: the store arrow maps local files "
            "into memory; leave --store out, or give lance",
            "table",
        )
    try:
        parts = urlsplit(table)
    except ValueError:
        parts = urlsplit("")
    # LanceDB refuses an empty name of a folder, and would leave out a line break.
    is_plain = table.isprintable() and "//" not in parts.path.rstrip("/")
    if parts.scheme not in OBJECT_STORES or not parts.netloc or not is_plain:
        raise OptionError(
            f"table {printable(table)} must be the address of an object store, such as "
            "s3://bucket/path, gs://bucket/path or az://container/path",
            "table",
        )
    # A password would be written into index.json.
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise OptionError(
            "table must be a bucket and a path alone; give keys in the environment, such as "
            "AWS_ACCESS_KEY_ID",
            "table",
        )


class IndexChoices(TypedDict, total=False):
    """The fields of `IndexOptions` as keyword arguments, for functions that people call."""

    every_seconds: float
    store: Literal["arrow", "lance"] | None
    table: str | None
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
