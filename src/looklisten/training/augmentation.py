"""What the towers read of a batch in training: random changes of frames and sounds."""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from looklisten.config import Config
from looklisten.media.frames import frames_to_input, jitter
from looklisten.media.spectrogram import int16_to_float
from looklisten.training.frozen_towers.batches import AnyBatch, FeatureBatch


def tower_inputs(
    batch: AnyBatch, config: Config, step: int, device: str, augmented: bool = True
) -> tuple[Float[Tensor, "own ..."], Float[Tensor, "own ..."]]:
    """What the towers read of the rows of this process, on the device: frames, then waveforms.

    Both are in -1..1. If `augmented`, brightness and saturation of each frame and the gain of each
    sound are changed at random. The changes of a row depend on the seed, the step and the row
    alone, not on the process. A `FeatureBatch` gives its features, unchanged.
    """
    if isinstance(batch, FeatureBatch):
        vision = batch.vision.to(device, non_blocking=True)
        return vision, batch.audio.to(device, non_blocking=True)
    # Moved to the device as integers, which are smaller.
    frames = batch.frames.to(device, non_blocking=True)
    sounds = int16_to_float(batch.waveforms.to(device, non_blocking=True))
    if not augmented:
        return frames_to_input(frames), sounds
    settings = config.augment
    generator = torch.Generator().manual_seed(step_seed(config.train.seed, step))
    # Drawn for the whole batch, so that the number of processes changes nothing.
    uniform = torch.rand(3, config.train.batch_size, generator=generator) * 2 - 1
    brightness, saturation, gain = uniform[:, batch.rows].to(device)
    vision = jitter(frames, settings.brightness * brightness, 1 + settings.saturation * saturation)
    return vision, sounds.mul_((1 + settings.gain * gain)[:, None])


def step_seed(seed: int, step: int) -> int:
    """The seed of the random changes of one step: below 2^64, as PyTorch requires, for any seed."""
    if seed < 2**32:
        return (seed << 32) + step
    # A larger seed leaves no bits for the step, so both are mixed.
    return int.from_bytes(hashlib.sha256(f"{seed} {step}".encode()).digest()[:8], "big")
