"""Whether a network can memorize a few videos."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from looklisten.config import Config
from looklisten.data.shards import Shards
from looklisten.system.progress import Progress, no_progress
from looklisten.training.batches import fit_batch_size, select_labeled, training_stream
from looklisten.training.learner import Learner
from looklisten.training.meter import TrainingMeter
from looklisten.training.schedule import learning_rate

LEARNT_ACCURACY = 0.95


OVERFIT_SECONDS = 60.0


OVERFIT_LOOK = 10
"""Steps between looks at the accuracy."""


@dataclass(frozen=True)
class OverfitResult:
    """Whether a few videos could be learnt by heart."""

    learnt: bool
    accuracy: float
    """AVC over the last steps, on the very videos trained on."""
    loss: float
    videos: int
    steps: int
    seconds: float
    advice: str


def overfit(
    shards: str | Path,
    config: Config,
    videos: int = 16,
    device: str = "auto",
    seconds: float = OVERFIT_SECONDS,
    progress: Progress = no_progress,
) -> OverfitResult:
    """Train on `videos` videos alone, without augmentation, until their pairs are told apart or
    `seconds` have passed.

    Writes nothing. What cannot learn sixteen videos by heart will not learn sixteen thousand.
    """
    data = Shards(shards)
    chosen = sorted(set(data.video_ids))[:videos]
    allowed = np.isin(data.video_ids, chosen)
    allowed, config = select_labeled(data, allowed, config)
    config = fit_batch_size(
        config.changed("train", batch_size=videos, accumulate=1, compile="off"),
        len(set(data.video_ids[allowed])),
    )
    config = config.changed("augment", flip=False).changed(
        "train", schedule="constant", warmup_steps=min(config.train.warmup_steps, 20)
    )
    learner, stream = Learner(config, device), training_stream(data.select(allowed), config)
    learner.initialize()
    meter, began, step = TrainingMeter(config.train.batch_size, learner.world), time.monotonic(), 0
    for step, batch in enumerate(stream.batches(0, 10**9), 1):
        outcome = learner.step([batch], step, learning_rate(config.train, step), augmented=False)
        meter.add(step, outcome, [batch], 0.0)
        spent = time.monotonic() - began
        if step % OVERFIT_LOOK == 0:
            meter.read(Path.cwd())
            progress(min(int(spent), int(seconds)), int(seconds), **meter.facts())
        if (step % OVERFIT_LOOK == 0 and meter.accuracy >= LEARNT_ACCURACY) or spent > seconds:
            break
    if not math.isfinite(meter.loss):
        meter.read(Path.cwd())
    learnt = meter.accuracy >= LEARNT_ACCURACY
    return OverfitResult(
        learnt=learnt,
        accuracy=meter.accuracy,
        loss=meter.loss,
        videos=len(chosen),
        steps=step,
        seconds=round(time.monotonic() - began, 1),
        advice="the pairs can be learnt; train on all videos"
        if learnt
        else "look at the pairs (`looklisten inspect SHARDS --pairs 32`), and try another learning rate (--sweep lr=1e-4,3e-4,1e-3)",
    )
