"""The messages between a program and the process that decodes for it, as records.

The parent sends `Request`, `Answer` and `Stop`; the child sends `Heartbeat`, `Item`, and at the end
of a job `Result` or `Failure`.
"""

from dataclasses import dataclass, field
from typing import Any

from looklisten.media.decode.records import DecodeReport


@dataclass(frozen=True)
class Request:
    """Run a function."""

    number: int
    """Which job of this process it is, from 1 on."""
    function: str
    """Module and name, as `messages.name_of` gives them."""
    arguments: tuple[Any, ...]
    report: DecodeReport | None
    """If given, the function takes it as the keyword `report` and writes into it."""
    has_answers: bool
    """Whether an `Answer` comes for each item but the last."""
    folder: str | None
    """Where relative paths start; None where the parent's folder was removed."""
    memory_megabytes: int


@dataclass(frozen=True)
class Answer:
    """What the parent sends back for an item."""

    value: Any


@dataclass(frozen=True)
class Stop:
    """The job of this number shall end early."""

    number: int


@dataclass(frozen=True)
class Heartbeat:
    """The program has started, or its job advances."""


@dataclass
class Item:
    """What a generator has yielded."""

    value: Any
    report_changes: dict[str, Any] = field(default_factory=dict)
    """The fields of the report that have changed, and their values."""


@dataclass
class Result:
    """The job is done; what the function has returned."""

    value: Any
    report_changes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Failure:
    """The job has ended with an error."""

    kind: str
    """`memory`, `system` (an OSError), `other`, or module and name of an error of this package."""
    arguments: tuple[Any, ...]
    trace: str = ""
    report_changes: dict[str, Any] = field(default_factory=dict)
