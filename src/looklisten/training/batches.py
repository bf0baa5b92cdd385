"""Which videos a training reads, and the batches it makes of them."""

import logging
import math

import numpy as np
from numpy.typing import NDArray

from looklisten.config import Config
from looklisten.data.pairs import FrameTransform, PairStream
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError

_log = logging.getLogger("looklisten")


def select_labeled(
    data: Shards, allowed: NDArray[np.bool_], config: Config
) -> tuple[NDArray[np.bool_], Config]:
    """With the objective "labels": the clips of `allowed` whose label is a class, and the config
    with the classes; else both as they are.

    A config without classes gets those of the clips. Raises ConfigError when these are fewer than
    two.
    """
    if config.train.objective != "labels":
        return allowed, config
    classes = config.train.classes or tuple(sorted(set(data.names[allowed].tolist()) - {""}))
    if len(classes) < 2:
        raise ConfigError(
            f'the objective "labels" needs training clips of at least 2 labels; {data.path} has {len(classes)}'
        )
    return allowed & np.isin(data.names, classes), config.changed("train", classes=classes)


def training_stream(clips: Shards, config: Config) -> PairStream:
    """The positives of training on `clips`: frames have a random crop and may be mirrored."""
    model, settings = config.model, config.train
    transform = FrameTransform(
        model.resize_pixels,
        model.crop_pixels,
        random=True,
        flip=config.augment.flip,
        frames=model.frames_per_pair,
    )
    share = settings.same_video_share if settings.negatives == "same-video" else 0.0
    # Each process's batch-norm marks its rows, so a negative must not be the pair that joins two
    # processes' rows.
    within_process = settings.batch_norm == "local" and settings.negatives == "roll"
    return PairStream(
        clips,
        settings.batch_size,
        settings.seed,
        transform,
        share,
        settings.same_video_steps,
        within_process,
    )


def fit_batch_size(
    config: Config, videos: int, ranks: int = 1, data: Shards | None = None
) -> Config:
    """The config with a batch that the videos can fill, and that `ranks` processes can share; every
    row is another video.

    Raises ConfigError when there are too few videos.
    """
    if videos < 2:
        raise ConfigError(
            f"training needs at least 2 videos beside the held-out ones, and there are {videos}; "
            f"{(data and _splits_of(data)) or 'prepare more videos'}"
        )
    if videos >= config.train.batch_size:
        return config
    unit = math.lcm(ranks, 2 if config.train.negatives == "same-video" else 1)
    fitting = videos // unit * unit
    if fitting < 2:
        raise ConfigError(
            f"{ranks} processes need a multiple of {unit} videos to share a batch, and there are {videos} to train on"
        )
    reason = f" and shared in multiples of {unit}" if fitting < videos else ""
    _log.warning(
        "only %d videos to train on: the batch is lowered from %d to %d%s",
        videos,
        config.train.batch_size,
        fitting,
        reason,
    )
    return config.changed("train", batch_size=fitting, accumulate=1)


def _splits_of(data: Shards) -> str:
    """What to do where the shards name splits; nothing where they name none."""
    names = [name for name in np.unique(data.splits).tolist() if name]
    if not names:
        return ""
    counts = [f"{name} ({len(set(data.video_ids[data.splits == name]))} videos)" for name in names]
    return f"the splits of {data.path} are {', '.join(counts)}, and `train` is the split that is trained on"
