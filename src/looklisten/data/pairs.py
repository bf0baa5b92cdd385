"""Shards -> batches of frames and sounds that belong together. Negatives are made later, by re-pairing these very rows.

The stream is a pure function of (shards, seed, epoch, step): no state, so any worker can make any batch, and a resumed run
sees what an undisturbed one would have seen. Knows shards and pictures, no network.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int16, UInt8
from numpy.typing import NDArray
from torch import Tensor

from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.frames import crop, decode_jpeg, stack
from looklisten.media.spectrogram import WINDOW_SAMPLES, WINDOW_SECONDS


@dataclass(frozen=True, eq=False)
class Draws:
    """Which frame and which second of which clip each row of a batch takes, `[batch]` each."""

    clips: NDArray[np.int64]
    frames: NDArray[np.int64]
    starts: NDArray[np.int64]
    """First sample of the second of sound, within the clip."""
    downs: NDArray[np.float64]
    rights: NDArray[np.float64]
    """Where the crop is, in 0..1 of the room there is."""
    flips: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Row i of `frames` and row i of `waveforms` belong together; all rows are of different videos."""

    frames: UInt8[Tensor, "batch 3 height width"]
    waveforms: Int16[Tensor, "batch samples"]
    video_ids: tuple[str, ...]
    draws: Draws


@dataclass(frozen=True)
class View:
    """How a frame is looked at: resized to a shorter side, then a square cut out; at random places or in the centre."""

    resize_pixels: int
    crop_pixels: int
    random: bool
    flip: bool = False


class PairStream:
    """Batches of positives from the clips of `shards` that `mask` allows, each epoch every video once."""

    def __init__(self, shards: Shards, mask: NDArray[np.bool_], batch_size: int, seed: int, view: View) -> None:
        self.shards, self.batch_size, self.seed, self.view = shards, batch_size, seed, view
        allowed = np.flatnonzero(mask)
        self.videos, video_of_clip = np.unique(shards.video_ids[allowed], return_inverse=True)
        order = np.argsort(video_of_clip, kind="stable")
        self._clips = allowed[order]
        self._first = np.searchsorted(video_of_clip[order], np.arange(len(self.videos) + 1))
        if len(self.videos) < batch_size:
            raise ConfigError(
                f"a batch of {batch_size} needs as many different videos, and there are {len(self.videos)}; "
                f"lower the batch size or prepare more videos"
            )

    @property
    def steps_per_epoch(self) -> int:
        return len(self.videos) // self.batch_size

    def draw(self, epoch: int, step: int) -> Draws:
        """What the batch at (epoch, step) takes; cheap, touches no media."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.videos))
        videos = order[step * self.batch_size : (step + 1) * self.batch_size]
        rng = np.random.default_rng((self.seed, epoch, step, 1))
        chance = rng.random((6, len(videos)))
        first, count = self._first[videos], self._first[videos + 1] - self._first[videos]
        clips = self._clips[first + (chance[0] * count).astype(np.int64)]
        frames, starts = np.empty_like(clips), np.empty_like(clips)
        for row, clip in enumerate(clips):
            times = self.shards.frame_seconds(int(clip))
            frames[row] = int(chance[1, row] * len(times))
            starts[row] = sound_start(times[frames[row]], len(self.shards.waveform(int(clip))), chance[2, row])
        downs, rights = (chance[3], chance[4]) if self.view.random else np.full((2, len(videos)), 0.5)
        return Draws(clips, frames, starts, downs, rights, (chance[5] < 0.5) & self.view.flip)

    def batch(self, index: int, rank: int = 0, ranks: int = 1) -> PairBatch:
        """Batch `index` of the endless stream; rank r of n takes every n-th row from r on."""
        draws = self.draw(*divmod(index, self.steps_per_epoch))
        rows = range(rank, len(draws.clips), ranks)
        mine = Draws(**{name: values[rank::ranks] for name, values in vars(draws).items()})
        return PairBatch(
            frames=stack([self._frame(draws, row) for row in rows]),
            waveforms=torch.from_numpy(np.stack([self._sound(draws, row) for row in rows])),
            video_ids=tuple(str(self.shards.video_ids[clip]) for clip in mine.clips),
            draws=mine,
        )

    def _frame(self, draws: Draws, row: int) -> UInt8[Tensor, "side side 3"]:
        jpeg = self.shards.jpeg(int(draws.clips[row]), int(draws.frames[row]))
        pixels = decode_jpeg(jpeg, self.view.resize_pixels)
        square = crop(pixels, self.view.crop_pixels, draws.downs[row], draws.rights[row])
        return square.flip(1) if draws.flips[row] else square

    def _sound(self, draws: Draws, row: int) -> NDArray[np.int16]:
        start = draws.starts[row]
        return self.shards.waveform(int(draws.clips[row]))[start : start + WINDOW_SAMPLES]

    def batches(self, first: int, stop: int, threads: int = 2, ahead: int = 4, rank: int = 0, ranks: int = 1) -> Iterator[PairBatch]:
        """Batches `first` to `stop`, made by threads `ahead` of their use (JPEG decoding does not hold the interpreter)."""
        with ThreadPoolExecutor(threads, "pairs") as pool:
            waiting: deque[Future[PairBatch]] = deque()
            try:
                for index in range(first, stop):
                    waiting.append(pool.submit(self.batch, index, rank, ranks))
                    if len(waiting) > ahead:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


def sound_start(frame_seconds: float, clip_samples: int, chance: float) -> int:
    """The first sample of a second of sound whose interval holds the frame, uniform over the possible ones.

    `chance` is uniform in [0, 1). The frame may lie anywhere inside the second (paper, section 3.1); clips that start or end
    less than a second from the frame leave fewer possible seconds, never padding.
    """
    frame_sample = int(frame_seconds * SAMPLE_RATE_HZ)
    earliest = max(frame_sample - WINDOW_SAMPLES + 1, 0)
    latest = min(frame_sample, clip_samples - WINDOW_SAMPLES)
    if latest < earliest:
        raise ConfigError(f"a clip of {clip_samples} samples holds no {WINDOW_SECONDS:g} s of sound around {frame_seconds:.3f} s")
    return earliest + int(chance * (latest - earliest + 1))
