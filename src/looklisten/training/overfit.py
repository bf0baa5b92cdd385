"""Whether a network can memorize a few videos, a test before a long training."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from looklisten.config import Config
from looklisten.data.shards import Shards
from looklisten.model.config_checks import check_config
from looklisten.system.progress import Progress, no_progress
from looklisten.system.torch_modes import own_torch_modes
from looklisten.training.batches import fit_batch_size, select_labeled, training_stream
from looklisten.training.distributed import ProcessWorld
from looklisten.training.learner import Learner
from looklisten.training.meter import TrainingMeter
from looklisten.training.optimizers import learning_rate

MEMORIZED_ACCURACY = 0.95
MAX_SECONDS = 60.0
READING_STEPS = 10
"""Steps between two readings of the accuracy."""
MAX_WARMUP_STEPS = 20
NO_STEP_LIMIT = 10**9


@dataclass(frozen=True)
class OverfitResult:
    """Whether a few videos could be memorized."""

    memorized: bool
    accuracy: float
    """Over the last steps, on the videos that were trained on."""
    loss: float
    videos: int
    steps: int
    seconds: float
    advice: str


@own_torch_modes()
def overfit(
    shards: str | Path,
    config: Config,
    videos: int = 16,
    device: str = "auto",
    seconds: float = MAX_SECONDS,
    progress: Progress = no_progress,
) -> OverfitResult:
    """Train on `videos` videos alone, without augmentation, until the network has memorized them.

    It ends after `seconds` at the latest, and writes nothing. A network that cannot memorize
    sixteen videos will not learn from sixteen thousand. Raises ConfigError for settings that do not
    fit each other.
    """
    check_config(config)
    data = Shards(shards)
    chosen = sorted(set(data.video_ids))[:videos]
    clips, config = select_labeled(data, np.isin(data.video_ids, chosen), config)
    config = _easier(config, videos, len(set(data.video_ids[clips])))
    # The same seed and initial towers as in the training that it prepares.
    learner = Learner(config, device)
    learner.initialize()
    stream = training_stream(data.select(clips), config)
    meter = TrainingMeter(config.train.batch_size, ProcessWorld())

    began = time.monotonic()
    step = 0
    for step, batch in enumerate(stream.batches(0, NO_STEP_LIMIT), 1):
        rate = learning_rate(config.train, step)
        result = learner.step([batch], step, rate, augmented=False)
        meter.add(step, result, [batch])
        spent_seconds = time.monotonic() - began
        if step % READING_STEPS == 0:
            meter.read(Path.cwd())
            shown_seconds = min(int(spent_seconds), int(seconds))
            progress(shown_seconds, int(seconds), **meter.progress_facts())
            if meter.accuracy >= MEMORIZED_ACCURACY:
                break
        if spent_seconds > seconds:
            break
    if not math.isfinite(meter.loss):
        # It ended before the first reading.
        meter.read(Path.cwd())
    memorized = meter.accuracy >= MEMORIZED_ACCURACY
    return OverfitResult(
        memorized=memorized,
        accuracy=meter.accuracy,
        loss=meter.loss,
        videos=len(chosen),
        steps=step,
        seconds=round(time.monotonic() - began, 1),
        advice=_advice(memorized),
    )


def _easier(config: Config, batch_size: int, videos: int) -> Config:
    """The config with one batch of all videos, a constant learning rate and nothing random."""
    # Compiling would take most of the time of such a short run.
    config = config.changed("train", batch_size=batch_size, accumulate=1, compile="off")
    config = fit_batch_size(config, videos)
    warmup_steps = min(config.train.warmup_steps, MAX_WARMUP_STEPS)
    # Empty sounds are other ones at each step, so nobody could memorize them.
    config = config.changed(
        "train", schedule="constant", warmup_steps=warmup_steps, empty_sound_share=0.0
    )
    return config.changed("augment", flip=False)


def _advice(memorized: bool) -> str:
    if memorized:
        return "the network can memorize these pairs; train on all videos"
    return (
        "look at the pairs (`looklisten inspect SHARDS --pairs 32`), "
        "and try another learning rate (--sweep lr=1e-4,3e-4,1e-3)"
    )
