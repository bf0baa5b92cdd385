"""The choices of localization, as records: the command line offers them and the library takes them.

Imports neither torch nor numpy, so that the help of the command line needs no second.
"""

from dataclasses import dataclass, field
from typing import Literal, TypedDict

from looklisten.option_checks import check_above_zero, check_at_least, check_one_of

Method = Literal["unit", "correspondence", "similarity"]
"""What a heat map shows; `methods.localize_moments` explains the three."""


@dataclass(frozen=True)
class LocalizeOptions:
    """The choices of `localize`."""

    every_seconds: float = 1.0
    """Seconds from one map to the next."""
    method: Method | None = None
    """correspondence (gradient of the answer "they correspond"), similarity (of each position and
    the sound) or unit (where one unit responds). Default: correspondence for networks with fusion
    concat or distance, else similarity."""
    units: tuple[int, int] | None = None
    """With method unit: number of the vision unit and of the audio unit. Default: the units that
    respond most."""

    def __post_init__(self) -> None:
        check_above_zero(every_seconds=self.every_seconds)
        check_one_of(Method, method=self.method)
        if self.units is not None:
            check_at_least(0, units=min(self.units))


class LocalizeChoices(TypedDict, total=False):
    """The fields of `LocalizeOptions` as keyword arguments, for functions that people call."""

    every_seconds: float
    method: Method | None
    units: tuple[int, int] | None


@dataclass(frozen=True)
class LocalizeFileOptions:
    """The choices of the verb `localize`: what it writes of a video."""

    maps: LocalizeOptions = field(default_factory=LocalizeOptions)
    """How maps are made, and how far apart the still images are."""
    overlay_every_seconds: float = 0.2
    """Seconds between the maps of overlay.mp4; the frames between two maps get a mixture."""
    overlay: bool = True
    """Whether to write overlay.mp4, which takes most of the time. Without it, maps are as far apart
    as still images."""

    def __post_init__(self) -> None:
        check_above_zero(overlay_every_seconds=self.overlay_every_seconds)
