"""Batches of frames and seconds of sound, read from shards.

Both of a row correspond, except where an empty sound replaces the row's own. Training makes
negatives later, by pairing the rows of such a batch anew. The stream is a pure function of shards,
seed, epoch and step, without a state: any worker can make any batch, and a resumed run reads the
same batches. Knows shards and images, no network.
"""

import functools
import itertools
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int16, UInt8
from numpy.typing import NDArray
from torch import Tensor

from looklisten.data.pairing import Pairing, pair_up
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.empty_sounds import draw_empty_sound
from looklisten.media.frames import FrameFit, crop, decode_jpeg, fit_square, neighbor_frames, stack
from looklisten.media.spectrogram import WINDOW_SAMPLES, WINDOW_SECONDS, check_holds_window
from looklisten.system.processes import map_ahead

SAME_VIDEO_SECONDS = 2.0
"""Least distance between the sounds of two rows of one video, from start to start."""
NO_EMPTY_SOUND = -1
"""In place of the seed of an empty sound: the row has the sound of its clip."""
SEED_COUNT = 2**31
"""Seeds of empty sounds are below."""


@dataclass(frozen=True, eq=False)
class PairChoices:
    """The random choices of a batch: which frame and which sound of which clip, `[batch]` each."""

    clips: NDArray[np.int64]
    """Numbers of clips in the folder of shards."""
    frames: NDArray[np.int64]
    sound_starts: NDArray[np.int64]
    """First sample of the second of sound, within the clip."""
    crop_downs: NDArray[np.float64]
    crop_rights: NDArray[np.float64]
    """Position of the crop, in 0..1 of the room there is."""
    flips: NDArray[np.bool_]
    empty_sound_seeds: NDArray[np.int64]
    """The seed of the empty sound that replaces the row's own, or `NO_EMPTY_SOUND`."""

    def take(self, rows: NDArray[np.int64]) -> "PairChoices":
        """The choices of some rows, in the order of `rows`."""
        return PairChoices(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Frames and sounds: row i of `frames` and row i of `waveforms` correspond.

    The exceptions are rows with an empty sound, which `choices` and `pairing` name. All rows are of
    different videos, but for same-video rows (`PairStream`).
    """

    frames: UInt8[Tensor, "batch channels height width"]
    waveforms: Int16[Tensor, "batch samples"]
    video_ids: tuple[str, ...]
    labels: tuple[str, ...]
    """The first label of each row's clip, or "". Only the objective "labels" and measuring use it.
    """
    choices: PairChoices
    rows: NDArray[np.int64]
    """Positions of these rows in the full batch."""
    pairing: Pairing

    def pinned(self) -> "PairBatch":
        """A copy in page-locked memory, which a GPU can read without the CPU."""
        return replace(self, frames=self.frames.pin_memory(), waveforms=self.waveforms.pin_memory())


@dataclass(frozen=True)
class FrameTransform:
    """How a stored frame becomes an input: resized to a shorter side, then cropped to a square."""

    resize_pixels: int
    crop_pixels: int
    random: bool
    """The crop is at a random position; else `fit` says how the frame becomes a square."""
    flip: bool = False
    """Half of the frames, at random, are mirrored."""
    frames: int = 1
    """Neighboring stored frames that make one input, side by side in the channels."""
    fit: FrameFit = "crop"


@dataclass(frozen=True)
class BatchPart:
    """The rows that one process computes at a time.

    A batch has `parts` parts of equal size. Of part `number`, process `rank` takes every `ranks`-th
    row, from row `rank` on.
    """

    rank: int = 0
    ranks: int = 1
    number: int = 0
    parts: int = 1

    def rows(self, batch_size: int) -> NDArray[np.int64]:
        """Positions of the rows in the full batch."""
        size = batch_size // self.parts
        start = self.number * size
        return np.arange(start + self.rank, start + size, self.ranks)


FULL_BATCH = BatchPart()


class PairStream:
    """Batches of positives from `clips`; each epoch takes every video once.

    With `same_video_share`, that share of the rows of a batch are same-video rows. Rows 0 and 1, 2
    and 3 … are then two moments of one video, at least 2 s apart, and each other's negative. Their
    frames and sounds are in the positives too, so that neither side alone tells the two apart.
    Their videos come from the batch itself, and as many of its last videos are left out. The share
    grows to its full value over `same_video_steps` batches. A batch in parts has equal numbers of
    same-video rows in its parts, or two more, as the first rows of each part.

    `empty_sound_share`: the share of the rows, without same-video rows, whose sound is replaced by
    an empty one. At least one row of each part of a batch keeps its own.

    `pairs_within_process`: each process pairs its own rows only, where it has two or more.

    Raises ConfigError when there are too few videos, or none long enough for same-video rows.
    """

    def __init__(
        self,
        clips: Shards,
        batch_size: int,
        seed: int,
        transform: FrameTransform,
        same_video_share: float = 0.0,
        same_video_steps: int = 0,
        pairs_within_process: bool = False,
        empty_sound_share: float = 0.0,
    ) -> None:
        # Clips are numbered in the folder, so that a record of choices means the same everywhere.
        self.shards = clips.folder
        self.batch_size = batch_size
        self.seed = seed
        self.transform = transform
        self._same_video_share = same_video_share
        self._same_video_steps = same_video_steps
        self._pairs_within_process = pairs_within_process
        self._empty_sound_share = empty_sound_share
        # Two epochs: where one ends, threads make batches of both.
        self._order = functools.lru_cache(2)(self._shuffled)
        # Stable: the clips of a video stay in the order of the folder, on every machine.
        order = np.argsort(clips.video_numbers, kind="stable")
        self._clips = clips.folder_numbers[order]
        self._first = np.flatnonzero(np.diff(clips.video_numbers[order], prepend=-1, append=-1))
        self.video_count = len(self._first) - 1
        # Every row needs a video of its own: two clips of one video must not make a negative.
        if self.video_count < batch_size:
            raise ConfigError(
                f"a batch of {batch_size} needs as many different videos, "
                f"and there are {self.video_count}; "
                "lower the batch size or prepare more videos"
            )
        self._long: dict[int, list[int]] = {}
        """The clips of each video that can make same-video rows, where there are some."""
        if same_video_share:
            # Only where it is needed, because it reads the times of every clip.
            for video in range(self.video_count):
                if long_clips := self._long_clips(video):
                    self._long[video] = long_clips
            if not self._long:
                raise ConfigError(
                    "same-video negatives need clips of at least "
                    f"{SAME_VIDEO_SECONDS + WINDOW_SECONDS:g} s; "
                    f"{clips.path} has none to train on"
                )

    @property
    def steps_per_epoch(self) -> int:
        return self.video_count // self.batch_size

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        """The order of the videos in an epoch, `[videos]`; takes 0.4 s for five million videos."""
        return np.random.default_rng((self.seed, epoch)).permutation(self.video_count)

    def choose(self, epoch: int, step: int, parts: int = 1) -> PairChoices:
        """The choices of the batch at (epoch, step), computed in `parts`; reads no media."""
        videos = self._order(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        # The 1 keeps these numbers apart from those that order the videos.
        rng = np.random.default_rng((self.seed, epoch, step, 1))
        # Six numbers a row for any settings, so that no setting changes what the others draw.
        chance = rng.random((6, len(videos)))
        first = self._first[videos]
        clip_counts = self._first[videos + 1] - first
        clips = self._clips[first + (chance[0] * clip_counts).astype(np.int64)]
        repeated = self._repeated_rows(epoch * self.steps_per_epoch + step, videos)
        if repeated:
            clips = clips[_rows_with_repeats(repeated, len(videos))]
        frames = np.empty_like(clips)
        starts = np.empty_like(clips)
        # Rows 0 and 1, 2 and 3 … are now of one video each.
        for number, row in enumerate(repeated):
            two_rows = slice(2 * number, 2 * number + 2)
            long_clips = self._long[int(videos[row])]
            clip = long_clips[int(chance[0, row] * len(long_clips))]
            clips[two_rows] = clip
            frames[two_rows], starts[two_rows] = self._two_moments(clip, chance[1:3, two_rows])
        for row in range(2 * len(repeated), len(clips)):
            frame, start = self._moment(int(clips[row]), chance[1:3, row])
            frames[row] = frame
            starts[row] = start
        downs = rights = np.full(len(videos), 0.5)
        if self.transform.random:
            downs, rights = chance[3], chance[4]
        flips = (chance[5] < 0.5) & self.transform.flip
        empty_sound_seeds = self._empty_sound_seeds(epoch, step, 2 * len(repeated))
        choices = PairChoices(clips, frames, starts, downs, rights, flips, empty_sound_seeds)
        if parts > 1 and repeated:
            choices = choices.take(_spread_over_parts(len(repeated), len(videos), parts))
        # A part without a positive teaches little.
        for part_seeds in np.split(choices.empty_sound_seeds, parts):
            if (part_seeds != NO_EMPTY_SOUND).all():
                part_seeds[0] = NO_EMPTY_SOUND
        return choices

    def _empty_sound_seeds(self, epoch: int, step: int, first_row: int) -> NDArray[np.int64]:
        """The seeds of the empty sounds of a batch, which rows from `first_row` on may have."""
        seeds = np.full(self.batch_size, NO_EMPTY_SOUND)
        if not self._empty_sound_share:
            return seeds
        # The 2 keeps these numbers apart from all others of the batch.
        rng = np.random.default_rng((self.seed, epoch, step, 2))
        is_empty = rng.random(self.batch_size) < self._empty_sound_share
        is_empty[:first_row] = False
        seeds[is_empty] = rng.integers(SEED_COUNT, size=int(is_empty.sum()))
        return seeds

    def _moment(self, clip: int, chance: NDArray[np.float64]) -> tuple[int, int]:
        """Frame and first sample of sound of a moment of a clip; `chance` in [0, 1), `[2]`."""
        times = self.shards.frame_seconds(clip)
        frame = int(chance[0] * len(times))
        samples = self.shards.samples(clip)
        return frame, window_start(times[frame], samples, chance[1])

    def _repeated_rows(self, index: int, videos: NDArray[np.int64]) -> list[int]:
        """The rows of batch `index` whose videos fill two rows each."""
        share = self._same_video_share * min(1.0, (index + 1) / max(self._same_video_steps, 1))
        count = round(share * len(videos) / 2)
        rows = []
        for row, video in enumerate(videos.tolist()):
            if video in self._long:
                rows.append(row)
        return rows[:count]

    def _long_clips(self, video: int) -> list[int]:
        """The clips of a video that have room for two moments far enough apart.

        Every second of such a clip holds a frame.
        """
        long_clips = []
        for clip in self._clips[self._first[video] : self._first[video + 1]].tolist():
            seconds = self.shards.samples(clip) / SAMPLE_RATE_HZ
            gaps = np.diff(self.shards.frame_seconds(clip), prepend=0.0, append=seconds)
            # The gaps before the first frame and after the last count too.
            if seconds >= SAME_VIDEO_SECONDS + WINDOW_SECONDS and gaps.max() < WINDOW_SECONDS:
                long_clips.append(clip)
        return long_clips

    def _two_moments(
        self, clip: int, chance: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Frames and first samples of two moments of a clip, `[2]` each, far enough apart.

        `chance`: random numbers in [0, 1), `[2, 2]`.
        """
        times = self.shards.frame_seconds(clip)
        apart = round(SAME_VIDEO_SECONDS * SAMPLE_RATE_HZ)
        room = self.shards.samples(clip) - WINDOW_SAMPLES - apart
        # Two numbers in the room that is left, with the distance put between them.
        early, late = sorted(int(number * (room + 1)) for number in chance[0])
        starts = np.array([early, late + apart])
        frames = np.empty(2, np.int64)
        for row, start in enumerate(starts):
            # A frame of its own second; `_long_clips` made sure that there is one.
            end = start + WINDOW_SAMPLES
            in_window = (times >= start / SAMPLE_RATE_HZ) & (times < end / SAMPLE_RATE_HZ)
            numbers = np.flatnonzero(in_window)
            frames[row] = numbers[int(chance[1, row] * len(numbers))]
        return frames, starts

    def batch(self, index: int, part: BatchPart = FULL_BATCH) -> PairBatch:
        """Batch `index` of the endless stream, or the part of it that a process computes."""
        all_choices = self.choose(*divmod(index, self.steps_per_epoch), part.parts)
        rows = part.rows(self.batch_size)
        choices = all_choices.take(rows)
        waveforms = [self._waveform(choices, row) for row in range(len(rows))]
        return PairBatch(
            frames=stack([self._frame(choices, row) for row in range(len(rows))]),
            waveforms=torch.from_numpy(np.stack(waveforms)),
            video_ids=self.shards.video_ids_of(choices.clips),
            labels=self.shards.first_labels_of(choices.clips),
            choices=choices,
            rows=rows,
            pairing=self._pairing(all_choices, part),
        )

    def _pairing(self, all_choices: PairChoices, part: BatchPart) -> Pairing:
        """What the rows of a part pair with; `all_choices` are those of the whole batch."""
        # Partners are among the rows that are compared in one step, not in the full batch.
        compared_rows = BatchPart(0, 1, part.number, part.parts).rows(self.batch_size)
        rows = part.rows(self.batch_size)
        # Process r has every `ranks`-th row: one that lies `ranks` further is of the same process.
        distance = part.ranks if self._pairs_within_process and len(rows) > 1 else 1
        compared_videos = self.shards.video_numbers[all_choices.clips[compared_rows]]
        pairing = pair_up(rows - compared_rows[0], compared_videos, distance)
        has_recorded_sound = all_choices.empty_sound_seeds[compared_rows] == NO_EMPTY_SOUND
        return replace(pairing, has_recorded_sound=torch.from_numpy(has_recorded_sound))

    def _frame(self, choices: PairChoices, row: int) -> UInt8[Tensor, "side side channels"]:
        clip = int(choices.clips[row])
        stored_frames = len(self.shards.frame_seconds(clip))
        crops = []
        chosen = int(choices.frames[row])
        for frame in neighbor_frames(chosen, stored_frames, self.transform.frames):
            pixels = decode_jpeg(self.shards.jpeg(clip, frame), self.transform.resize_pixels)
            crops.append(self._square(pixels, choices, row))
        square = crops[0] if len(crops) == 1 else torch.cat(crops, dim=2)
        return square.flip(1) if choices.flips[row] else square

    def _square(
        self, pixels: UInt8[Tensor, "height width 3"], choices: PairChoices, row: int
    ) -> UInt8[Tensor, "side side 3"]:
        transform = self.transform
        if not transform.random:
            return fit_square(pixels, transform.crop_pixels, transform.fit)
        down, right = choices.crop_downs[row], choices.crop_rights[row]
        return crop(pixels, transform.crop_pixels, down, right)

    def _waveform(self, choices: PairChoices, row: int) -> NDArray[np.int16]:
        if choices.empty_sound_seeds[row] != NO_EMPTY_SOUND:
            return draw_empty_sound(int(choices.empty_sound_seeds[row]), WINDOW_SAMPLES)
        start = choices.sound_starts[row]
        return self.shards.waveform(int(choices.clips[row]))[start : start + WINDOW_SAMPLES]

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
        """Batches `first` to `stop`, each in `parts`, which threads make ahead of their use."""

        def make(key: tuple[int, int]) -> Any:  # a subclass makes batches of its own kind
            index, number = key
            batch = self.batch(index, BatchPart(rank, ranks, number, parts))
            return batch.pinned() if pin else batch

        keys = ((index, number) for index in range(first, stop) for number in range(parts))
        # Threads are enough: JPEG decoding does not hold the interpreter lock. Two results for each
        # keep all of them busy.
        return map_ahead(make, keys, threads, 2 * threads)


def _rows_with_repeats(repeated: list[int], size: int) -> list[int]:
    """The rows of a batch in a new order: repeated ones first, twice each; `size` rows in all."""
    twice = np.repeat(repeated, 2)
    others = np.setdiff1d(np.arange(size), repeated)
    rows: list[int] = np.concatenate([twice, others])[:size].tolist()
    return rows


def _spread_over_parts(repeated_videos: int, rows: int, parts: int) -> NDArray[np.int64]:
    """The order of a batch's rows, `[rows]`, that gives each part its share of same-video rows.

    The batch comes with its same-video rows first, and so does each part. Parts have an even number
    of rows each.
    """
    other_rows = iter(range(2 * repeated_videos, rows))
    order: list[int] = []
    for part in range(parts):
        part_rows: list[int] = []
        for video in range(part, repeated_videos, parts):
            part_rows += [2 * video, 2 * video + 1]
        part_rows += itertools.islice(other_rows, rows // parts - len(part_rows))
        order += part_rows
    return np.array(order, dtype=np.int64)


def window_start(frame_seconds: float, clip_samples: int, chance: float) -> int:
    """The first sample of a second of sound around a frame, uniform over the possible ones.

    `chance` is uniform in [0, 1). The frame may lie anywhere inside the second (paper, section
    3.1). Near an end of the clip fewer seconds are possible; there is no padding.
    """
    check_holds_window(clip_samples)
    frame_sample = int(frame_seconds * SAMPLE_RATE_HZ)
    # + 1, because the frame must lie before the end of the second.
    earliest = max(frame_sample - WINDOW_SAMPLES + 1, 0)
    latest = min(frame_sample, clip_samples - WINDOW_SAMPLES)
    if latest < earliest:
        raise ConfigError(
            f"a clip of {clip_samples} samples holds no {WINDOW_SECONDS:g} s of sound "
            f"around {frame_seconds:.3f} s"
        )
    return earliest + int(chance * (latest - earliest + 1))
