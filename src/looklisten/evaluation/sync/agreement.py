"""Scores of every frame with every second of sound of one clip -> the offset of the sound.

Knows numbers and times, no file and no network.

Decisions:

- What a frame or a sound scores with everything says nothing of time, and neither does a slow
  change. So each row and each column of the scores loses its mean and its linear trend.
- A frame corresponds to every second that contains it. So the scores of a frame are averaged over
  the seconds that contain it, if the sound were moved by the offset.
- Chance: the frames of one second change their sign together, at random, many times. Without a
  common offset the best of all offsets is then as high as without a change of signs.
- Confidence: seconds are drawn anew with replacement, many times. How often is the best offset the
  same?
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from looklisten.media.spectrogram import WINDOW_SECONDS

OFFSET_STEP_SECONDS = 0.1
LEAST_BLOCKS = 5
"""Each offset that is tried needs frames of so many seconds."""
REPEATS = 999
SAME_OFFSET_SECONDS = 0.3
"""Offsets that differ by no more are one offset."""
MOST_CHANCE = 0.01
LEAST_CONFIDENCE = 0.9


@dataclass(frozen=True, eq=False)
class OffsetAgreement:
    """How well a clip agrees with itself at each offset of its sound."""

    offsets_seconds: Float[np.ndarray, " offsets"]
    """Of the sound, later than its picture where positive."""
    agreement: Float[np.ndarray, " offsets"]
    """The mean score of the frames at each offset, without what a frame or a sound has anyway."""
    best_seconds: float
    confidence: float
    """The share of repeats, with other seconds of the clip, that have the same best offset."""
    chance: float
    """How often the best offset of a clip without any is at least as good."""

    @property
    def stands_out(self) -> bool:
        """Whether the best offset is better than chance, and no other one is as good."""
        return self.chance <= MOST_CHANCE and self.confidence >= LEAST_CONFIDENCE


def offset_agreement(
    scores: Float[np.ndarray, "frames sounds"],
    frame_seconds: Float[np.ndarray, " frames"],
    sound_seconds: Float[np.ndarray, " sounds"],
    max_offset_seconds: float,
) -> OffsetAgreement | None:
    """The agreement at every offset; None where too little of the clip can be compared.

    `sound_seconds`: the middles of the seconds of sound, rising evenly.
    """
    steps = int(max_offset_seconds / OFFSET_STEP_SECONDS + 1e-6)
    offsets = OFFSET_STEP_SECONDS * np.arange(-steps, steps + 1)
    residuals = without_trend(without_trend(scores.astype(np.float64)).T).T
    rows = _scores_at_offsets(residuals, frame_seconds, sound_seconds, offsets)
    blocks = _block_numbers(frame_seconds)
    count = int(blocks.max(initial=-1)) + 1
    sums = np.zeros((count, len(offsets)))
    np.add.at(sums, blocks, np.nan_to_num(rows))
    frames = np.zeros_like(sums)
    np.add.at(frames, blocks, np.isfinite(rows).astype(np.float64))
    # Every offset needs enough seconds, or few frames at its ends would decide.
    if ((frames > 0).sum(0) < LEAST_BLOCKS).any():
        return None
    evidence = _evidence(sums.sum(0), frames.sum(0))
    best = int(evidence.argmax())
    generator = np.random.default_rng(0)
    signs = generator.choice([-1.0, 1.0], (REPEATS, count))
    by_chance = _evidence(signs @ sums, frames.sum(0)).max(1)
    draws = generator.multinomial(count, np.full(count, 1 / count), REPEATS).astype(np.float64)
    repeated = offsets[_evidence(draws @ sums, draws @ frames).argmax(1)]
    is_same = np.abs(repeated - offsets[best]) <= SAME_OFFSET_SECONDS + 1e-6
    return OffsetAgreement(
        offsets_seconds=offsets,
        agreement=sums.sum(0) / frames.sum(0),
        best_seconds=round(float(offsets[best]), 3),
        confidence=float(is_same.mean()),
        chance=float((1 + (by_chance >= evidence[best]).sum()) / (1 + REPEATS)),
    )


def without_trend(rows: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Each row less the straight line that fits it best."""
    times = np.linspace(-1, 1, rows.shape[1])
    means = rows.mean(1, keepdims=True)
    slopes = (rows @ times / max(float(times @ times), 1e-12))[:, None]
    flat: NDArray[np.float64] = rows - means - slopes * times
    return flat


def _scores_at_offsets(
    residuals: Float[np.ndarray, "frames sounds"],
    frame_seconds: Float[np.ndarray, " frames"],
    sound_seconds: Float[np.ndarray, " sounds"],
    offsets: Float[np.ndarray, " offsets"],
) -> Float[np.ndarray, "frames offsets"]:
    """The mean of each frame with the seconds that would contain it; NaN where some are missing."""
    step_seconds = float(sound_seconds[1] - sound_seconds[0])
    reach = round(WINDOW_SECONDS / 2 / step_seconds)
    sums = np.pad(np.cumsum(residuals, 1), ((0, 0), (1, 0)))
    positions = (frame_seconds[:, None] + offsets - sound_seconds[0]) / step_seconds
    middles = np.rint(positions).astype(np.int64)
    is_inside = (middles >= reach) & (middles + reach < len(sound_seconds))
    firsts = np.where(is_inside, middles - reach, 0)
    ends = np.where(is_inside, middles + reach + 1, 0)
    totals = np.take_along_axis(sums, ends, 1) - np.take_along_axis(sums, firsts, 1)
    return np.where(is_inside, totals / (2 * reach + 1), np.nan)


def _block_numbers(frame_seconds: Float[np.ndarray, " frames"]) -> Int[np.ndarray, " frames"]:
    blocks: NDArray[np.int64] = np.floor(frame_seconds / WINDOW_SECONDS).astype(np.int64)
    return blocks


def _evidence(
    sums: Float[np.ndarray, "*repeats offsets"], frames: Float[np.ndarray, "*#repeats offsets"]
) -> Float[np.ndarray, "*repeats offsets"]:
    """The mean over frames, in units in which offsets of few frames are no more likely the best."""
    evidence: NDArray[np.float64] = sums / np.sqrt(np.maximum(frames, 1))
    return evidence
