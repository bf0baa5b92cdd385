"""Pairs as training sees them, on a page to look at and listen to: made by training's own stream
and augmentation.
"""

import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from jaxtyping import Float
from torch import Tensor

from looklisten.app.pages.page import inline, write_page
from looklisten.config import Config
from looklisten.data.pairs import PairBatch
from looklisten.data.shards import Shards
from looklisten.drawing.figures import encode_png, spectrogram_image
from looklisten.drawing.heatmap_colors import RgbImage
from looklisten.errors import ConfigError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.spectrogram import INT16_FULL_SCALE, WINDOW_SECONDS, LogSpectrogram
from looklisten.training.augmentation import augment
from looklisten.training.batches import fit_batch_size, training_stream

SPECTROGRAM_PIXELS = 256
FRAME_JPEG_QUALITY = 95
SAMPLE_BYTES = 2


@dataclass(frozen=True)
class Origin:
    """Where a frame, or a second of sound, comes from; `at_seconds` counts from the start of its
    source.
    """

    video_id: str
    labels: tuple[str, ...]
    at_seconds: float


@dataclass(frozen=True, eq=False)
class Pair:
    """One frame and one second of sound as they reach the network, and whether they belong
    together.
    """

    positive: bool
    pixels: Float[np.ndarray, "side side 3"]
    waveform: Float[Tensor, " samples"]
    spectrogram: Float[np.ndarray, "bands columns"]
    frame: Origin
    sound: Origin

    @property
    def frame_in_sound_seconds(self) -> float:
        """From the start of the second to the frame; means something for positives only."""
        return (
            round(self.frame.at_seconds - self.sound.at_seconds, 6) or 0.0
        )  # no minus before a zero


def training_pairs(shards: Shards, config: Config, count: int) -> Iterator[Pair]:
    """The first pairs that a training with `config` sees of `shards`: a positive and a negative of
    each frame in turn.

    `count` pairs, or twice the videos there are to train on if that is less. A frame's negative is
    its partner's sound, one of many with `negatives = "all"`. Of several frames a pair the middle
    one is shown. Raises ConfigError when `count` is odd or below 4, or fewer than 2 videos are
    there to train on.
    """
    if count < 4 or count % 2:
        raise ConfigError(
            f"{count} pairs cannot be shown: half are positive, from at least 2 videos; ask for an even number from 4 on"
        )
    clips = shards.select(~shards.held_out_mask(config.train.held_out_fraction))
    videos = len(set(clips.video_ids))
    config = fit_batch_size(config, videos)
    stream = training_stream(clips, config)
    front_end = LogSpectrogram(config.model.front_end, config.model.window)
    for index, row in (
        divmod(frame, config.train.batch_size) for frame in range(min(count // 2, videos))
    ):
        if row == 0:
            batch = stream.batch(index)
            frames, waveforms = augment(batch, config, index + 1, "cpu")
        pictures = frames[row].reshape(-1, 3, *frames.shape[2:])
        pixels = pictures[(len(pictures) - 1) // 2].permute(1, 2, 0).numpy()
        for other in (row, int(batch.pairing.partners[row])):
            spectrogram = front_end(waveforms[other][None])[0, 0].numpy()
            frame, sound = _frame_origin(shards, batch, row), _sound_origin(shards, batch, other)
            yield Pair(other == row, pixels, waveforms[other], spectrogram, frame, sound)


def _frame_origin(shards: Shards, batch: PairBatch, row: int) -> Origin:
    clip = shards[int(batch.choices.clips[row])]
    return Origin(
        clip.video_id,
        clip.labels,
        clip.start_seconds + clip.frame_seconds[int(batch.choices.frames[row])],
    )


def _sound_origin(shards: Shards, batch: PairBatch, row: int) -> Origin:
    clip = shards[int(batch.choices.clips[row])]
    return Origin(
        clip.video_id,
        clip.labels,
        clip.start_seconds + int(batch.choices.sound_starts[row]) / SAMPLE_RATE_HZ,
    )


def write_pair_page(path: Path, shards: Shards, config: Config, count: int) -> dict[str, Any]:
    """Write `training_pairs` as one HTML file that needs nothing else, and return what it shows."""
    pairs = [
        {
            "positive": pair.positive,
            "picture": inline(_jpeg(pair.pixels), "image/jpeg"),
            "spectrogram": inline(
                encode_png(
                    spectrogram_image(pair.spectrogram, SPECTROGRAM_PIXELS, SPECTROGRAM_PIXELS)
                ),
                "image/png",
            ),
            "audio": inline(wav(pair.waveform), "audio/wav"),
            "frame": pair.frame,
            "sound": pair.sound,
            "inside": pair.frame_in_sound_seconds,
        }
        for pair in training_pairs(shards, config, count)
    ]
    write_page(
        path, "pairs.html.j2", pairs=pairs, shards=shards.path, config=config, second=WINDOW_SECONDS
    )
    positive = sum(bool(pair["positive"]) for pair in pairs)
    return {"page": str(path), "positive": positive, "negative": len(pairs) - positive}


def _jpeg(pixels: RgbImage) -> bytes:
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(np.rint(pixels * 255), np.uint8), FRAME_JPEG_QUALITY, "RGB", "444"
    )
    return data


def wav(waveform: Float[Tensor, " samples"]) -> bytes:
    """A mono WAV file, 16 bits, 48 kHz; what a gain raised above full scale is clipped, as only a
    file must.
    """
    samples = np.rint(waveform.numpy() * INT16_FULL_SCALE).clip(
        -INT16_FULL_SCALE, INT16_FULL_SCALE - 1
    )
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()
