"""Every frame with every sound of other videos, by the vectors of an encoder of others.

Such a model says how similar two vectors are, not whether they belong together. So there is a
ranking, and no accuracy. Knows shards and encoders.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looklisten.config import SIDES, ModelConfig
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.all_pairs import COMPARED_PER_CLIP, sampled
from looklisten.evaluation.ranking import Ranking, ScoreMatrix, rank
from looklisten.inference.encoder import Encoder, encode_rows
from looklisten.inference.moments import Moment, moments
from looklisten.inference.towers import ALIGNED
from looklisten.media.frames import fit_square, stack
from looklisten.system.progress import Progress, no_progress

ENCODED_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class EncoderPairs:
    """The figures of every frame with every sound of other videos; chance is 0.5."""

    ranking: Ranking
    moments: int
    clips: int
    videos: int
    notes: tuple[str, ...]
    """What was left out."""

    def as_dict(self) -> dict[str, Any]:
        """The values that the command line prints."""
        return {
            "one_of_two": self.ranking.one_of_two.value,
            "one_of_two_ci95": self.ranking.one_of_two.ci95(),
            "auc": self.ranking.auc.value,
            "auc_ci95": self.ranking.auc.ci95(),
            "moments": self.moments,
            "clips": self.clips,
            "videos": self.videos,
            "notes": list(self.notes),
        }


def encoder_pairs(
    encoder: Encoder,
    clips: Shards,
    per_clip: int = COMPARED_PER_CLIP,
    seed: int = 0,
    progress: Progress = no_progress,
) -> EncoderPairs:
    """Compare every frame with every sound of other videos by the cosine of their vectors.

    Moments are taken as by `all_pairs`. Raises ConfigError for an encoder without both sides in
    one space, and for clips of fewer than two videos.
    """
    missing = [side for side in SIDES if ALIGNED not in encoder.layers.get(side, ())]
    if missing:
        raise ConfigError(
            "whether frames and sounds belong together needs vectors of both in one space, and "
            f"this network has none of {' and '.join(missing)}; give another one"
        )
    clips, per_clip, notes = sampled(clips, per_clip, seed)
    vision: list[Tensor] = []
    audio: list[Tensor] = []
    videos: list[str] = []
    for number, batch in enumerate(_batches(encoder, clips, per_clip)):
        squares = [
            fit_square(moment.frame, encoder.crop_pixels, encoder.frame_fit) for moment in batch
        ]
        waveforms = torch.from_numpy(np.stack([moment.waveform for moment in batch]))
        vision.append(encode_rows(encoder, "vision", ALIGNED, stack(squares), ENCODED_AT_ONCE))
        audio.append(encode_rows(encoder, "audio", ALIGNED, waveforms, ENCODED_AT_ONCE))
        videos += [moment.clip.video_id for moment in batch]
        progress(min((number + 1) * ENCODED_AT_ONCE, len(clips) * per_clip), len(clips) * per_clip)
    scores: Float[Tensor, "frames sounds"] = torch.cat(vision) @ torch.cat(audio).T
    return EncoderPairs(
        ranking=rank(ScoreMatrix(scores.numpy(), np.array(videos))),
        moments=len(videos),
        clips=len(clips),
        videos=len(set(videos)),
        notes=notes,
    )


def _batches(encoder: Encoder, clips: Shards, per_clip: int) -> Iterator[list[Moment]]:
    """The moments of all clips, some at a time."""
    config = ModelConfig(resize_pixels=encoder.resize_pixels, crop_pixels=encoder.crop_pixels)
    waiting = []
    for clip in clips:
        for moment in moments(clip, config, per_clip):
            waiting.append(moment)
            if len(waiting) == ENCODED_AT_ONCE:
                yield waiting
                waiting = []
    if waiting:
        yield waiting
