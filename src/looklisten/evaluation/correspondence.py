"""Audio-visual correspondence on held-out videos: how often the network's yes and no are right, with an interval."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from looklisten.data.pairs import PairStream, View
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.model.l3net import L3Net, correspondence_logit
from looklisten.runtime import Progress, silent

Z95 = 1.959964
"""Standard deviations that hold 95 % of a normal distribution."""
MAX_BATCH = 64


@dataclass(frozen=True)
class Correspondence:
    """AVC accuracy, chance 0.5. Pairs of one video are no independent witnesses, so the interval is taken over videos."""

    accuracy: float
    n_pairs: int
    n_videos: int
    ci95: tuple[float, float]
    positives_right: float
    negatives_right: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the mean of independent `values` that lie in 0..1, by the normal approximation, kept in 0..1."""
    mean = float(np.mean(values))
    half = Z95 * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.5
    return max(mean - half, 0.0), min(mean + half, 1.0)


@torch.inference_mode()
def evaluate(
    model: L3Net,
    shards: Shards,
    mask: NDArray[np.bool_],
    pairs: int = 4000,
    seed: int = 0,
    progress: Progress = silent,
) -> Correspondence:
    """AVC accuracy over at least `pairs` pairs of the clips that `mask` allows, half of them positive.

    Pairs are drawn as in training (frame inside the second; negatives re-pair the same frames and sounds, always of different
    videos) but for the augmentation: central crops, no jitter. The same `seed` gives the same pairs. Raises ConfigError when
    fewer than two videos are allowed.
    """
    videos = len(np.unique(shards.video_ids[mask]))
    if videos < 2:
        raise ConfigError(f"correspondence needs at least 2 held-out videos for a negative pair; {shards.path} has {videos}")
    device = next(model.parameters()).device
    view = View(model.config.resize_pixels, model.config.crop_pixels, random=False, frames=model.config.frames_per_pair)
    # An epoch drops what does not fill a batch, so the batch is one that leaves little over.
    batch = max(range(2, min(videos, MAX_BATCH) + 1), key=lambda size: (videos // size * size, size))
    stream = PairStream(shards, mask, batch, seed, view)
    steps = math.ceil(pairs / (2 * batch))
    was_training = model.training
    model.eval()
    right: dict[str, list[float]] = {}
    by_kind: dict[bool, list[float]] = {True: [], False: []}
    for done, rows in enumerate(stream.batches(0, steps), 1):
        vision = model.look(rows.frames.to(device)).vector
        audio = model.listen(rows.waveforms.to(device)).vector
        for matched, sounds in ((True, audio), (False, audio.roll(-1, 0))):
            said_yes = correspondence_logit(model.fusion(vision, sounds)) > 0
            for video, yes in zip(rows.video_ids, said_yes.tolist(), strict=True):
                right.setdefault(video, []).append(float(yes == matched))
                by_kind[matched].append(float(yes == matched))
        progress(done, steps)
    model.train(was_training)
    accuracy = float(np.mean(by_kind[True] + by_kind[False]))
    return Correspondence(
        accuracy=accuracy,
        n_pairs=2 * batch * steps,
        n_videos=len(right),
        ci95=interval(np.array([np.mean(answers) for answers in right.values()])),
        positives_right=float(np.mean(by_kind[True])),
        negatives_right=float(np.mean(by_kind[False])),
    )
