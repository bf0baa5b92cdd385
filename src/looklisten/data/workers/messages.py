"""The records that `prepare` and its worker processes send each other, as JSON.

They carry paths, options and counts, never media. For each batch a worker gets a `BatchRequest`, a
`SourceRequest` for each source, and `END`.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from looklisten.data.clips import VideoBox
from looklisten.data.options import PrepareOptions
from looklisten.data.sources import Source

END = {"end": True}
"""The message after the last source of a batch."""

Status = Literal["prepared", "skipped", "failed"]
"""Prepared: clips were cut. Skipped: nothing is wrong, but no clip is wanted. Failed: an error."""


@dataclass(frozen=True)
class BatchRequest:
    """Where a worker writes the shards of the sources that follow."""

    folder: str
    shard_prefix: str
    options: PrepareOptions

    def to_json(self) -> dict[str, Any]:
        return {"batch": asdict(self)}

    @classmethod
    def from_json(cls, message: dict[str, Any]) -> "BatchRequest":
        fields = message["batch"]
        options = fields["options"]
        options["skip"] = tuple(options["skip"])  # JSON has no tuples
        return cls(fields["folder"], fields["shard_prefix"], PrepareOptions(**options))


@dataclass(frozen=True)
class SourceRequest:
    """One source of a batch."""

    path: str
    """Where the file is on this machine."""
    source: Source
    boxes: tuple[VideoBox, ...] = ()
    max_clips: int | None = None
    """Cut this many clips at most."""
    lost_worker: str = ""
    """How the source ended worker processes, if `max_clips` is there to prevent that."""
    fetch_problem: str = ""
    """Why there is no file at `path`."""

    @property
    def opens(self) -> bool:
        """Whether the file is opened: not one that ended workers before its first clip."""
        return self.max_clips != 0 and not self.fetch_problem

    def to_json(self) -> dict[str, Any]:
        return {"source": asdict(self)}

    @classmethod
    def from_json(cls, message: dict[str, Any]) -> "SourceRequest":
        fields = message["source"]
        source = fields["source"]
        source["labels"] = tuple(source["labels"])
        boxes = tuple(VideoBox(**box) for box in fields["boxes"])
        return cls(**fields | {"source": Source(**source), "boxes": boxes})


@dataclass(frozen=True)
class SourceOutcome:
    """What became of one source; a worker makes it when the source is done."""

    status: Status = "prepared"
    stage: str = ""
    """Where it failed: fetch, open, decode or worker."""
    reason: str = ""
    """Why it was skipped or failed, as a sentence."""
    last_error: str = ""
    """The last line of the decoder."""
    clips: int = 0
    seconds: float = 0.0
    """Of the clips together."""
    marks: dict[str, int] = field(default_factory=dict)
    """How many of the clips have each mark."""
    dropped: dict[str, int] = field(default_factory=dict)
    """How many clips were left out for each mark of `skip`."""
    dropped_clips: int = 0
    dropped_seconds: float = 0.0
    lost_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of the source that no clip holds, by reason."""
    source_marks: list[str] = field(default_factory=list)
    """Marks of the whole file."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "SourceOutcome":
        return cls(**fields)

    def all_lost_seconds(self) -> dict[str, float]:
        """Seconds that no clip holds: lost in decoding or cutting, or left out by `skip`."""
        lost = {}
        for reason, seconds in self.lost_seconds.items():
            if seconds > 0:
                lost[reason] = round(seconds, 3)
        if self.dropped_clips:
            lost[f"skip {' or '.join(self.dropped)}"] = round(self.dropped_seconds, 3)
        return lost
