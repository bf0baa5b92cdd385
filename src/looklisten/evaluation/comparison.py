"""Moments of many videos, ready to be compared, and the scores of all of their pairs.

Each tower runs once for each moment. Knows shards and networks; computes no figure.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from looklisten.data.shards import Shards
from looklisten.inference.moments import (
    MOMENTS_PER_BATCH,
    Moment,
    look_and_listen,
    moment_at,
    moment_starts,
    nearest_frame,
)
from looklisten.model.backbones import TowerOutput
from looklisten.model.l3net import L3Net
from looklisten.system.progress import Progress, no_progress

BLOCK_MOMENTS = 64
"""How many frames are compared with as many sounds at a time.

This bounds the memory: some fusions compute a similarity for each position of a frame and each time
of a sound.
"""


@dataclass(frozen=True, eq=False)
class PairComparison:
    """How pairs are scored: `project` prepares each side by itself, `compare` scores all pairs."""

    project: Callable[[TowerOutput, TowerOutput], tuple[Tensor, Tensor]]
    """Outputs of both towers -> what `compare` reads: a row for each frame and for each sound."""
    compare: Callable[[Tensor, Tensor], Float[Tensor, "frames sounds"]]
    """The score of every frame with every sound; above 0 the answer is "they correspond"."""


def fusion_comparison(model: L3Net, threshold: float = 0.0) -> PairComparison:
    """Scores by the log-odds of the network's own fusion, less `threshold`."""
    fusion = model.fusion
    return PairComparison(
        project=lambda vision, audio: fusion.project(*fusion.features(vision, audio)),
        compare=lambda vision, audio: (
            model.log_odds(fusion.all_pairs_logits(vision, audio)) - threshold
        ),
    )


@dataclass(frozen=True, eq=False)
class ComparedMoments:
    """Moments as `PairComparison.project` gives them; row i of all fields is one moment."""

    vision: Float[Tensor, "moments *positions features"]
    audio: Float[Tensor, "moments *times features"]
    videos: NDArray[Any]
    """The id of the video, `[moments]`."""
    clips: Int[np.ndarray, " moments"]
    """The number of the clip among the measured clips."""
    start_samples: Int[np.ndarray, " moments"]
    """The first sample of the second of sound, within the clip."""


@torch.inference_mode()
def project_moments(
    model: L3Net,
    comparison: PairComparison,
    clips: Shards,
    per_clip: int,
    progress: Progress = no_progress,
) -> ComparedMoments:
    """Up to `per_clip` moments of each clip, as `comparison` compares them.

    `clips`: at least one. Raises ConfigError for a clip shorter than a second of sound.
    """
    vision: list[Tensor] = []
    audio: list[Tensor] = []
    clip_numbers: list[int] = []
    start_samples: list[int] = []
    all_moments = _numbered_moments(model, clips, per_clip)
    while batch := list(itertools.islice(all_moments, MOMENTS_PER_BATCH)):
        outputs = look_and_listen(model, [moment for _, _, moment in batch])
        vision_rows, audio_rows = comparison.project(*outputs)
        vision.append(vision_rows)
        audio.append(audio_rows)
        clip_numbers += [number for number, _, _ in batch]
        start_samples += [start for _, start, _ in batch]
        progress(clip_numbers[-1] + 1, len(clips))
    numbers = np.array(clip_numbers)
    return ComparedMoments(
        vision=torch.cat(vision),
        audio=torch.cat(audio),
        videos=clips.video_ids[numbers],
        clips=numbers,
        start_samples=np.array(start_samples),
    )


def _numbered_moments(
    model: L3Net, clips: Shards, per_clip: int
) -> Iterator[tuple[int, int, Moment]]:
    """Each moment with the number of its clip and the first sample of its second."""
    for number, clip in enumerate(clips):
        for start in moment_starts(clip, per_clip):
            yield number, start, moment_at(clip, model.config, start, nearest_frame(clip, start))


@torch.inference_mode()
def compare_in_blocks(
    comparison: PairComparison,
    vision: Tensor,
    audio: Tensor,
    block_moments: int = BLOCK_MOMENTS,
) -> Float[np.ndarray, "frames sounds"]:
    """The scores of every row of `vision` with every row of `audio`, computed in blocks."""
    scores = np.zeros((len(vision), len(audio)), np.float32)
    for top in range(0, len(vision), block_moments):
        rows = slice(top, top + block_moments)
        for left in range(0, len(audio), block_moments):
            columns = slice(left, left + block_moments)
            block = comparison.compare(vision[rows], audio[columns])
            scores[rows, columns] = block.float().cpu().numpy()
    return scores
