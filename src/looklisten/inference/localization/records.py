"""What localization gives: heat maps and their times. Knows numbers, no network and no image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from looklisten.inference.localization.enlarge import enlarge_map


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Values of at least 0 over a whole frame or a whole spectrogram.

    Rows of a frame go down. Rows of a spectrogram go from low to high frequencies.
    """

    values: Float[np.ndarray, "rows columns"]

    def peak(self) -> tuple[float, float]:
        """Center of the highest position as (x, y), each in 0..1 from the top left."""
        rows, columns = self.values.shape
        row, column = np.unravel_index(int(self.values.argmax()), (rows, columns))
        return (float(column) + 0.5) / columns, (float(row) + 0.5) / rows

    def enlarged(self, height: int, width: int) -> Float[np.ndarray, "height width"]:
        """The map in another size, such as the size of its frame; bilinear."""
        return enlarge_map(self.values, height, width)


@dataclass(frozen=True, eq=False)
class Localization:
    """Heat maps of one moment: one over its frame, one over the spectrogram of its sound."""

    at_seconds: float
    """Time of the frame. All times count from the start of the source."""
    sound_start_seconds: float
    """Start of the second of sound."""
    clip_seconds: tuple[float, float]
    """Start and end of the clip that the moment comes from."""
    spectrogram: Float[np.ndarray, "bands columns"]
    frame_map: HeatMap
    sound_map: HeatMap
    probability: float
    """Probability that frame and sound correspond."""
    method: str
    units: tuple[int, int] | None
    """The vision unit and the audio unit that the maps show; None except for method `unit`."""
    is_silent: bool
    """Whether the second of sound holds nothing but silence."""
    holds_probability: bool = False
    """Whether the brightest position of the frame has the probability already."""

    @property
    def weight(self) -> float:
        """Factor of the maps in `normalize_maps`, 0..1.

        It is 1 for method `unit`. Other methods compare both sides, so it is the probability that
        frame and sound correspond, or 1 where the maps hold it.
        """
        if self.method == "unit":
            return 1.0
        # In silence there is nothing that could correspond, and few networks are trained on it.
        if self.is_silent:
            return 0.0
        return 1.0 if self.holds_probability else self.probability


def normalize_maps(localizations: Sequence[Localization]) -> list[Localization]:
    """Scale the maps of one source to 0..1 so that moments can be compared.

    Maps of method `similarity` are probabilities and keep their scale. Other maps are divided by
    the highest value of all. Then each map is multiplied by the `weight` of its moment. A frame
    with a sound from elsewhere therefore stays dark.
    """
    if all(localization.method == "similarity" for localization in localizations):
        highest_frame_value = highest_sound_value = 1.0
    else:
        highest_frame_value = _highest([item.frame_map for item in localizations])
        highest_sound_value = _highest([item.sound_map for item in localizations])
    normalized = []
    for localization in localizations:
        frame_factor = localization.weight / highest_frame_value
        sound_factor = localization.weight / highest_sound_value
        frame_map = HeatMap(localization.frame_map.values * frame_factor)
        sound_map = HeatMap(localization.sound_map.values * sound_factor)
        normalized.append(replace(localization, frame_map=frame_map, sound_map=sound_map))
    return normalized


def _highest(heat_maps: Sequence[HeatMap]) -> float:
    highest = max((float(heat_map.values.max()) for heat_map in heat_maps), default=0.0)
    # Maps of zeros stay zeros.
    return highest or 1.0
