"""The clips that a training reads, and the batches it makes of them."""

import logging
import math

import numpy as np
from numpy.typing import NDArray

from looklisten.config import Config
from looklisten.data.pairs import FrameTransform, PairStream
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.model.l3net import L3Net
from looklisten.model.objectives import find_objective
from looklisten.system.processes import cpu_count
from looklisten.training.distributed import ProcessWorld
from looklisten.training.frozen_towers.batches import FeatureStream
from looklisten.training.frozen_towers.cache import FeatureCache

MAX_LOADER_THREADS = 12

_log = logging.getLogger("looklisten")


def select_labeled(
    data: Shards, clips: NDArray[np.bool_], config: Config
) -> tuple[NDArray[np.bool_], Config]:
    """The clips of the mask `clips`, `[clips]`, that the objective can use, and the fitting config.

    An objective that uses labels takes the clips whose label is one of `train.classes`. A config
    without classes gets those of the clips. Raises ConfigError when these are fewer than two.
    """
    if not find_objective(config.train.objective).uses_labels:
        return clips, config
    classes = config.train.classes
    if not classes:
        names = set(data.names[clips].tolist())
        classes = tuple(sorted(names - {""}))
    if len(classes) < 2:
        raise ConfigError(
            f'the objective "{config.train.objective}" needs training clips of at least 2 labels; '
            f"{data.path} has {len(classes)}"
        )
    return clips & np.isin(data.names, classes), config.changed("train", classes=classes)


def fit_batch_size(
    config: Config,
    videos: int,
    ranks: int = 1,
    data: Shards | None = None,
    log_level: int = logging.WARNING,
) -> Config:
    """The config with a batch that `videos` videos fill and `ranks` processes share equally.

    Every row of a batch is another video. `data` helps to explain an error. A smaller batch
    than the config's is logged at `log_level`. Raises ConfigError when there are too few videos.
    """
    if videos < 2:
        advice = _describe_splits(data) if data else ""
        raise ConfigError(
            f"training needs at least 2 videos in addition to the held-out ones, and there are "
            f"{videos}; {advice or 'prepare more videos'}"
        )
    if videos >= config.train.batch_size:
        return config
    # Same-video negatives come in couples.
    unit = math.lcm(ranks, 2 if config.train.negatives == "same-video" else 1)
    batch_size = videos // unit * unit
    if batch_size < 2:
        raise ConfigError(
            f"{ranks} processes need a multiple of {unit} videos to share a batch, "
            f"and there are {videos} to train on"
        )
    reason = f" and shared in multiples of {unit}" if batch_size < videos else ""
    _log.log(
        log_level,
        "only %d videos to train on: the batch is lowered from %d to %d%s",
        videos,
        config.train.batch_size,
        batch_size,
        reason,
    )
    return config.changed("train", batch_size=batch_size, accumulate=1)


def _describe_splits(data: Shards) -> str:
    """What to do where the shards name splits; nothing where they name none."""
    names = [name for name in np.unique(data.splits).tolist() if name]
    if not names:
        return ""
    counts = []
    for name in names:
        videos = len(data.videos(data.splits == name))
        counts.append(f"{name} ({videos} videos)")
    return (
        f"the splits of {data.path} are {', '.join(counts)}, "
        f"and `train` is the split that is trained on"
    )


def training_stream(
    clips: Shards,
    config: Config,
    network: L3Net | None = None,
    features: FeatureCache | None = None,
) -> PairStream:
    """The batches of a training on `clips`: of `features` of `network`, or of frames and sounds.

    Frames are cropped at random positions and, if the config says so, mirrored.
    """
    model, settings = config.model, config.train
    if network is not None and features is not None:
        return FeatureStream(clips, settings.batch_size, settings.seed, network, features)
    transform = FrameTransform(
        model.resize_pixels,
        model.crop_pixels,
        random=True,
        flip=config.augment.flip,
        frames=model.frames_per_pair,
    )
    share = settings.same_video_share if settings.negatives == "same-video" else 0.0
    # The batch-norm of each process leaves a trace in its rows. A negative must not be the only
    # pair that joins rows of two processes.
    within_process = settings.batch_norm == "local" and settings.negatives == "roll"
    return PairStream(
        clips,
        settings.batch_size,
        settings.seed,
        transform,
        share,
        settings.same_video_steps,
        within_process,
        settings.empty_sound_share,
    )


def loader_threads(world: ProcessWorld, on_gpu: bool) -> int:
    """How many threads make batches for one process."""
    # While a GPU computes a step, many cores can decode. A CPU needs its cores for the step.
    if not on_gpu:
        return 2
    return max(2, min(cpu_count() // world.local_ranks, MAX_LOADER_THREADS))
