"""Shards -> batches of frames and sounds that belong together. Negatives are made later, by
re-pairing these very rows.

The stream is a pure function of (shards, seed, epoch, step): no state, so any worker can make any
batch, and a resumed run sees what an undisturbed one would have seen. Knows shards and pictures, no
network.
"""

import functools
import itertools
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int16, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.frames import crop, decode_jpeg, stack
from looklisten.media.spectrogram import WINDOW_SAMPLES, WINDOW_SECONDS

SAME_VIDEO_SECONDS = 2.0
"""Sounds of one video that stand against each other begin at least so far apart."""


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

    def take(self, rows: NDArray[np.int64]) -> "Draws":
        return Draws(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True, eq=False)
class Pairing:
    """Who may be paired with whom among the rows that are looked at together, of which a process
    may hold a part.
    """

    rows: Int64[Tensor, " own"]
    """The places of one's own rows among all."""
    partners: Int64[Tensor, " all"]
    """For each row, the one whose sound makes its negative."""
    videos: Int64[Tensor, " all"]
    """A number for each row's video."""

    def masks(self, everyone: bool) -> tuple[Bool[Tensor, "own all"], Bool[Tensor, "own all"]]:
        """Which pairs of own frames and all sounds are positives, and which negatives: partners, or
        all pairs of two videos.
        """
        places = torch.arange(len(self.videos))
        partners = self.partners[self.rows, None] == places
        return self.rows[:, None] == places, self.videos[
            self.rows, None
        ] != self.videos if everyone else partners

    def of_own_rows(self) -> "Pairing":
        """The same among one's own rows alone, none of which makes a couple: each against the next."""
        places = torch.arange(len(self.rows))
        return Pairing(places, places.roll(-1), self.videos[self.rows])


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Row i of `frames` and row i of `waveforms` belong together; all rows are of different videos,
    but for couples (`PairStream`).
    """

    frames: UInt8[Tensor, "batch channels height width"]
    waveforms: Int16[Tensor, "batch samples"]
    video_ids: tuple[str, ...]
    labels: tuple[str, ...]
    """The first label of each row's clip, or nothing; only the objective "labels" and measuring
    look at it.
    """
    draws: Draws
    rows: NDArray[np.int64]
    """The places of these rows in the whole batch."""
    pairing: Pairing

    def pinned(self) -> "PairBatch":
        """The same in memory that a GPU fetches from by itself."""
        return replace(self, frames=self.frames.pin_memory(), waveforms=self.waveforms.pin_memory())


@dataclass(frozen=True)
class View:
    """How a frame is looked at: resized to a shorter side, then a square cut out; at random places
    or in the centre.
    """

    resize_pixels: int
    crop_pixels: int
    random: bool
    flip: bool = False
    frames: int = 1
    """Neighbouring stored frames that are looked at as one, side by side in the channels."""


@dataclass(frozen=True)
class Part:
    """What one process computes at a time: every `ranks`-th row from `rank` on of part `number` of
    `parts` of a batch.
    """

    rank: int = 0
    ranks: int = 1
    number: int = 0
    parts: int = 1

    def rows(self, batch_size: int) -> NDArray[np.int64]:
        size = batch_size // self.parts
        return np.arange(self.number * size + self.rank, (self.number + 1) * size, self.ranks)


WHOLE = Part()


class PairStream:
    """Batches of positives from the clips of `shards` that `mask` allows, each epoch every video
    once.

    With `same_video_share`, that share of a batch's rows are couples: rows 0 and 1, 2 and 3 … are
    two moments of one video at least 2 s apart, each other's negatives. As the same frames and
    sounds are in the positives, neither side alone tells which is which. Couples are drawn from the
    batch's own videos, as many of its last ones sit out, and the share is reached after
    `same_video_steps` batches. A batch in parts has as many couples in each part, or one more; they
    are the part's first rows.

    `pairs_within_process`: the rows of each process are paired among themselves, where it has two
        or more. Raises ConfigError when there are too few videos, or none long enough for a couple.
    """

    def __init__(
        self,
        shards: Shards,
        mask: NDArray[np.bool_],
        batch_size: int,
        seed: int,
        view: View,
        same_video_share: float = 0.0,
        same_video_steps: int = 0,
        pairs_within_process: bool = False,
    ) -> None:
        self.shards, self.batch_size, self.seed, self.view = shards, batch_size, seed, view
        self._same_video_share, self._same_video_steps = same_video_share, same_video_steps
        self._pairs_within_process = pairs_within_process
        # Two epochs: at the turn of one, threads make batches of both.
        self._order = functools.lru_cache(2)(self._shuffled)
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
        self._long = [
            self._long_clips(video) if same_video_share else [] for video in range(len(self.videos))
        ]
        if same_video_share and not any(self._long):
            raise ConfigError(
                f"same-video negatives need clips of at least {SAME_VIDEO_SECONDS + WINDOW_SECONDS:g} s; {shards.path} has none to train on"
            )

    @property
    def steps_per_epoch(self) -> int:
        return len(self.videos) // self.batch_size

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        """The order of the videos in an epoch, `[videos]`; 0.4 s for five million of them."""
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.videos))

    def draw(self, epoch: int, step: int, parts: int = 1) -> Draws:
        """What the batch at (epoch, step) takes when it is computed in `parts`; cheap, touches no
        media.
        """
        videos = self._order(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        rng = np.random.default_rng((self.seed, epoch, step, 1))
        chance = rng.random((6, len(videos)))
        first, count = self._first[videos], self._first[videos + 1] - self._first[videos]
        clips = self._clips[first + (chance[0] * count).astype(np.int64)]
        couples = self._couples(epoch * self.steps_per_epoch + step, videos)
        if couples:
            doubled = [row for row in couples for _ in range(2)]
            singles = [row for row in range(len(videos)) if row not in set(couples)]
            clips = clips[[*doubled, *singles][: len(videos)]]
        frames, starts = np.empty_like(clips), np.empty_like(clips)
        for couple, row in enumerate(couples):
            pair = slice(2 * couple, 2 * couple + 2)
            long = self._long[int(videos[row])]
            clips[pair] = long[int(chance[0, row] * len(long))]
            frames[pair], starts[pair] = self._two_moments(
                int(clips[2 * couple]), chance[1:3, pair]
            )
        for row in range(2 * len(couples), len(clips)):
            clip = int(clips[row])
            times = self.shards.frame_seconds(clip)
            frames[row] = int(chance[1, row] * len(times))
            starts[row] = sound_start(
                times[frames[row]], len(self.shards.waveform(clip)), chance[2, row]
            )
        downs, rights = (
            (chance[3], chance[4]) if self.view.random else np.full((2, len(videos)), 0.5)
        )
        draws = Draws(clips, frames, starts, downs, rights, (chance[5] < 0.5) & self.view.flip)
        return (
            draws
            if parts == 1 or not couples
            else draws.take(_spread(len(couples), len(videos), parts))
        )

    def _couples(self, index: int, videos: NDArray[np.int64]) -> list[int]:
        """The places, among the videos of batch `index`, of those that are taken twice."""
        share = self._same_video_share * min(1.0, (index + 1) / max(self._same_video_steps, 1))
        wanted = round(share * len(videos) / 2)
        return [row for row, video in enumerate(videos) if self._long[int(video)]][:wanted]

    def _long_clips(self, video: int) -> list[int]:
        """The clips of a video in which every second holds a frame and two seconds of sound can lie
        far enough apart.
        """
        found = []
        for clip in self._clips[self._first[video] : self._first[video + 1]].tolist():
            seconds = len(self.shards.waveform(clip)) / SAMPLE_RATE_HZ
            gaps = np.diff(self.shards.frame_seconds(clip), prepend=0.0, append=seconds)
            if seconds >= SAME_VIDEO_SECONDS + WINDOW_SECONDS and gaps.max() < WINDOW_SECONDS:
                found.append(clip)
        return found

    def _two_moments(
        self, clip: int, chance: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Frames and first samples of two moments of a clip, `[2]` each, the sounds far enough
        apart; `chance` is `[2, 2]`.
        """
        times = self.shards.frame_seconds(clip)
        apart = round(SAME_VIDEO_SECONDS * SAMPLE_RATE_HZ)
        room = len(self.shards.waveform(clip)) - WINDOW_SAMPLES - apart
        early, late = sorted(int(c * (room + 1)) for c in chance[0])
        starts = np.array([early, late + apart])
        frames = np.empty(2, np.int64)
        for row, start in enumerate(starts):
            inside = np.flatnonzero(
                (times >= start / SAMPLE_RATE_HZ)
                & (times < (start + WINDOW_SAMPLES) / SAMPLE_RATE_HZ)
            )
            frames[row] = inside[int(chance[1, row] * len(inside))]
        return frames, starts

    def batch(self, index: int, part: Part = WHOLE) -> PairBatch:
        """Batch `index` of the endless stream, or the part of it that a process computes."""
        draws = self.draw(*divmod(index, self.steps_per_epoch), part.parts)
        together = Part(0, 1, part.number, part.parts).rows(self.batch_size)
        rows = part.rows(self.batch_size)
        mine = draws.take(rows)
        # Process r has every `ranks`-th row, so a row that lies `ranks` further is of the same
        # process.
        distance = part.ranks if self._pairs_within_process and len(rows) > 1 else 1
        return PairBatch(
            frames=stack([self._frame(mine, row) for row in range(len(rows))]),
            waveforms=torch.from_numpy(
                np.stack([self._sound(mine, row) for row in range(len(rows))])
            ),
            video_ids=tuple(str(self.shards.video_ids[clip]) for clip in mine.clips),
            labels=tuple(str(self.shards.names[clip]) for clip in mine.clips),
            draws=mine,
            rows=rows,
            pairing=pair_up(
                rows - together[0], self.shards.video_ids[draws.clips[together]], distance
            ),
        )

    def _frame(self, draws: Draws, row: int) -> UInt8[Tensor, "side side channels"]:
        clip = int(draws.clips[row])
        crops = []
        for frame in neighbours(
            int(draws.frames[row]), len(self.shards.frame_seconds(clip)), self.view.frames
        ):
            pixels = decode_jpeg(self.shards.jpeg(clip, frame), self.view.resize_pixels)
            crops.append(crop(pixels, self.view.crop_pixels, draws.downs[row], draws.rights[row]))
        square = crops[0] if len(crops) == 1 else torch.cat(crops, dim=2)
        return square.flip(1) if draws.flips[row] else square

    def _sound(self, draws: Draws, row: int) -> NDArray[np.int16]:
        start = draws.starts[row]
        return self.shards.waveform(int(draws.clips[row]))[start : start + WINDOW_SAMPLES]

    def batches(
        self,
        first: int,
        stop: int,
        threads: int = 2,
        rank: int = 0,
        ranks: int = 1,
        parts: int = 1,
        pin: bool = False,
    ) -> Generator[PairBatch, None, None]:
        """Batches `first` to `stop`, each in `parts`, made by threads ahead of their use (JPEG
        decoding does not hold the interpreter).
        """

        def make(index: int, number: int) -> PairBatch:
            batch = self.batch(index, Part(rank, ranks, number, parts))
            return batch.pinned() if pin else batch

        with ThreadPoolExecutor(threads, "pairs") as pool:
            waiting: deque[Future[PairBatch]] = deque()
            try:
                for index in range(first, stop):
                    for number in range(parts):
                        waiting.append(pool.submit(make, index, number))
                        if len(waiting) > 2 * threads:
                            yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


def _spread(couples: int, rows: int, parts: int) -> NDArray[np.int64]:
    """The order of a batch's rows, `[rows]`, that gives each part its share of the couples, as its
    first rows.

    The batch comes with its couples first: rows 0 and 1, 2 and 3 ... Parts have an even number of
    rows each.
    """
    singles = iter(range(2 * couples, rows))
    order: list[int] = []
    for part in range(parts):
        own = [
            row for couple in range(part, couples, parts) for row in (2 * couple, 2 * couple + 1)
        ]
        own.extend(itertools.islice(singles, rows // parts - len(own)))
        order.extend(own)
    return np.array(order, dtype=np.int64)


def pair_up(rows: NDArray[np.int64], video_ids: NDArray[Any], distance: int = 1) -> Pairing:
    """Couples stand against each other; every other row against the one that lies `distance`
    further among those that are none.

    The last ones stand against the first.
    """
    numbers = np.unique(video_ids, return_inverse=True)[1]
    size = len(numbers)
    singles = next(
        (row for row in range(0, size - 1, 2) if numbers[row] != numbers[row + 1]), size - size % 2
    )
    partners = np.arange(size) ^ 1
    partners[singles:] = np.roll(np.arange(singles, size), -distance)
    if singles == size - 1:
        partners[-1] = 0
    return Pairing(torch.from_numpy(rows), torch.from_numpy(partners), torch.from_numpy(numbers))


def neighbours(frame: int, frames: int, count: int) -> list[int]:
    """`count` frames in a row with `frame` in their middle, moved inside a clip of `frames`; the
    last again where there are fewer.
    """
    first = min(max(frame - (count - 1) // 2, 0), max(frames - count, 0))
    return [min(first + k, frames - 1) for k in range(count)]


def sound_start(frame_seconds: float, clip_samples: int, chance: float) -> int:
    """The first sample of a second of sound whose interval holds the frame, uniform over the
    possible ones.

    `chance` is uniform in [0, 1). The frame may lie anywhere inside the second (paper, section
    3.1); clips that start or end less than a second from the frame leave fewer possible seconds,
    never padding.
    """
    frame_sample = int(frame_seconds * SAMPLE_RATE_HZ)
    earliest = max(frame_sample - WINDOW_SAMPLES + 1, 0)
    latest = min(frame_sample, clip_samples - WINDOW_SAMPLES)
    if latest < earliest:
        raise ConfigError(
            f"a clip of {clip_samples} samples holds no {WINDOW_SECONDS:g} s of sound around {frame_seconds:.3f} s"
        )
    return earliest + int(chance * (latest - earliest + 1))
