"""VGG-SS and Flickr-SoundNet as their owners lay them out -> moments with boxes. Knows their files:
no network, no score.

VGG-SS (Chen et al. 2021): `vggss.json`, a list of {"file", "class", "bbox"}; a file is a YouTube id
and a start in seconds, a box four corners in 0..1, of which some lie outside. Flickr-SoundNet
(Senocak et al. 2018): a folder of XML, one a picture, with a `bbox` for each annotator, whose first
child is a name and whose next four are corners in pixels of a picture of 256 x 256. The layout of
frames and sounds is that of the evaluator of hche11/Localizing-Visual-Sounds-the-Hard-Way, which
reads both.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch

from looklisten.config import ModelConfig
from looklisten.data.cutting import cut
from looklisten.data.options import PrepareOptions
from looklisten.data.public_sets import index_videos
from looklisten.data.shards import Box, Clip
from looklisten.data.sources import VIDEO_SUFFIXES, Source
from looklisten.errors import SourceError
from looklisten.evaluation.localization.questions import Marked
from looklisten.inference.moments import Moment, moments
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.images import read_picture
from looklisten.media.isolation.parent import stream
from looklisten.media.isolation.readers import read_sound
from looklisten.media.spectrogram import WINDOW_SAMPLES

SetName = Literal["vggss", "flickr-soundnet"]

FLICKR_SIDE_PIXELS = 256
YOUTUBE_ID_LETTERS = 11

Boxes = dict[str, tuple[Box, ...]]
"""By the name of the clip."""


def read_marked(
    name: SetName,
    media: str | Path,
    annotations: str | Path,
    config: ModelConfig,
    ids: str | Path | None = None,
    partial_set: bool = False,
) -> list[Marked]:
    """The moments of a set: the annotated picture, or the one in the middle of a video, with the
    middle second of its sound.

    `media`: a folder with `frames/NAME.jpg` and `audio/NAME.wav`, or with videos in it or below.
        `annotations`: vggss.json, or the folder of XML. `ids`: a list whose first column names the
        clips that count, such as the owners' flickr_test.csv; by default all. Raises SourceError
        where anything is not as described, and where a clip has no media unless `partial_set`.
    """
    media, annotations = Path(media), Path(annotations)
    annotated = LAYOUTS[name].boxes(annotations)
    boxes = annotated if ids is None else _listed(annotated, Path(ids), annotations)
    if not media.is_dir():
        raise SourceError(
            f"there is no folder {media}; give the folder that holds frames and audio, or the videos"
        )
    readers = (
        _stills(media, config)
        if (media / "frames").is_dir()
        else _videos(name, media, annotated, config)
    )
    missing = [clip for clip in boxes if clip not in readers]
    if missing and (len(missing) == len(boxes) or not partial_set):
        advice = (
            "give another folder"
            if len(missing) == len(boxes)
            else "--partial measures what is there, which is no figure to compare"
        )
        raise SourceError(
            f"{media} lacks {len(missing):,} of the {len(boxes):,} clips of {annotations}, such as {missing[0]}: looked for "
            f"frames/{missing[0]}.jpg with audio/{missing[0]}.wav, or a video such as {missing[0]}.mp4; {advice}"
        )
    whole_name = (
        None if name == "flickr-soundnet" else YOUTUBE_ID_LETTERS
    )  # two clips of one video are no independent witnesses
    return [
        Marked(clip[:whole_name], drawn, (), readers[clip], LAYOUTS[name].agree)
        for clip, drawn in boxes.items()
        if clip in readers
    ]


def _vggss(file: Path) -> Boxes:
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        return {
            one["file"]: tuple(_box(box, one["class"]) for box in one["bbox"]) for one in listed
        }
    except OSError as error:
        raise SourceError(
            f"{file} cannot be read ({error.strerror}); give VGG-SS's vggss.json"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise SourceError(
            f'{file} is no list of {{"file", "class", "bbox"}} with boxes of four numbers; give VGG-SS\'s vggss.json'
        ) from None


def _flickr(folder: Path) -> Boxes:
    files = sorted(folder.glob("*.xml")) if folder.is_dir() else []
    if not files:
        raise SourceError(
            f"{folder} is no folder of XML files; give Flickr-SoundNet's Annotations, one file a picture"
        )
    return {file.stem: _annotators(file) for file in files}


def _annotators(file: Path) -> tuple[Box, ...]:
    try:
        drawn = list(ElementTree.parse(file).iter("bbox"))  # noqa: S314 (expat itself stops entities that unfold)
        return tuple(
            _box([float(at.text or "") / FLICKR_SIDE_PIXELS for at in list(box)[1:5]], "")
            for box in drawn
        )
    except (OSError, ElementTree.ParseError, ValueError):
        raise SourceError(
            f"{file} has a box that is no name and four numbers; give Flickr-SoundNet's Annotations as distributed"
        ) from None


def _box(corners: Sequence[float], label: str) -> Box:
    x0, y0, x1, y1 = map(float, corners)
    return Box(0.0, x0, y0, x1, y1, label, sounding=True)


class Layout(NamedTuple):
    """What an owner's annotations are, how they are read, and how many boxes over a place make it
    true.
    """

    annotations: str
    boxes: Callable[[Path], Boxes]
    agree: int


LAYOUTS: dict[str, Layout] = {
    "vggss": Layout("the file vggss.json", _vggss, 1),
    "flickr-soundnet": Layout("the folder Annotations, one XML file a picture", _flickr, 2),
}


def _listed(boxes: Boxes, ids: Path, annotations: Path) -> Boxes:
    try:
        with ids.open(newline="", encoding="utf-8-sig") as file:
            names = [line[0].strip() for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{ids} cannot be read as a list of clips ({error}); give one whose first column names them"
        ) from None
    lacking = [clip for clip in names if clip not in boxes]
    if lacking or not names:
        raise SourceError(
            f"{annotations} lacks {len(lacking):,} of the {len(names):,} clips of {ids}, such as {', '.join(lacking[:1])}"
        )
    return {clip: boxes[clip] for clip in names}


Readers = dict[str, Callable[[], Moment]]


def _stills(media: Path, config: ModelConfig) -> Readers:
    """Clips of which both a frame and a sound lie there."""
    frames, sounds = (
        {file.stem: file for file in (media / part).glob("*")} for part in ("frames", "audio")
    )
    return {
        clip: partial(_still_moment, frames[clip], sounds[clip], config)
        for clip in frames.keys() & sounds.keys()
    }


def _still_moment(frame: Path, sound: Path, config: ModelConfig) -> Moment:
    """A picture with the middle second of a sound; a shorter sound is repeated, as those do who
    measured before.
    """
    wave = np.clip(np.rint(read_sound(sound) * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    wave = np.resize(wave, max(len(wave), WINDOW_SAMPLES))
    start = (len(wave) - WINDOW_SAMPLES) // 2
    middle_seconds = (start + WINDOW_SAMPLES / 2) / SAMPLE_RATE_HZ
    clip = Clip(
        frame.stem,
        frame.stem,
        str(frame),
        0.0,
        (middle_seconds,),
        (frame.read_bytes(),),
        wave,
        SAMPLE_RATE_HZ,
    )
    pixels = read_picture(frame, config.resize_pixels)
    seen = torch.cat([pixels] * config.frames_per_pair, dim=2)
    return Moment(
        clip,
        start / SAMPLE_RATE_HZ,
        middle_seconds,
        pixels,
        seen,
        wave[start : start + WINDOW_SAMPLES],
    )


def _videos(name: SetName, media: Path, annotated: Boxes, config: ModelConfig) -> Readers:
    """Clips whose video lies there: of VGG-SS named by YouTube id and perhaps start, of
    Flickr-SoundNet by its id.
    """
    found: dict[str, str | None]
    if name == "vggss":
        index, _ = index_videos(media, whole_videos=False)
        video_of = {clip: clip[:YOUTUBE_ID_LETTERS] for clip in annotated}
        clips_of = Counter(video_of.values())
        found = {
            clip: _vggss_video(clip, index.get(video, {}), clips_of[video] == 1)
            for clip, video in video_of.items()
        }
    else:
        files = (Path(where, file) for where, _, names in os.walk(media) for file in sorted(names))
        found = {
            file.stem: str(file.relative_to(media))
            for file in files
            if file.suffix.lower() in VIDEO_SUFFIXES
        }
    return {
        clip: partial(_video_moment, media / path, config) for clip, path in found.items() if path
    }


def _vggss_video(clip: str, by_start: dict[int | None, str], alone: bool) -> str | None:
    """The file of a clip: the one of its start, or, where the set has no other clip of that video,
    the one without a start.
    """
    start = clip[YOUTUBE_ID_LETTERS + 1 :]
    return (by_start.get(int(start) * 1000) if start.isdecimal() else None) or (
        by_start.get(None) if alone else None
    )


def _video_moment(path: Path, config: ModelConfig) -> Moment:
    source = Source(path.name, path.stat().st_size)
    clip = next(stream(cut, path, source, PrepareOptions(), (), None, 1, source=path))
    return next(moments(clip, config, 1))
