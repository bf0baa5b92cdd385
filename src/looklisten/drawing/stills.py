"""What `localize` leaves in a folder beside the film: pictures of some moments, and all maps as
arrays.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from looklisten.drawing.figures import contact_sheet, frame_overlay, spectrogram_overlay
from looklisten.drawing.overlay_video import without_pictures
from looklisten.inference.localization.localize import HeatMap, Localization, localize_each, to_unit
from looklisten.inference.localization.options import Method
from looklisten.media.isolation.readers import read_video_info
from looklisten.model.l3net import L3Net
from looklisten.system.files import atomic_write
from looklisten.system.progress import Progress, no_progress

ON_THE_SHEET = 12


def localized(
    video: Path,
    model: L3Net,
    every_seconds: float,
    maps_every_seconds: float,
    method: Method | None,
    units: tuple[int, int] | None,
    progress: Progress = no_progress,
) -> tuple[list[Localization], list[int]]:
    """Moments about every `maps_every_seconds` on one scale, and the numbers of those, about every
    `every_seconds`, for pictures.

    Only these keep their frame, so that hours of video fit into memory.
    """
    total, step_seconds = (
        round(read_video_info(video).duration_seconds),
        min(every_seconds, maps_every_seconds),
    )
    wanted_seconds = 0.0
    found: list[Localization] = []
    stills: list[int] = []
    for one in localize_each(video, model, step_seconds, method, units):
        # Half a step early is near enough, so that what is asked for on a finer grid comes as often
        # as it was asked for.
        if one.at_seconds >= wanted_seconds - step_seconds / 2:
            stills.append(len(found))
            wanted_seconds += every_seconds * (
                1 + max(one.at_seconds - wanted_seconds, 0) // every_seconds
            )
        found.append(without_pictures(one, keep_frame=stills[-1] == len(found)))
        progress(round(one.at_seconds), max(total, round(one.at_seconds)))
    return to_unit(found), stills


def write_stills(
    found: Sequence[Localization],
    stills: Sequence[int],
    out: Path,
    progress: Progress = no_progress,
) -> dict[str, str]:
    """NNN_frame.png and NNN_sound.png for each of `stills`, sheet.png of at most twelve of them,
    and maps.npz of all of `found`.
    """
    out.mkdir(parents=True, exist_ok=True)
    for number, place in enumerate(stills):
        (out / f"{number:03d}_frame.png").write_bytes(frame_overlay(found[place]))
        (out / f"{number:03d}_sound.png").write_bytes(spectrogram_overlay(found[place]))
        progress(number + 1, len(stills))
    (out / "sheet.png").write_bytes(
        contact_sheet(
            [
                found[place]
                for place in stills[:: max(len(stills) // ON_THE_SHEET, 1)][:ON_THE_SHEET]
            ]
        )
    )
    with atomic_write(out / "maps.npz") as scratch:
        np.savez_compressed(
            scratch,
            at_seconds=np.array([one.at_seconds for one in found]),
            frame_maps=_stacked([one.frame_map for one in found]),
            sound_maps=np.stack([one.sound_map.values for one in found]),
            probability=np.array([one.probability for one in found]),
            pictures=np.array(stills),
        )
    return {"picture": str(out / "sheet.png"), "maps": str(out / "maps.npz")}


def _stacked(maps: Sequence[HeatMap]) -> NDArray[np.float32]:
    """Maps as one array `[moments, rows, columns]`. Each covers its whole frame.

    Where the picture changes its size, the smaller maps are enlarged to the most rows and columns
    of all.
    """
    shapes = {one.values.shape for one in maps}
    if len(shapes) == 1:
        return np.stack([one.values for one in maps])
    rows, columns = (max(shape[axis] for shape in shapes) for axis in (0, 1))
    return np.stack([one.enlarged(rows, columns) for one in maps])
