"""Random changes of frames and sounds."""

import hashlib

import torch
from jaxtyping import Float, Int16, UInt8
from torch import Tensor

from looklisten.config import AugmentConfig, Config
from looklisten.data.pairs import PairBatch
from looklisten.media import frames as frames_
from looklisten.media import spectrogram


def step_seed(seed: int, step: int) -> int:
    """The seed of what a step draws, below 2^64 as PyTorch wants it, for any seed."""
    if seed < 2**32:
        return (seed << 32) + step
    return int.from_bytes(hashlib.sha256(f"{seed} {step}".encode()).digest()[:8], "big")


def on_device(
    batch: PairBatch, device: str
) -> tuple[Float[Tensor, "own channels height width"], Float[Tensor, "own samples"]]:
    """Frames in 0..1 and waveforms in -1..1, on the device."""
    frames: UInt8[Tensor, "own channels height width"] = batch.frames.to(device, non_blocking=True)
    waveforms: Int16[Tensor, "own samples"] = batch.waveforms.to(device, non_blocking=True)
    return frames_.frames_to_unit(frames), spectrogram.int16_to_float(waveforms)


def augment(
    batch: PairBatch, config: Config, step: int, device: str
) -> tuple[Float[Tensor, "own channels height width"], Float[Tensor, "own samples"]]:
    """The same with brightness and saturation of frames and the gain of sounds changed.

    Drawn from the seed and the step alone, each frame and each sound for itself, the same whichever
    process has the row.
    """
    settings: AugmentConfig = config.augment
    generator = torch.Generator().manual_seed(step_seed(config.train.seed, step))
    chance = (torch.rand(3, config.train.batch_size, generator=generator) * 2 - 1)[
        :, batch.rows
    ].to(device)
    frames, waveforms = on_device(batch, device)
    frames = frames_.jitter(
        frames, settings.brightness * chance[0], 1 + settings.saturation * chance[1]
    )
    return frames, waveforms * (1 + settings.gain * chance[2])[:, None]
