"""What the server answers, as records that the server and the client share.

Imports pydantic alone, so that a client needs neither torch nor numpy. Times are in seconds from
the start of a file.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from looklisten.config import Side

MediaKind = Literal["image", "audio", "video"]
JobState = Literal["queued", "running", "done", "failed", "canceled"]


class WireRecord(BaseModel):
    """Base of all records: immutable, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ErrorReply(WireRecord):
    """Why a request was refused."""

    error: str = Field(
        description="One sentence.", examples=["the file is 300 MB; at most 256 MB are allowed"]
    )


class EmbedReply(WireRecord):
    """Vectors of one side of a file, in the order of time."""

    side: Side
    layer: str = Field(examples=["pool4"])
    window_seconds: float = Field(
        description="Length of a window of sound; 0 for frames.", examples=[1.0]
    )
    width: int = Field(description="Numbers in a vector.", examples=[3])
    start_seconds: list[float] = Field(examples=[[0.0, 0.5]])
    vectors: list[list[float]] = Field(examples=[[[0.1, 0.0, 2.5], [0.2, 0.0, 2.0]]])
    stop_reason: str = Field(
        description="Why reading ended before the end of the file; empty if it did not.",
        examples=[""],
    )


class ScoredPair(WireRecord):
    """One second of sound with one frame."""

    picture_seconds: float = Field(examples=[0.5])
    sound_seconds: float = Field(description="Where the second of sound begins.", examples=[0.0])
    probability: float = Field(examples=[0.93])
    is_silent: bool = Field(examples=[False])


class ScoreReply(WireRecord):
    """Whether a sound belongs to a picture."""

    probability: float | None = Field(
        description="Mean over the pairs that are not silent; null where all are.",
        examples=[0.93],
    )
    is_calibrated: bool = Field(
        description="Whether the network has a calibration; else probabilities are too sure.",
        examples=[True],
    )
    pairs: list[ScoredPair]


class SpectrogramReply(WireRecord):
    """The log-spectrogram of a sound, as the network hears it."""

    seconds: float = Field(description="Length of the spectrogram.", examples=[2.0])
    levels: list[list[int]] = Field(
        description="Rows from low to high frequencies, from 0 (quiet) to 255 (loud).",
        examples=[[[0, 12, 255], [3, 40, 90]]],
    )


class MomentMap(WireRecord):
    """The heat maps of one moment, with values from 0 to 1."""

    at_seconds: float = Field(description="Time of the frame.", examples=[0.4])
    sound_start_seconds: float = Field(examples=[0.0])
    probability: float = Field(
        description="Whether frame and sound belong together.", examples=[0.93]
    )
    is_silent: bool = Field(examples=[False])
    peak: tuple[float, float] = Field(
        description="Highest position of the frame's map: x and y, from 0 to 1.",
        examples=[(0.75, 0.25)],
    )
    frame_map: list[list[float]] = Field(
        description="Rows from top to bottom, over the whole frame.",
        examples=[[[0.0, 0.9], [0.1, 0.2]]],
    )
    sound_map: list[list[float]] = Field(
        description="Rows from low to high frequencies, over the second of sound.",
        examples=[[[0.0, 0.5], [0.1, 0.7]]],
    )


class LocalizeReply(WireRecord):
    """Where the sound of a video comes from."""

    method: str = Field(examples=["similarity"])
    every_seconds: float = Field(examples=[1.0])
    moments: list[MomentMap]


class ThumbnailMap(WireRecord):
    """The heat map over a thumbnail."""

    frame_map: list[list[float]] | None = Field(
        description="Rows from top to bottom, 0 to 1; null where nothing is known.",
        examples=[[[0.0, 0.9], [0.1, 0.2]]],
    )


class FoundScene(WireRecord):
    """Neighboring moments of one file that match a query."""

    media: str | None = Field(
        description="Id of the file, for /v1/media; null for a file on another machine.",
        examples=["5f3ab0c1d2e3f405"],
    )
    name: str = Field(examples=["dog.mp4"])
    kind: MediaKind = Field(examples=["video"])
    seconds: float = Field(
        description="Where the best moment begins; a player jumps to it.", examples=[3.0]
    )
    start_seconds: float = Field(examples=[2.0])
    end_seconds: float = Field(examples=[5.0])
    score: float = Field(
        description="From 0 to 1: how likely the match is, or the score of the tag.",
        examples=[0.87],
    )
    similarity: float = Field(examples=[0.61])
    matched: str = Field(description="sound, picture or tag", examples=["sound"])
    label: str | None = Field(examples=["dog"])
    tags: dict[str, float] = Field(examples=[{"Dog": 0.9}])
    marks: list[str] = Field(examples=[[]])
    thumbnail: str | None = Field(
        description="Id for /v1/thumbnails.", examples=["5f3ab0c1d2e3f40500-000003000"]
    )


class SearchReply(WireRecord):
    """The scenes that a search found, best first."""

    query: str = Field(examples=["bark.wav"])
    nothing_found: bool = Field(examples=[False])
    threshold: float = Field(examples=[0.6])
    reason: str = Field(
        description="Why nothing was found; empty where something was.", examples=[""]
    )
    hits: list[FoundScene]
    nearest: list[FoundScene] = Field(
        description="The best scenes below the threshold, when nothing was found."
    )


class MediaFile(WireRecord):
    """A file of the index."""

    media: str | None = Field(examples=["5f3ab0c1d2e3f405"])
    name: str = Field(examples=["dog.mp4"])
    kind: MediaKind = Field(examples=["video"])
    thumbnail: str | None = Field(
        description="Id for /v1/thumbnails, of its middle.",
        examples=["5f3ab0c1d2e3f40500-000003000"],
    )


class IndexReply(WireRecord):
    """What the index holds, and some of its files."""

    moments: int = Field(examples=[1200])
    sources: int = Field(examples=[40])
    files: list[MediaFile]


class UnitMoment(WireRecord):
    """A moment of the index that activates a unit."""

    media: str | None = Field(examples=["5f3ab0c1d2e3f405"])
    name: str = Field(examples=["dog.mp4"])
    kind: MediaKind = Field(examples=["video"])
    seconds: float = Field(examples=[3.0])
    activation: float = Field(description="How strongly; each unit has its scale.", examples=[4.2])
    unit_map: list[list[float]] = Field(
        description="Where, from 0 to 1. Of a picture: rows from top to bottom. Of a sound: rows "
        "from low to high frequencies, over one second.",
        examples=[[[0.0, 1.0], [0.1, 0.2]]],
    )
    thumbnail: str | None = Field(examples=["5f3ab0c1d2e3f40500-000003000"])


class UnitFacts(WireRecord):
    """One channel of the last feature map of a tower, with the moments that activate it most."""

    side: Side
    number: int = Field(examples=[17])
    tags: list[str] = Field(
        description="Tags that more than one of these moments has.", examples=[["Dog"]]
    )
    moments: list[UnitMoment] = Field(description="The strongest first, each of another file.")


class UnitsReply(WireRecord):
    """The units of both towers whose strongest moments stand out most."""

    files: int = Field(description="Files that were looked at.", examples=[120])
    files_of_index: int = Field(examples=[400])
    is_cropped: bool = Field(
        description="Whether maps of pictures cover the middle square; else the whole picture.",
        examples=[False],
    )
    units: list[UnitFacts]


class MarkedMoment(WireRecord):
    """A moment of the index that is an example of a class."""

    media: str = Field(examples=["5f3ab0c1d2e3f405"])
    seconds: float = Field(ge=0, examples=[3.0])


class TagRequest(WireRecord):
    """Examples from which tags are learned."""

    name: str = Field(
        "own", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Name of this set of classes."
    )
    classes: dict[str, list[MarkedMoment]] = Field(
        min_length=1,
        max_length=100,
        description='Moments of each class; "none of these" names what is none of them.',
        examples=[
            {
                "knock": [
                    {"media": "5f3ab0c1d2e3f405", "seconds": 3.0},
                    {"media": "5f3ab0c1d2e3f406", "seconds": 0.0},
                ]
            }
        ],
    )


class TagSet(WireRecord):
    """A set of own classes, with what was measured of it."""

    name: str = Field(examples=["own"])
    classes: list[str] = Field(examples=[["knock"]])
    accuracy: float = Field(examples=[0.9])


class TagsReply(WireRecord):
    """The tags of the index."""

    sets: list[TagSet]
    tags: list[str] = Field(
        description="Names that some moment has as a tag.", examples=[["Dog", "knock"]]
    )


class RemovedTags(WireRecord):
    """What removing a set of classes changed."""

    name: str = Field(examples=["own"])
    moments: int = Field(description="Moments that lost a tag.", examples=[12])


class Job(WireRecord):
    """Long work: its progress, and its result when it is done."""

    id: str = Field(examples=["8c0f6f2e9d3b4a51"])
    kind: Literal["overlay", "index", "tags", "units"] = Field(examples=["index"])
    state: JobState = Field(examples=["running"])
    done: int = Field(description="Units that are done.", examples=[3])
    total: int = Field(description="0 while it is not known.", examples=[10])
    error: str = Field(description="One sentence; empty without an error.", examples=[""])
    result: dict[str, Any] | None = Field(
        description="The result, when it is done.", examples=[None]
    )
    file: str | None = Field(
        description="Address of the file that it made.", examples=["/v1/jobs/8c0f6f2e9d3b4a51/file"]
    )


class LimitsReply(WireRecord):
    """The limits of this server."""

    max_megabytes: float = Field(examples=[256.0])
    max_seconds: float = Field(examples=[600.0])
    max_megapixels: float = Field(examples=[40.0])
    max_streams: int = Field(examples=[16])
    requests_per_minute: int = Field(description="0 is no limit.", examples=[0])


class ModelReply(WireRecord):
    """The network behind the server, and what it can do."""

    name: str = Field(examples=["start"])
    step: int | None = Field(examples=[1000])
    device: str = Field(examples=["cpu"])
    version: str = Field(description="Of looklisten.", examples=["0.1.0"])
    layers: dict[Side, list[str]] = Field(
        description="Of each side, the usual one first.",
        examples=[{"audio": ["pool4", "aligned"], "vision": ["pool4", "aligned"]}],
    )
    methods: list[str] = Field(
        description="Methods of /v1/localize, the usual one first.",
        examples=[["similarity", "correspondence", "unit"]],
    )
    is_calibrated: bool = Field(examples=[True])
    can_search: bool = Field(description="Whether an index is open.", examples=[True])
    can_index: bool = Field(description="Whether files can be added to the index.", examples=[True])
    limits: LimitsReply


class HealthReply(WireRecord):
    """Whether the server lives, or takes requests."""

    status: Literal["ok", "starting", "stopping"] = Field(examples=["ok"])
