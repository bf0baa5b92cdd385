"""Videos composed from a user's own labelled pictures and sounds, joined by class: the nearest
thing to a filmed set without a camera.

A video is one picture under a slow zoom and pan, and one recording of the same class with faint
things behind it. No picture and no recording is in two splits. Video i depends on the settings, the
files and i alone.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
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
from looklisten.media.synth.film import Film
from looklisten.media.synth.library import Item, read_items, split_items
from looklisten.media.synth.sounds import leveled, rms, with_noise
from looklisten.media.synth.world import Tables
from looklisten.media.waveform import read_waveform_chunks

SMALLEST_PART = 0.55
"""Of a picture's shorter side that the camera shows at its closest."""
GAP_SECONDS = 0.4
"""At most so long between one end of a looped recording and its next beginning."""
SILENCE_DB = -60.0
"""Relative to its peak, what begins and ends a recording at less is cut off."""


@dataclass(frozen=True, eq=False)
class Collage:
    """The settings of a composed set. `same` names classes that are called otherwise among the
    sounds: (picture's, sound's).
    """

    pictures: str
    sounds: str
    videos: int = 360
    seed: int = 0
    seconds: float = 4.0
    side_pixels: int = 256
    frames_per_second: int = 10
    test_share: float = 0.25
    same: tuple[tuple[str, str], ...] = ()
    speed_change: float = 0.25
    """Recordings are played faster or slower by up to this share, pitch and all: a few notes stand
    for many.
    """

    def __post_init__(self) -> None:
        if (
            self.videos < 1
            or self.seconds < 1
            or not 16 <= self.side_pixels <= 4096
            or not 1 <= self.frames_per_second <= 120
        ):
            raise ConfigError(
                "a collage needs at least 1 video of at least 1 second, of 16 to 4096 pixels, at 1 to 120 frames a second"
            )
        if not 0 <= self.speed_change <= 1:
            raise ConfigError(
                f"speed_change {self.speed_change:g} is a share: between 0 (as recorded) and 1 (up to twice as fast or slow)"
            )
        if self.side_pixels % 2:
            raise ConfigError(f"side_pixels {self.side_pixels} is odd; H.264 needs an even size")
        if len(self.classes) < 2:
            pictures, sounds = (
                ", ".join(sorted({label for label, _ in parts})) for parts in self._parts
            )
            raise ConfigError(
                f"a collage needs at least 2 classes with pictures and sounds for training and for testing, and found "
                f"{', '.join(self.classes) or 'none'}; classes of the pictures: {pictures}; of the sounds: {sounds}; "
                f"where only the names differ, say so: --same drum_kit=drum"
            )

    @cached_property
    def _parts(self) -> tuple[dict[tuple[str, str], list[Item]], dict[tuple[str, str], list[Item]]]:
        """Pictures and sounds by (class, split), the sounds under their pictures' class names."""
        names = {_plain(sound): _plain(picture) for picture, sound in self.same}
        pictures, sounds = (
            read_items(Path(self.pictures), IMAGE_SUFFIXES),
            read_items(Path(self.sounds), AUDIO_SUFFIXES),
        )
        both = []
        for items, renamed in ((pictures, {}), (sounds, names)):
            known = [
                Item(i.path, renamed.get(_plain(i.label), _plain(i.label)), i.group) for i in items
            ]
            both.append(split_items(known, self.test_share))
        return both[0], both[1]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes that have pictures and sounds on both sides of the split, by name."""
        pictures, sounds = self._parts
        everywhere = [
            {label for label, side in parts if side == split}
            for parts in (pictures, sounds)
            for split in ("train", "test")
        ]
        return tuple(sorted(set.intersection(*everywhere)))

    def name(self, index: int) -> str:
        return f"{index:06d}.mp4"

    def chosen(self, index: int) -> tuple[str, str, Item, Item]:
        """(class, split, picture, recording) of video `index`: classes in turn, both files drawn at
        random.
        """
        turn, place = divmod(index, len(self.classes))
        split = ("train", "test")[
            int((turn + 1) * self.test_share + 1e-9) > int(turn * self.test_share + 1e-9)
        ]
        label, rng = self.classes[place], np.random.default_rng((self.seed, index))
        picture, sound = (
            parts[label, split][int(rng.integers(len(parts[label, split])))]
            for parts in self._parts
        )
        return label, split, picture, sound

    def film(self, index: int) -> Film:
        """Video `index`, drawn as it is read."""
        rng = np.random.default_rng((self.seed, index, 1))
        _, split, picture, sound = self.chosen(index)
        others = [
            item for (_, side), items in self._parts[1].items() if side == split for item in items
        ]
        behind = _whole(others[int(rng.integers(len(others)))].path)
        frames = round(self.seconds * self.frames_per_second)
        # A little larger than what is shown at the closest, so that no step of the zoom enlarges
        # much or skips pixels.
        pixels = read_image(picture.path, round(self.side_pixels / SMALLEST_PART))
        pictures = moving_camera(rng, pixels, self.side_pixels, frames)
        composed = compose_sound(rng, _whole(sound.path), behind, self.seconds, self.speed_change)
        return Film(pictures, composed, self.side_pixels, self.frames_per_second)

    def tables(self) -> Tables:
        """`labels`: the class and split of each video, and what it was made of."""
        rows: list[tuple[object, ...]] = [("path", "label", "split", "picture", "sound")]
        for index in range(self.videos):
            label, split, picture, sound = self.chosen(index)
            rows.append((self.name(index), label, split, picture.path, sound.path))
        return {"labels": rows}

    def settings(self) -> dict[str, Any]:
        """What equal films have equal; how many files of each class stand behind them too."""
        counts = [
            {f"{label}, {split}": len(items) for (label, split), items in sorted(parts.items())}
            for parts in self._parts
        ]
        return asdict(self) | {
            "classes": self.classes,
            "picture_files": counts[0],
            "sound_files": counts[1],
        }


def _whole(path: str) -> NDArray[np.float32]:
    """The sound of a file, `[samples]`, mono, 48 kHz."""
    pieces = list(read_waveform_chunks(path, DecodeReport()))
    if not pieces:
        raise SourceError(f"{path} holds no sound that can be decoded")
    return np.concatenate(pieces)


def _plain(label: str) -> str:
    return label.strip().lower().replace(" ", "_").replace("-", "_")


def moving_camera(
    rng: np.random.Generator,
    picture: UInt8[Tensor, "height width 3"],
    side_pixels: int,
    frames: int,
) -> Iterator[NDArray[np.uint8]]:
    """`frames` squares of `side_pixels`: a part of the picture that slowly moves and grows or
    shrinks, mirrored half the time.
    """
    height, width = picture.shape[:2]
    image = picture.permute(2, 0, 1)[None].float()
    if rng.random() < 0.5:
        image = image.flip(3)
    light = rng.uniform(0.75, 1.2)
    parts, places = rng.uniform(SMALLEST_PART, 1.0, 2), rng.random((2, 2))
    steps = torch.linspace(-1, 1, side_pixels + 1)[:-1] + 1 / side_pixels
    for done in np.linspace(0, 1, frames):
        part = parts[0] + (parts[1] - parts[0]) * done
        down, right = places[0] + (places[1] - places[0]) * done
        half = part * min(height, width) / 2
        grids = [
            steps * half / (size / 2) + (2 * place - 1) * (1 - half / (size / 2))
            for size, place in ((width, right), (height, down))
        ]
        grid = torch.stack(torch.meshgrid(grids[0], grids[1], indexing="xy"), -1)[None].float()
        shown = functional.grid_sample(
            image, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        yield (shown[0] * light).clamp(0, 255).permute(1, 2, 0).byte().numpy()


def compose_sound(
    rng: np.random.Generator,
    recording: NDArray[np.float32],
    behind: NDArray[np.float32],
    seconds: float,
    speed_change: float = 0.0,
) -> NDArray[np.float32]:
    """A recording cut to `seconds` or repeated after short gaps, another one faintly behind it,
    noise, speed and loudness of chance.
    """
    samples = round(seconds * SAMPLE_RATE_HZ)
    front, back = (
        _looped(rng, _at_other_speed(rng, _without_silence(sound), speed_change), samples)
        for sound in (recording, behind)
    )
    mixed = front / rms(front) + back / rms(back) * 10 ** (rng.uniform(-40, -20) / 20)
    noisy = with_noise(rng, mixed, SAMPLE_RATE_HZ, rng.uniform(-45, -20), rng.uniform(0, 1.6))
    return leveled(noisy, rng.uniform(-32, -14))


def _at_other_speed(
    rng: np.random.Generator, sound: NDArray[np.float32], change: float
) -> NDArray[np.float32]:
    speed = (1 + change) ** rng.uniform(-1, 1)
    played: NDArray[np.float32] = soxr.resample(sound, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ, "HQ")
    return played if len(played) else sound


def _without_silence(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    loud = np.flatnonzero(np.abs(sound) > np.abs(sound).max() * 10 ** (SILENCE_DB / 20))
    return sound[loud[0] : loud[-1] + 1] if len(loud) else sound


def _looped(
    rng: np.random.Generator, sound: NDArray[np.float32], samples: int
) -> NDArray[np.float32]:
    if len(sound) >= samples:
        start = int(rng.integers(len(sound) - samples + 1))
        return sound[start : start + samples]
    pieces, size = [], 0
    while size < samples + len(sound):
        pieces += [sound, np.zeros(int(rng.uniform(0, GAP_SECONDS) * SAMPLE_RATE_HZ), np.float32)]
        size += len(pieces[-2]) + len(pieces[-1])
    start = int(rng.integers(len(sound)))
    return np.concatenate(pieces)[start : start + samples]
