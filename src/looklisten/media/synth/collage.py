"""Videos composed of a user's own labeled images and sounds, matched by class.

A video is one image under a slow zoom and pan, with one recording of the same class and another one
quietly in the background. No image and no recording is in two splits. Video i depends on the
options, the files and i alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from looklisten.errors import ConfigError, SourceError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.records import DecodeReport
from looklisten.media.formats import AUDIO_SUFFIXES, IMAGE_SUFFIXES
from looklisten.media.images import read_image
from looklisten.media.synth.folder import Tables, video_name
from looklisten.media.synth.labeled_files import (
    FileFailure,
    LabeledFile,
    failure,
    read_labeled_files,
    split_files,
)
from looklisten.media.synth.options import COLLAGE_COLUMNS, CollageOptions
from looklisten.media.synth.rendered_video import RenderedVideo
from looklisten.media.synth.sound_effects import leveled, rms, with_noise
from looklisten.media.synth.world import WORLD_SPLITS, split_of
from looklisten.media.waveform import read_waveform_chunks
from looklisten.names import encode_name
from looklisten.system.processes import map_unordered
from looklisten.system.progress import Progress, no_progress

CLOSEST_ZOOM = 0.55
"""At the closest the camera shows this share of the image's shorter side."""

MAX_LOOP_GAP_SECONDS = 0.4
"""The longest pause between two repetitions of a short recording."""

SILENCE_DB = -60.0
"""The start and end of a recording are cut off where they are below this, relative to its peak."""

FilesBySide = dict[tuple[str, str], list[LabeledFile]]
"""(class, "train" or "test") -> files."""


@dataclass(frozen=True)
class Ingredients:
    """What one video is composed of."""

    label: str
    split: str
    image: LabeledFile
    sound: LabeledFile


@dataclass(frozen=True, eq=False)
class Collage:
    """The videos that are composed of `images` and `sounds`, all of which can be read."""

    options: CollageOptions
    images: FilesBySide
    sounds: FilesBySide
    failures: list[FileFailure]
    """Files that cannot be used."""

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            image_classes = ", ".join(sorted({label for label, _ in self.images}))
            sound_classes = ", ".join(sorted({label for label, _ in self.sounds}))
            raise ConfigError(
                "a collage needs at least 2 classes with images and sounds for training and for "
                f"testing, and found {', '.join(self.classes) or 'none'}; classes of the images: "
                f"{image_classes}; of the sounds: {sound_classes}; if only the names differ, name "
                f"both: --same drum_kit=drum{self._first_failure()}"
            )

    def _first_failure(self) -> str:
        if not self.failures:
            return ""
        first = self.failures[0]
        count = len(self.failures)
        return f"; {count} files cannot be read, the first: {first['source']}: {first['reason']}"

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes that have images and sounds on both sides of the split, by name."""
        complete = []
        for label in sorted({label for label, _ in self.images}):
            sides = [(label, split) for split in WORLD_SPLITS]
            if all(side in self.images and side in self.sounds for side in sides):
                complete.append(label)
        return tuple(complete)

    def ingredients(self, index: int) -> Ingredients:
        """What video `index` is made of: classes come in turn, the files of a class at random."""
        turn, class_number = divmod(index, len(self.classes))
        split = split_of(turn, self.options.test_share)
        label = self.classes[class_number]
        rng = np.random.default_rng((self.options.seed, index))
        images = self.images[label, split]
        image = images[int(rng.integers(len(images)))]
        sounds = self.sounds[label, split]
        sound = sounds[int(rng.integers(len(sounds)))]
        return Ingredients(label, split, image, sound)

    def video(self, index: int) -> RenderedVideo:
        """Video `index`; its frames are drawn when they are read."""
        options = self.options
        # Another seed than that of `ingredients`, so that its random numbers do not repeat.
        rng = np.random.default_rng((options.seed, index, 1))
        made_of = self.ingredients(index)
        background_sounds = []
        for (_, split), files in self.sounds.items():
            if split == made_of.split:
                background_sounds += files
        background = background_sounds[int(rng.integers(len(background_sounds)))]
        # A little larger than needed at the closest zoom, so that no step of it enlarges much or
        # skips pixels.
        pixels = read_image(made_of.image.path, round(options.side_pixels / CLOSEST_ZOOM))
        frame_count = round(options.seconds * options.frames_per_second)
        frames = moving_camera(rng, pixels, options.side_pixels, frame_count)
        sound = compose_sound(
            rng,
            _decode_sound(made_of.sound.path),
            _decode_sound(background.path),
            options.seconds,
            options.speed_change,
        )
        return RenderedVideo(frames, sound, options.side_pixels, options.frames_per_second)

    def tables(self) -> Tables:
        """`labels`: class and split of each video, and the files that it is made of."""
        rows: list[tuple[object, ...]] = [COLLAGE_COLUMNS]
        for index in range(self.options.videos):
            made_of = self.ingredients(index)
            files = tuple(map(encode_name, (made_of.image.path, made_of.sound.path)))
            rows.append((video_name(index), made_of.label, made_of.split, *files))
        return {"labels": rows}

    def settings(self) -> dict[str, Any]:
        """Everything that the files depend on; of the user's files, their number in each class."""
        return asdict(self.options) | {
            "classes": self.classes,
            "image_files": _counts(self.images),
            "sound_files": _counts(self.sounds),
        }


def _counts(files: FilesBySide) -> dict[str, int]:
    return {f"{label}, {split}": len(files[label, split]) for label, split in sorted(files)}


def read_collage(
    options: CollageOptions, workers: int | None = None, progress: Progress = no_progress
) -> Collage:
    """Find the images and sounds that `options` names, and check that each can be decoded.

    All files are checked before the first video, so that video i does not depend on the order of
    the work. Raises ConfigError if fewer than two classes have files on both sides of the split.
    """
    images, failures = read_labeled_files(Path(options.images), IMAGE_SUFFIXES)
    sounds, sound_failures = read_labeled_files(Path(options.sounds), AUDIO_SUFFIXES)
    failures = failures + sound_failures
    tasks = [(_check_image, file.path) for file in images]
    tasks += [(_check_sound, file.path) for file in sounds]
    undecodable = [
        failure for failure in map_unordered(_check, tasks, workers, progress) if failure
    ]
    # Sorted, because they come in the order in which workers finish.
    failures += sorted(undecodable, key=lambda line: line["source"])
    unusable = {line["source"] for line in undecodable}
    image_names = {_plain_label(sound): _plain_label(image) for image, sound in options.same}
    return Collage(
        options,
        split_files(_usable(images, {}, unusable), options.test_share),
        split_files(_usable(sounds, image_names, unusable), options.test_share),
        failures,
    )


def _check(task: tuple[Callable[[str], None], str]) -> FileFailure | None:
    """Decode one file; what is wrong with it, or None."""
    decode_file, path = task
    try:
        decode_file(path)
    except SourceError as error:
        return failure(path, "decode", str(error))
    return None


def _check_image(path: str) -> None:
    read_image(path, 16)


def _check_sound(path: str) -> None:
    _decode_sound(path)


def _usable(
    files: list[LabeledFile], other_names: dict[str, str], unusable: set[str]
) -> list[LabeledFile]:
    """The files that can be decoded, under the class names of the images."""
    usable = []
    for file in files:
        label = _plain_label(file.label)
        # Failures hold encoded paths, since a name need not be UTF-8.
        if failure(file.path, "", "")["source"] not in unusable:
            usable.append(replace(file, label=other_names.get(label, label)))
    return usable


def _plain_label(label: str) -> str:
    """The label as classes are compared: lower case, `_` for a space or hyphen."""
    return label.strip().lower().replace(" ", "_").replace("-", "_")


def _decode_sound(path: str) -> NDArray[np.float32]:
    """The sound of a file, `[samples]`, mono, 48 kHz. Raises SourceError."""
    chunks = list(read_waveform_chunks(path, DecodeReport()))
    if not chunks:
        raise SourceError(f"{path} holds no sound that can be decoded")
    return np.concatenate(chunks)


def moving_camera(
    rng: np.random.Generator,
    image: UInt8[Tensor, "height width 3"],
    side_pixels: int,
    frames: int,
) -> Iterator[NDArray[np.uint8]]:
    """`frames` squares of `side_pixels`: a part of the image that slowly moves and changes size.

    Half of the videos are mirrored. Each square is uint8 `[side, side, 3]`.
    """
    height, width = image.shape[:2]
    source = image.permute(2, 0, 1)[None].float()
    if rng.random() < 0.5:
        source = source.flip(3)
    # Brighter or darker, as photographs of one class are.
    light = rng.uniform(0.75, 1.2)
    zooms = rng.uniform(CLOSEST_ZOOM, 1.0, 2)
    positions = rng.random((2, 2))
    # Centers of the pixels of a frame, from -1 to 1, as grid_sample counts.
    steps = torch.linspace(-1, 1, side_pixels + 1)[:-1] + 1 / side_pixels
    for progress in np.linspace(0, 1, frames):
        zoom = zooms[0] + (zooms[1] - zooms[0]) * progress
        down, right = positions[0] + (positions[1] - positions[0]) * progress
        half_side = zoom * min(height, width) / 2
        columns = _sampled_positions(steps, half_side, width, right)
        rows = _sampled_positions(steps, half_side, height, down)
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None].float()
        frame = functional.grid_sample(
            source, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        yield (frame[0] * light).clamp(0, 255).permute(1, 2, 0).byte().numpy()


def _sampled_positions(steps: Tensor, half_side: float, size: int, position: float) -> Tensor:
    """Where a frame is sampled along one axis of the image, from -1 to 1.

    `position` is 0 if the frame lies at the start of the axis and 1 if it lies at the end.
    """
    half_share = half_side / (size / 2)
    return steps * half_side / (size / 2) + (2 * position - 1) * (1 - half_share)


def compose_sound(
    rng: np.random.Generator,
    recording: NDArray[np.float32],
    background: NDArray[np.float32],
    seconds: float,
    speed_change: float = 0.0,
) -> NDArray[np.float32]:
    """A recording and, quietly, another one, with noise and a random loudness, `[samples]`.

    Both are cut to `seconds`, or repeated with short pauses, at a random speed.
    """
    samples = round(seconds * SAMPLE_RATE_HZ)
    front = _fitted(rng, recording, samples, speed_change)
    back = _fitted(rng, background, samples, speed_change)
    mixed = front / rms(front) + back / rms(back) * 10 ** (rng.uniform(-40, -20) / 20)
    noise_db = rng.uniform(-45, -20)
    noise_slope = rng.uniform(0, 1.6)
    noisy = with_noise(rng, mixed, SAMPLE_RATE_HZ, noise_db, noise_slope)
    return leveled(noisy, rng.uniform(-32, -14))


def _fitted(
    rng: np.random.Generator, sound: NDArray[np.float32], samples: int, speed_change: float
) -> NDArray[np.float32]:
    """The sound without silence at its ends, at another speed, cut or repeated to `samples`."""
    return _looped(rng, _at_other_speed(rng, _without_silence(sound), speed_change), samples)


def _at_other_speed(
    rng: np.random.Generator, sound: NDArray[np.float32], change: float
) -> NDArray[np.float32]:
    # Uniform in the logarithm: half as fast is as likely as twice as fast.
    speed = (1 + change) ** rng.uniform(-1, 1)
    resampled: NDArray[np.float32] = soxr.resample(
        sound, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ, "HQ"
    )
    return resampled if len(resampled) else sound


def _without_silence(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    # Silence at the ends would make short gaps of a loop long.
    threshold = np.abs(sound).max() * 10 ** (SILENCE_DB / 20)
    loud = np.flatnonzero(np.abs(sound) > threshold)
    return sound[loud[0] : loud[-1] + 1] if len(loud) else sound


def _looped(
    rng: np.random.Generator, sound: NDArray[np.float32], samples: int
) -> NDArray[np.float32]:
    """A random stretch of `samples` of the sound, which is repeated if it is shorter."""
    if len(sound) >= samples:
        start = int(rng.integers(len(sound) - samples + 1))
        return sound[start : start + samples]
    parts = []
    size = 0
    # Longer by one repetition, so that it may begin anywhere in the recording.
    while size < samples + len(sound):
        pause_samples = int(rng.uniform(0, MAX_LOOP_GAP_SECONDS) * SAMPLE_RATE_HZ)
        parts += [sound, np.zeros(pause_samples, np.float32)]
        size += len(sound) + pause_samples
    start = int(rng.integers(len(sound)))
    return np.concatenate(parts)[start : start + samples]
