"""The choices of embedding, as records: the command line offers them and the library takes them.

Imports neither torch nor numpy, so that the help of the command line needs no second.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from looklisten.errors import OptionError
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.option_checks import check_above_zero, check_at_least, check_one_of

SideChoice = Literal["auto", "audio", "vision"]
"""Which side of a source is embedded; `auto`: its sound if it has any, else its images."""

Modality = Literal["auto", "audio", "image", "video"]
"""What is taken of a file: its sound, its images, both, or whatever it has."""

Precision = Literal["float32", "bfloat16"]

Pooling = Literal["mean", "max", "middle"]
"""How the vectors of one source become one: their mean, their maximum, or the middle one."""


@dataclass(frozen=True)
class EmbedOptions:
    """The choices that all ways of embedding share."""

    layer: str | None = None
    """Layer of the network. Of start: mean (1024 numbers of sound, 1280 of images), maximum,
    block11 (sound), stage5 (images) or aligned. Of runs with vgg towers: pool4, conv4_2, texture
    (sound) or aligned. aligned is the space that both sides share; fusions concat and dense
    have none. Default: mean or pool4, which is another space for each side."""
    hop_seconds: float = 0.5
    """Seconds from one window of sound to the next, and from one frame of a video to the next."""
    center: bool = False
    """Put half a window of silence before a sound. The middle of window k is then k * hop."""
    normalize: bool = False
    """Give vectors of length 1."""
    dense: bool = False
    """Compute all windows of a sound in one run of the audio tower. This is fast for short hops.
    Near its edges a window then depends on the sound outside of it."""
    batch_size: int = 32
    """Number of windows or frames that a GPU computes at once."""
    precision: Precision = "float32"
    """Arithmetic of the network; bfloat16 is faster on processors that support it."""

    def __post_init__(self) -> None:
        if not 0 < self.hop_seconds < math.inf:
            raise OptionError(
                f"hop_seconds {self.hop_seconds:g} must be a number above 0, such as 0.5",
                "hop_seconds",
            )
        check_at_least(1, batch_size=self.batch_size)
        check_one_of(Precision, precision=self.precision)


class EmbedChoices(TypedDict, total=False):
    """The fields of `EmbedOptions` as keyword arguments, for functions that people call."""

    layer: str | None
    hop_seconds: float
    center: bool
    normalize: bool
    dense: bool
    batch_size: int
    precision: Precision


@dataclass(frozen=True)
class EmbedFilesOptions:
    """The choices of the verb `embed`: how many files become files of vectors."""

    vectors: EmbedOptions = field(default_factory=EmbedOptions)
    """How a vector is made."""
    modality: Modality = "auto"
    """What is embedded of a file: its sound (audio), its images (image), both (video), or whatever
    it has (auto)."""
    align: bool = False
    """Of videos: take for each window of sound the frame that is nearest to its middle."""
    format: str = "npz"
    """Format of the files of vectors: npz (arrays), parquet or jsonl (one row for each vector)."""
    overwrite: bool = False
    """Embed files again that are done."""
    retry_crashed: bool = False
    """Open files again that crashed the decoder in an earlier run."""
    stall_seconds: float = WorkerLimits.stall_seconds
    """Give up a file if decoding does not advance by one second in this time."""
    memory_megabytes: int = WorkerLimits.memory_megabytes
    """Memory that decoding one file may take."""

    def __post_init__(self) -> None:
        check_one_of(Modality, modality=self.modality)
        check_above_zero(stall_seconds=self.stall_seconds)
        check_at_least(1, memory_megabytes=self.memory_megabytes)
