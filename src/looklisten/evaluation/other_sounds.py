"""What a network answers about frames with their own and with other sounds: a row for each kind.

Noise, silence and mixtures are made here, in memory. Knows scores, shards and networks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int16
from numpy.typing import NDArray
from torch import Tensor

from looklisten.data.shards import Shards
from looklisten.evaluation.comparison import ComparedMoments, PairComparison, compare_in_blocks
from looklisten.evaluation.ranking import Ranking, ScoreMatrix, Share
from looklisten.evaluation.shared_files import SharedFiles
from looklisten.evaluation.statistics import interval_over_members, mean_or_nan
from looklisten.inference.moments import MOMENTS_PER_BATCH
from looklisten.inference.towers import listen, look
from looklisten.media.levels import is_silent
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.media.waveform import FULL_SCALE
from looklisten.model.l3net import L3Net

NOISE_WINDOWS = 16
NOISE_DECIBELS = -20.0
"""Loudness of the noise, relative to full scale."""
SOUND_SCALE = FULL_SCALE["int16"]


@dataclass(frozen=True)
class SoundRow:
    """What the network answers about frames with one kind of sound."""

    sound: str
    """matched: the frame's own. mismatched: of another video, so its source is off screen. mixed:
    the own one with one of another video, equally loud. noise: white noise. silence.
    """
    yes: float
    """Share of the answer "yes, they correspond"."""
    yes_ci95: tuple[float, float]
    probability: float
    """Mean of the network's probability that frame and sound correspond."""
    auc: float
    """How often a frame's own sound scores higher than this one; NaN for `matched`."""
    pairs: int
    """Pairs that the figures are over."""


def matrix_rows(matrix: ScoreMatrix, ranking: Ranking) -> Iterator[SoundRow]:
    """The rows of matched and of mismatched pairs."""
    accuracy = ranking.accuracy
    yield _row_of_share("matched", accuracy.matched, matrix.matched, float("nan"))
    yield _row_of_share("mismatched", accuracy.mismatched, matrix.mismatched(), ranking.auc.value)


def other_sound_rows(
    model: L3Net,
    comparison: PairComparison,
    clips: Shards,
    moments: ComparedMoments,
    matched: Float[np.ndarray, " moments"],
    seed: int,
    files: SharedFiles,
) -> Iterator[SoundRow]:
    """The rows of mixtures, of noise and of silence, with the frames of `moments`.

    The row of mixtures has NaN figures and 0 pairs where no two sounds can be mixed, because one of
    them is silent.

    `moments`: frames and sounds of `clips`.
    `matched`: the score of each frame with its own sound.
    `seed`: draws the noise and the sounds that are mixed in.
    `files`: the files that videos share, which the intervals are over.
    """
    rng = np.random.default_rng(seed)
    amplitude = SOUND_SCALE * 10 ** (NOISE_DECIBELS / 20)
    noise = _as_int16(rng.normal(0, amplitude, (NOISE_WINDOWS, WINDOW_SAMPLES)))
    silence = np.zeros((1, WINDOW_SAMPLES), np.int16)
    mixed, mixed_videos = _mixed_scores(model, comparison, clips, moments, rng)
    is_mixed = np.isfinite(mixed)
    frame_videos = moments.videos[:, None]
    sound_videos = np.stack([moments.videos, mixed_videos], axis=1)
    members = files.members(frame_videos[is_mixed].tolist(), sound_videos[is_mixed].tolist())
    yield _row_of_frames("mixed", matched[is_mixed], mixed[is_mixed, None], members)
    for sound, waveforms in (("noise", noise), ("silence", silence)):
        audio = _project_sounds(model, comparison, list(waveforms))
        scores = compare_in_blocks(comparison, moments.vision, audio)
        images = files.image_groups(moments.videos.tolist())
        yield _row_of_frames(sound, matched, scores, images[:, None])


@torch.inference_mode()
def _project_sounds(
    model: L3Net, comparison: PairComparison, waveforms: Sequence[Int16[np.ndarray, " samples"]]
) -> Tensor:
    """What `comparison.compare` reads of sounds, a row for each."""
    device = next(model.parameters()).device
    config = model.config
    # `project` takes frames too, but a sound's row does not depend on them: any frame will do.
    side = config.crop_pixels
    black = torch.zeros(1, 3 * config.frames_per_pair, side, side, dtype=torch.uint8)
    audio = listen(model, torch.from_numpy(np.stack(waveforms)).to(device))
    return comparison.project(look(model, black.to(device)), audio)[1]


def moments_of_other_videos(
    videos: NDArray[Any], rng: np.random.Generator
) -> Int[np.ndarray, " moments"]:
    """For each moment the number of one of another video, drawn at random."""
    others = np.zeros(len(videos), np.int64)
    for row, video in enumerate(videos):
        others[row] = rng.choice(np.flatnonzero(videos != video))
    return others


@torch.inference_mode()
def _mixed_scores(
    model: L3Net,
    comparison: PairComparison,
    clips: Shards,
    moments: ComparedMoments,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, " moments"], NDArray[Any]]:
    """The score of each frame with its own sound and another one, and the other one's video.

    NaN where one of the two is silent.
    """
    scores = np.full(len(moments.videos), np.nan, np.float32)
    others = moments_of_other_videos(moments.videos, rng)
    for first in range(0, len(scores), MOMENTS_PER_BATCH):
        rows: list[int] = []
        mixtures: list[Int16[np.ndarray, " samples"]] = []
        for row in range(first, min(first + MOMENTS_PER_BATCH, len(scores))):
            own = _waveform(clips, moments, row)
            added = _waveform(clips, moments, int(others[row]))
            if not is_silent(own) and not is_silent(added):
                rows.append(row)
                mixtures.append(mix_equally_loud(own, added))
        if rows:
            audio = _project_sounds(model, comparison, mixtures)
            all_scores = comparison.compare(moments.vision[rows], audio)
            scores[rows] = all_scores.diagonal().float().cpu().numpy()
    return scores, moments.videos[others]


def _waveform(clips: Shards, moments: ComparedMoments, row: int) -> Int16[np.ndarray, " samples"]:
    start = moments.start_samples[row]
    return clips.waveform(int(moments.clips[row]))[start : start + WINDOW_SAMPLES]


def mix_equally_loud(
    own: Int16[np.ndarray, " samples"], added: Int16[np.ndarray, " samples"]
) -> Int16[np.ndarray, " samples"]:
    """Both sounds at the loudness (RMS) of the first; quieter where the sum would clip."""
    first = own.astype(np.float64)
    second = added.astype(np.float64)
    total = first + second * np.sqrt(np.mean(first**2) / np.mean(second**2))
    peak = np.abs(total).max()
    return _as_int16(total * min((SOUND_SCALE - 1) / peak, 1.0))


def _as_int16(samples: NDArray[np.float64]) -> NDArray[np.int16]:
    rounded: NDArray[np.int16] = (
        samples.round().clip(-SOUND_SCALE, SOUND_SCALE - 1).astype(np.int16)
    )
    return rounded


def _row_of_share(sound: str, yes: Share, scores: NDArray[Any], auc: float) -> SoundRow:
    return SoundRow(sound, yes.value, yes.ci95(), _mean_probability(scores), auc, len(scores))


def _row_of_frames(
    sound: str,
    matched: Float[np.ndarray, " moments"],
    scores: Float[np.ndarray, "moments windows"],
    members: NDArray[Any],
) -> SoundRow:
    """The row of one kind of sound.

    `scores`: of each frame with one or more windows of this sound. `members`: the names of all
    videos or files that the answers about each frame depend on, `[moments, members]`.
    """
    yes = (scores > 0).mean(1)
    # A tie counts half.
    wins = ((matched[:, None] > scores) + (matched[:, None] >= scores).astype(np.float64)) / 2
    return SoundRow(
        sound=sound,
        yes=mean_or_nan(yes),
        yes_ci95=interval_over_members(yes, members),
        probability=_mean_probability(scores),
        auc=mean_or_nan(wins.ravel()),
        pairs=scores.size,
    )


def _mean_probability(scores: NDArray[Any]) -> float:
    # Clipped, because exp(-x) overflows where the network is sure that the answer is no.
    return mean_or_nan(1 / (1 + np.exp(-scores.ravel().astype(np.float64).clip(-500, 500))))
