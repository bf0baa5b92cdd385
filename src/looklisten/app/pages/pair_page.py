"""A page of training pairs to look at and listen to, as training makes them."""

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

from looklisten.app.pages.page import data_url, write_page
from looklisten.config import Config
from looklisten.data.pairs import NO_EMPTY_SOUND, PairBatch
from looklisten.data.shards import Shards
from looklisten.drawing.figures import encode_png, spectrogram_image
from looklisten.drawing.heatmap_colors import RgbImage
from looklisten.errors import ConfigError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.frames import input_to_frames
from looklisten.media.spectrogram import INT16_FULL_SCALE, WINDOW_SECONDS, LogSpectrogram
from looklisten.training.augmentation import tower_inputs
from looklisten.training.batches import fit_batch_size, training_stream

SPECTROGRAM_PIXELS = 256
FRAME_JPEG_QUALITY = 95
SAMPLE_BYTES = 2


@dataclass(frozen=True)
class Origin:
    """The video that a frame or a second of sound is from, and its time in it."""

    video_id: str
    labels: tuple[str, ...]
    at_seconds: float
    """From the start of the video."""


@dataclass(frozen=True, eq=False)
class TrainingPair:
    """One frame and one second of sound as the network gets them, and whether they correspond."""

    positive: bool
    pixels: Float[np.ndarray, "side side 3"]
    waveform: Float[Tensor, " samples"]
    spectrogram: Float[np.ndarray, "bands columns"]
    frame: Origin
    sound: Origin | None
    """None for an empty sound, which is of no video."""

    @property
    def frame_in_sound_seconds(self) -> float:
        """From the start of the second to the frame; means something for positives only."""
        if self.sound is None:
            return 0.0
        seconds = round(self.frame.at_seconds - self.sound.at_seconds, 6)
        # -0.0 would be shown with a minus.
        return seconds or 0.0


def training_pairs(shards: Shards, config: Config, count: int) -> Iterator[TrainingPair]:
    """The first pairs of a training with `config`: each frame with two sounds in turn.

    The first is the sound of its row, a positive unless it is an empty sound. The second, of its
    partner, makes a negative.

    There are `count` pairs, or twice as many as videos to train on if that is less. A frame's
    negative has the sound of its partner, one of many with `negatives = "all"`. Of several frames
    a pair the middle one is taken.

    Raises ConfigError when `count` is odd or below 4, and for fewer than 2 videos to train on.
    """
    if count < 4 or count % 2:
        raise ConfigError(
            f"{count} pairs cannot be shown: half are positive, from at least 2 videos; "
            "ask for an even number from 4 on"
        )
    clips = shards.select(~shards.held_out_mask(config.train.held_out_fraction))
    videos = len(set(clips.video_ids))
    config = fit_batch_size(config, videos)
    stream = training_stream(clips, config)
    front_end = LogSpectrogram(config.model.front_end, config.model.window)
    for frame_number in range(min(count // 2, videos)):
        index, row = divmod(frame_number, config.train.batch_size)
        if row == 0:
            batch = stream.batch(index)
            # Training counts its steps from 1.
            frames, waveforms = tower_inputs(batch, config, index + 1, "cpu")
        # Several frames of a pair are side by side in the channels.
        pair_frames = frames[row].reshape(-1, 3, *frames.shape[2:])
        middle_frame = input_to_frames(pair_frames[(len(pair_frames) - 1) // 2])
        pixels = middle_frame.permute(1, 2, 0).numpy()
        for sound_row in (row, int(batch.pairing.partners[row])):
            yield TrainingPair(
                positive=sound_row == row and bool(batch.pairing.has_recorded_sound[row]),
                pixels=pixels,
                waveform=waveforms[sound_row],
                spectrogram=front_end(waveforms[sound_row][None])[0, 0].numpy(),
                frame=_frame_origin(stream.shards, batch, row),
                sound=_sound_origin(stream.shards, batch, sound_row),
            )


def _frame_origin(shards: Shards, batch: PairBatch, row: int) -> Origin:
    clip = shards[int(batch.choices.clips[row])]
    clip_seconds = clip.frame_seconds[int(batch.choices.frames[row])]
    return Origin(clip.video_id, clip.labels, clip.start_seconds + clip_seconds)


def _sound_origin(shards: Shards, batch: PairBatch, row: int) -> Origin | None:
    if batch.choices.empty_sound_seeds[row] != NO_EMPTY_SOUND:
        return None
    clip = shards[int(batch.choices.clips[row])]
    clip_seconds = int(batch.choices.sound_starts[row]) / SAMPLE_RATE_HZ
    return Origin(clip.video_id, clip.labels, clip.start_seconds + clip_seconds)


def write_pair_page(path: Path, shards: Shards, config: Config, count: int) -> dict[str, Any]:
    """Write `training_pairs` as one HTML file, and return how many pairs it has."""
    pairs = list(map(_pair_values, training_pairs(shards, config, count)))
    write_page(
        path,
        "pairs.html.j2",
        pairs=pairs,
        shards=shards.path,
        config=config,
        window_seconds=WINDOW_SECONDS,
    )
    positive = sum(bool(pair["positive"]) for pair in pairs)
    return {"page": str(path), "positive": positive, "negative": len(pairs) - positive}


def _pair_values(pair: TrainingPair) -> dict[str, Any]:
    """The values of the template for one pair."""
    spectrogram = spectrogram_image(pair.spectrogram, SPECTROGRAM_PIXELS, SPECTROGRAM_PIXELS)
    return {
        "positive": pair.positive,
        "image": data_url(_jpeg(pair.pixels), "image/jpeg"),
        "spectrogram": data_url(encode_png(spectrogram), "image/png"),
        "audio": data_url(wav(pair.waveform), "audio/wav"),
        "frame": pair.frame,
        "sound": pair.sound,
        "frame_in_sound_seconds": pair.frame_in_sound_seconds,
    }


def _jpeg(pixels: RgbImage) -> bytes:
    levels = np.ascontiguousarray(np.rint(pixels * 255), np.uint8)
    data: bytes = simplejpeg.encode_jpeg(levels, FRAME_JPEG_QUALITY, "RGB", "444")
    return data


def wav(waveform: Float[Tensor, " samples"]) -> bytes:
    """A mono WAV file with 16 bits at 48 kHz."""
    samples = np.rint(waveform.numpy() * INT16_FULL_SCALE)
    # Augmentation may raise sound above full scale, which a file cannot hold.
    clipped = samples.clip(-INT16_FULL_SCALE, INT16_FULL_SCALE - 1)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(clipped.astype("<i2").tobytes())
    return buffer.getvalue()
