"""A set with boxes and its media -> moments with their boxes. Knows no network and no score.

The layout of frames and sounds is that of the evaluator of VGG-SS,
hche11/Localizing-Visual-Sounds-the-Hard-Way.
"""

import csv
import io
from collections.abc import Callable
from functools import partial as with_arguments
from pathlib import Path

import numpy as np
import torch

from looklisten.config import ModelConfig
from looklisten.data.clips import Clip
from looklisten.data.cutting import cut
from looklisten.data.options import PrepareOptions
from looklisten.data.sources import Source
from looklisten.errors import SourceError
from looklisten.evaluation.localization.questions import AnnotatedMoment
from looklisten.evaluation.sets.localization_set import BoxesByClip, LocalizationSet
from looklisten.inference.moments import Moment, moments
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.images import read_image
from looklisten.media.isolation.parent import stream_isolated
from looklisten.media.isolation.readers import read_audio
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.tables import decode_text

INT16_SCALE = 2.0**15

LoaderByClip = dict[str, Callable[[], Moment]]
"""By the name of a clip, the function that reads its moment."""


def read_annotated_moments(
    localization_set: LocalizationSet,
    media: str | Path,
    annotations: str | Path,
    config: ModelConfig,
    ids: str | Path | None = None,
    partial: bool = False,
) -> list[AnnotatedMoment]:
    """The annotated moments of a set; frames and sounds are read later, one by one.

    A moment is the annotated frame, or the middle frame of a video, with the middle second of its
    sound.

    `media`: a folder with `frames/NAME.jpg` and `audio/NAME.wav`, or with videos in it or below it.
    `annotations`: what `localization_set.annotations` names.
    `ids`: a list whose first column names the clips to measure, such as flickr_test.csv of the
        owners; by default all clips.

    Raises SourceError if a file is not as described. Raises it for clips without media, too,
    unless `partial`.
    """
    media = Path(media)
    annotations = Path(annotations)
    all_boxes = localization_set.read_boxes(annotations)
    boxes = all_boxes if ids is None else _boxes_of_listed(all_boxes, Path(ids), annotations)
    if not media.is_dir():
        raise SourceError(
            f"there is no folder {media}; give the folder with frames and audio, or with the videos"
        )
    if (media / "frames").is_dir():
        loaders = _load_frames_and_sounds(media, config)
    else:
        # All clips count, not only the listed ones: they decide which file names are ambiguous.
        videos = localization_set.find_videos(media, all_boxes)
        loaders = {}
        for clip, video in videos.items():
            loaders[clip] = with_arguments(_moment_of_video, video, config)
    missing = [clip for clip in boxes if clip not in loaders]
    if missing and (len(missing) == len(boxes) or not partial):
        raise _missing_media(media, annotations, missing, len(boxes))
    return [
        AnnotatedMoment(
            video_id=localization_set.video_of(clip),
            sounding=clip_boxes,
            silent=(),
            load=loaders[clip],
            min_annotators=localization_set.min_annotators,
        )
        for clip, clip_boxes in boxes.items()
        if clip in loaders
    ]


def _missing_media(media: Path, annotations: Path, missing: list[str], n_clips: int) -> SourceError:
    example = missing[0]
    advice = "--partial measures the other clips, which gives a figure that cannot be compared"
    if len(missing) == n_clips:
        advice = "give another folder"
    return SourceError(
        f"{media} lacks {len(missing):,} of the {n_clips:,} clips of {annotations}, "
        f"such as {example}: there is neither frames/{example}.jpg with audio/{example}.wav, "
        f"nor a video such as {example}.mp4; {advice}"
    )


def _boxes_of_listed(boxes: BoxesByClip, ids: Path, annotations: Path) -> BoxesByClip:
    """The boxes of the clips that the first column of `ids` names."""
    try:
        text, _ = decode_text(str(ids), ids.read_bytes())
        names = [row[0].strip() for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (OSError, csv.Error) as error:
        raise SourceError(
            f"{ids} cannot be read as a list of clips ({error}); "
            f"give one whose first column names them"
        ) from None
    unknown = [clip for clip in names if clip not in boxes]
    if unknown or not names:
        example = f", such as {unknown[0]}" if unknown else ""
        raise SourceError(
            f"{annotations} lacks {len(unknown):,} of the {len(names):,} clips of {ids}{example}"
        )
    return {clip: boxes[clip] for clip in names}


def _load_frames_and_sounds(media: Path, config: ModelConfig) -> LoaderByClip:
    """Loaders of the clips that have both a frame and a sound."""
    frames = {file.stem: file for file in (media / "frames").glob("*")}
    sounds = {file.stem: file for file in (media / "audio").glob("*")}
    return {
        clip: with_arguments(_moment_of_frame, frames[clip], sounds[clip], config)
        for clip in frames.keys() & sounds.keys()
    }


def _moment_of_frame(frame: Path, sound: Path, config: ModelConfig) -> Moment:
    """A frame with the middle second of a sound."""
    # As in shards, where sound has 16 bits.
    samples = np.clip(np.rint(read_audio(sound) * INT16_SCALE), -INT16_SCALE, INT16_SCALE - 1)
    waveform = samples.astype(np.int16)
    # The evaluator of the owners repeats short sounds too.
    waveform = np.resize(waveform, max(len(waveform), WINDOW_SAMPLES))
    start = (len(waveform) - WINDOW_SAMPLES) // 2
    middle_seconds = (start + WINDOW_SAMPLES / 2) / SAMPLE_RATE_HZ
    clip = Clip(
        frame.stem,
        frame.stem,
        str(frame),
        0.0,
        (middle_seconds,),
        (frame.read_bytes(),),
        waveform,
        SAMPLE_RATE_HZ,
    )
    pixels = read_image(frame, config.resize_pixels)
    # A network that takes several frames at a time gets this one several times.
    repeated = torch.cat([pixels] * config.frames_per_pair, dim=2)
    window = waveform[start : start + WINDOW_SAMPLES]
    return Moment(clip, start / SAMPLE_RATE_HZ, middle_seconds, pixels, repeated, window)


def _moment_of_video(path: Path, config: ModelConfig) -> Moment:
    """The middle frame of a video with the middle second of its sound."""
    source = Source(path.name, path.stat().st_size)
    clip = next(stream_isolated(cut, path, source, PrepareOptions(), (), None, 1, source=path))
    return next(moments(clip, config, 1))
