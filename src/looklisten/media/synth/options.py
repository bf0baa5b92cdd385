"""What `synth` makes, as records.

Imports neither NumPy nor PyTorch, so that the command line can use it.
"""

from dataclasses import dataclass

from looklisten.errors import OptionError
from looklisten.option_checks import check_at_least

WORLD_COLUMNS = ("path", "label", "split", "background")
"""The columns of labels.csv of a drawn world."""
COLLAGE_COLUMNS = ("path", "label", "split", "image", "sound")
"""The columns of labels.csv of composed videos: also the files that a video is made of."""


@dataclass(frozen=True, kw_only=True)
class SynthOptions:
    """The options that drawn and composed videos share."""

    videos: int = 360
    """Number of videos."""
    seed: int = 0
    """The same seed and options give the same files."""
    seconds: float = 10.0
    """Length of each video."""
    side_pixels: int = 256
    """Width and height."""
    frames_per_second: int = 25
    """Frame rate."""
    test_share: float = 0.25
    """Share of the videos in the split "test"; the others are in "train"."""

    def __post_init__(self) -> None:
        check_at_least(1, videos=self.videos, seconds=self.seconds)
        check_at_least(0, seed=self.seed)
        if not 16 <= self.side_pixels <= 4096:
            raise OptionError(
                f"side_pixels {self.side_pixels} must be from 16 to 4096", "side_pixels"
            )
        if self.side_pixels % 2:
            raise OptionError(
                f"side_pixels {self.side_pixels} is odd; H.264 needs an even size", "side_pixels"
            )
        if not 1 <= self.frames_per_second <= 120:
            raise OptionError(
                f"frames_per_second {self.frames_per_second} must be from 1 to 120",
                "frames_per_second",
            )
        if not 0 <= self.test_share < 1:
            raise OptionError(
                f"test_share {self.test_share:g} must be at least 0 and below 1", "test_share"
            )


@dataclass(frozen=True, kw_only=True)
class WorldOptions(SynthOptions):
    """A drawn world: objects that move and sound, with known boxes and onsets."""

    silent_share: float = 1 / 3
    """Share of the videos with a second, silent object of another class."""
    videos_per_background: int = 4
    """About this many videos of one split share a background."""
    random_classes: int = 0
    """Use this many randomly generated classes instead of the twelve fixed ones. Their objects fill
    the frame, so no video has a silent object."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.silent_share <= 1:
            raise OptionError(
                f"silent_share {self.silent_share:g} must be from 0 to 1", "silent_share"
            )
        if self.random_classes < 0 or self.random_classes == 1:
            raise OptionError(
                f"random_classes {self.random_classes} must be 0 (the twelve fixed classes) "
                "or at least 2",
                "random_classes",
            )


@dataclass(frozen=True, kw_only=True)
class CollageOptions(SynthOptions):
    """Videos composed of a user's own labeled images and sounds."""

    images: str
    """Folder with one folder of images for each class, or a table with the columns path, label."""
    sounds: str
    """Folder with one folder of sounds for each class, or a table with the columns path, label."""
    same: tuple[tuple[str, str], ...] = ()
    """Classes with two names: (name among the images, name among the sounds)."""
    speed_change: float = 0.25
    """Play sounds faster or slower by up to this share, which changes their pitch too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.speed_change <= 1:
            raise OptionError(
                f"speed_change {self.speed_change:g} must be from 0 (as recorded) "
                "to 1 (up to twice as fast or slow)",
                "speed_change",
            )
