"""Writes what `looklisten localize` gives of one video into a folder: maps, still images, overlay.

    overlay.mp4      the video with its maps
    sheet.png        up to twelve moments
    NNN_frame.png    one frame with its map
    NNN_sound.png    the spectrogram of its second of sound with its map
    maps.npz         all maps as arrays

The video is decoded twice: for the maps, and for the overlay. The overlay needs all maps before its
first frame, since they are scaled by the highest value of all. Keeping the frames in between would
take 2 GB of memory for one minute of 720p video.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from looklisten.drawing.figures import (
    FramePixels,
    SheetColumn,
    contact_sheet,
    encode_png,
    frame_overlay,
    spectrogram_overlay,
)
from looklisten.drawing.heatmap_colors import FloatArray
from looklisten.inference.localization.localize import MapComputer, localize_each
from looklisten.inference.localization.methods import localize_moments
from looklisten.inference.localization.options import LocalizeFileOptions
from looklisten.inference.localization.records import HeatMap, Localization, normalize_maps
from looklisten.media.decode.records import DecodeReport
from looklisten.media.redraw import VideoInfo
from looklisten.model.l3net import L3Net
from looklisten.system.files import atomic_write
from looklisten.system.progress import Progress, no_progress

SHEET_MOMENTS = 12


@dataclass(frozen=True, eq=False)
class LocalizedVideo:
    """The maps of a video, and the frames of the moments that become still images."""

    localizations: Sequence[Localization]
    video_info: VideoInfo | None
    """Size and length of the video, for its overlay."""
    still_frames: dict[int, FramePixels]
    """Number of the localization -> its frame. Not all have one: hours of video fit into memory."""


def localize_video(
    video: str | Path,
    model: L3Net,
    options: LocalizeFileOptions,
    progress: Progress = no_progress,
    compute: MapComputer = localize_moments,
) -> LocalizedVideo:
    """Normalized maps of a video: as many as its overlay needs, with the frames of some.

    `compute` is called as `localize_moments` is.

    Raises SourceError when the file has no video with sound, ConfigError when the network does not
    support the method.
    """
    still_every_seconds = options.maps.every_seconds
    map_every_seconds = still_every_seconds
    if options.overlay:
        map_every_seconds = min(still_every_seconds, options.overlay_every_seconds)
    map_options = replace(options.maps, every_seconds=map_every_seconds)
    report = DecodeReport()
    next_still_seconds = 0.0
    localizations: list[Localization] = []
    still_frames: dict[int, Tensor] = {}
    localized = localize_each(video, model, map_options, report=report, compute=compute)
    for moment, localization in localized:
        at_seconds = localization.at_seconds
        # Maps lie on a grid of their own. One that is half a step early is taken, so that still
        # images come as often as `every_seconds` says.
        if at_seconds >= next_still_seconds - map_every_seconds / 2:
            still_frames[len(localizations)] = moment.frame
            late_seconds = max(at_seconds - next_still_seconds, 0)
            next_still_seconds += still_every_seconds * (1 + late_seconds // still_every_seconds)
        localizations.append(localization)
        done_seconds = round(at_seconds)
        total_seconds = round(report.declared_seconds)
        # A truncated file declares no length, or a wrong one.
        progress(done_seconds, max(total_seconds, done_seconds))
    video_info = None
    if report.frame_size:
        # This pass has seen the frames, so the overlay need not open the file for their size.
        video_info = VideoInfo(*report.frame_size, report.declared_seconds)
    return LocalizedVideo(normalize_maps(localizations), video_info, still_frames)


def write_stills(
    localized: LocalizedVideo, folder: Path, progress: Progress = no_progress
) -> dict[str, str]:
    """Write NNN_frame.png, NNN_sound.png, sheet.png and maps.npz; returns the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    moments = []
    for number, frame in localized.still_frames.items():
        moments.append(SheetColumn(frame, localized.localizations[number]))
    for number, moment in enumerate(moments):
        frame_png = encode_png(frame_overlay(moment.frame, moment.localization))
        sound_png = encode_png(spectrogram_overlay(moment.localization))
        (folder / f"{number:03d}_frame.png").write_bytes(frame_png)
        (folder / f"{number:03d}_sound.png").write_bytes(sound_png)
        progress(number + 1, len(moments))
    every = max(len(moments) // SHEET_MOMENTS, 1)
    sheet = folder / "sheet.png"
    sheet.write_bytes(contact_sheet(moments[::every][:SHEET_MOMENTS]))
    maps = folder / "maps.npz"
    _write_maps(localized, maps)
    return {"sheet": str(sheet), "maps": str(maps)}


def _write_maps(localized: LocalizedVideo, path: Path) -> None:
    localizations = localized.localizations
    with atomic_write(path) as scratch:
        np.savez_compressed(
            scratch,
            at_seconds=np.array([item.at_seconds for item in localizations]),
            frame_maps=_stacked([item.frame_map for item in localizations]),
            sound_maps=np.stack([item.sound_map.values for item in localizations]),
            probability=np.array([item.probability for item in localizations]),
            is_silent=np.array([item.is_silent for item in localizations]),
            still_rows=np.array(list(localized.still_frames)),
        )


def _stacked(heat_maps: Sequence[HeatMap]) -> FloatArray:
    """Maps as one array `[moments, rows, columns]`; each covers its whole frame."""
    shapes = {heat_map.values.shape for heat_map in heat_maps}
    if len(shapes) == 1:
        return np.stack([heat_map.values for heat_map in heat_maps])
    # The video changes the size of its frames, so smaller maps are enlarged.
    rows = max(shape[0] for shape in shapes)
    columns = max(shape[1] for shape in shapes)
    return np.stack([heat_map.enlarged(rows, columns) for heat_map in heat_maps])
