"""The untrained network that a trained one is compared with. Knows no label and no score."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from looklisten.config import ModelConfig
from looklisten.data.pairs import FrameTransform, PairStream
from looklisten.data.shards import Shards
from looklisten.model.l3net import L3Net

CALIBRATION_BATCHES = 8
"""Batches of shards that batch-norm statistics of an untrained network are set from."""
CALIBRATION_BATCH_PAIRS = 32

FramesAndSounds = tuple[Tensor, Tensor]
"""A batch for both towers: frames, and waveforms."""


def untrained_network(
    config: ModelConfig,
    seed: int,
    device: torch.device | str = "cpu",
    batches: Iterable[FramesAndSounds] | None = None,
) -> L3Net:
    """A network with the initial weights of `seed`, in evaluation mode.

    `batches`: frames and sounds from which batch-norm statistics are set; None keeps the initial
        mean 0 and variance 1.

    Statistics from data make the untrained network as strong as it can be. For shards they come
    from training videos, for localization from the measured moments without their boxes. On a
    labeled set with folds the initial statistics are kept, as in the paper: statistics from the
    set itself would depend on the tested fold. They did not make a stronger baseline either
    (LOG.md, 2026-11-24).
    """
    torch.manual_seed(seed)
    network = L3Net(config).to(device)
    if batches is not None:
        set_batch_norm(network, batches)
    return network.eval()


def untrained_like(model: L3Net, clips: Shards, seed: int) -> L3Net:
    """An untrained network like `model`, with batch-norm statistics set from `clips`."""
    device = next(model.parameters()).device
    batches = calibration_batches(model.config, clips, seed)
    return untrained_network(model.config, seed, device, batches)


def calibration_batches(config: ModelConfig, clips: Shards, seed: int) -> Iterator[FramesAndSounds]:
    """Some batches of `clips`, for the batch-norm statistics of a network."""
    transform = FrameTransform(
        config.resize_pixels,
        config.crop_pixels,
        random=False,
        frames=config.frames_per_pair,
        fit=config.frame_fit,
    )
    n_videos = len(np.unique(clips.video_ids))
    pairs = PairStream(clips, min(CALIBRATION_BATCH_PAIRS, n_videos), seed, transform)
    for batch in pairs.batches(0, CALIBRATION_BATCHES):
        yield batch.frames, batch.waveforms


def initial_seed(model: L3Net, seed: int | None) -> int:
    """`seed`, else the seed of the network's own initial weights, else 0 if that is not known."""
    if seed is not None:
        return seed
    return model.initial_seed or 0


@torch.no_grad()
def set_batch_norm(model: L3Net, batches: Iterable[FramesAndSounds]) -> None:
    """Set all batch-norm statistics to their plain mean over `batches`.

    The network is in evaluation mode afterwards.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            # None means a plain mean over all batches instead of an exponential one.
            module.momentum = None
    device = next(model.parameters()).device
    model.train()
    for frames, waveforms in batches:
        model.look(frames.to(device))
        model.listen(waveforms.to(device))
    model.eval()
