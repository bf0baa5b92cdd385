"""A video -> heat maps through its whole length. Knows clips, moments and a network."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
from jaxtyping import Float

from looklisten.config import SIDES
from looklisten.data.clips import Clip
from looklisten.data.cutting import cut
from looklisten.data.options import PrepareOptions
from looklisten.data.sources import Source
from looklisten.errors import ConfigError
from looklisten.inference.localization.methods import localize_moments
from looklisten.inference.localization.options import LocalizeChoices, LocalizeOptions
from looklisten.inference.localization.records import Localization, normalize_maps
from looklisten.inference.moments import Moment, moment_at
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.records import DecodeReport
from looklisten.media.isolation.parent import stream_isolated
from looklisten.media.spectrogram import WINDOW_SAMPLES, WINDOW_SECONDS
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run, check_is_opened

MAPS_PER_BATCH = 16

MapComputer = Callable[..., list[Localization]]
"""A function with the parameters of `localize_moments`."""


def localize(
    source: str | Path | Clip | Iterable[Clip],
    model: L3Net | Run,
    at_seconds: Sequence[float] | None = None,
    options: LocalizeOptions | None = None,
    **choices: Unpack[LocalizeChoices],
) -> list[Localization]:
    """Heat maps of a video file, or of clips of one video, in 0..1 over all of them.

    Without `at_seconds` there is one moment every `every_seconds`. A moment is the stored frame
    nearest to that time with the second of sound around it. `choices` are fields of
    `LocalizeOptions`; they override `options`.

    Raises SourceError when the file has no video with sound. Raises ConfigError when the network
    does not support the method, and for a time that the video does not have.
    """
    check_is_opened(model)
    if isinstance(model, Run):
        model = model.l3net
    options = replace(options or LocalizeOptions(), **choices)
    localized = localize_each(source, model, options, at_seconds)
    return normalize_maps([localization for _, localization in localized])


def localize_each(
    source: str | Path | Clip | Iterable[Clip],
    model: L3Net,
    options: LocalizeOptions,
    at_seconds: Sequence[float] | None = None,
    report: DecodeReport | None = None,
    prepare_options: PrepareOptions | None = None,
    compute: MapComputer = localize_moments,
) -> Iterator[tuple[Moment, Localization]]:
    """The moments of `localize`, one after the other, each with its maps before normalization.

    A moment holds the frame and the sound. Who drops it can localize hours of video in little
    memory. `report` gets what decoding a file finds; `prepare_options` has limits for a file.
    `compute` is called as `localize_moments` is, with moments that are computed together.
    """
    _check_units(model, options.units)
    model.eval()
    times = None if at_seconds is None else np.sort(np.array(at_seconds, dtype=np.float64))
    around_seconds = WINDOW_SECONDS
    if times is None:
        # Maps close to each other share most of their sound; each then gets its own part of it.
        around_seconds = min(options.every_seconds, WINDOW_SECONDS)
    moment_count = 0
    end_seconds = 0.0
    for clip in _clips(source, report or DecodeReport(), prepare_options or PrepareOptions()):
        end_seconds = clip.start_seconds + clip.duration_seconds
        clip_times = _times_in_clip(clip, options.every_seconds, times)
        moment_count += len(clip_times)
        moments = (_moment_around(clip, model, float(time)) for time in clip_times)
        for batch in _batches_of_one_size(moments):
            localizations = compute(model, batch, options.method, options.units, around_seconds)
            yield from zip(batch, localizations, strict=True)
    if times is not None and moment_count < len(times):
        raise ConfigError(
            f"{len(times) - moment_count} of the {len(times)} times in at_seconds lie where the "
            f"video, {end_seconds:.2f} s long, has no frames with sound"
        )


def _check_units(model: L3Net, units: tuple[int, int] | None) -> None:
    for side, unit in zip(SIDES, units or (), strict=False):
        count = model.features[side]
        if not 0 <= unit < count:
            raise ConfigError(
                f"the {side} tower has units 0 to {count - 1}, and units names its unit {unit}"
            )


def _times_in_clip(
    clip: Clip, every_seconds: float, times: Float[np.ndarray, " times"] | None
) -> Float[np.ndarray, " clip_times"]:
    """The times of a clip's moments, from the start of the clip."""
    if times is None:
        count = max(round(clip.duration_seconds / every_seconds), 1)
        return (np.arange(count) + 0.5) * clip.duration_seconds / count
    end_seconds = clip.start_seconds + clip.duration_seconds
    is_inside = (times >= clip.start_seconds) & (times < end_seconds)
    return times[is_inside] - clip.start_seconds


def _clips(
    source: str | Path | Clip | Iterable[Clip], report: DecodeReport, options: PrepareOptions
) -> Iterable[Clip]:
    if isinstance(source, Clip):
        return [source]
    if not isinstance(source, (str, Path)):
        return source
    path = Path(source)
    file_size = path.stat().st_size if path.is_file() else 0
    file = Source(path.name, file_size)
    return stream_isolated(cut, path, file, options, source=path, report=report)


def _batches_of_one_size(moments: Iterable[Moment]) -> Iterator[list[Moment]]:
    """Consecutive moments in batches."""
    batch: list[Moment] = []
    for moment in moments:
        is_full = len(batch) == MAPS_PER_BATCH
        # Recorded broadcasts change the size of their frames.
        if batch and (is_full or batch[0].vision_input.shape != moment.vision_input.shape):
            yield batch
            batch = []
        batch.append(moment)
    if batch:
        yield batch


def _moment_around(clip: Clip, model: L3Net, at_seconds: float) -> Moment:
    """The stored frame nearest to a time of a clip, in the middle of its second of sound.

    Near the ends of the clip the frame is not in the middle.
    """
    distances = np.abs(np.array(clip.frame_seconds) - at_seconds)
    # Rounded, so that of two frames equally near the earlier one is taken, whatever the rounding
    # errors are.
    frame = int(distances.round(6).argmin())
    middle_start = round((clip.frame_seconds[frame] - WINDOW_SECONDS / 2) * SAMPLE_RATE_HZ)
    start = int(np.clip(middle_start, 0, len(clip.waveform) - WINDOW_SAMPLES))
    return moment_at(clip, model.config, start, frame)
