"""Random changes of frames and sounds in training, and moving a batch to the device."""

import hashlib

import torch
from jaxtyping import Float, Int16, UInt8
from torch import Tensor

from looklisten.config import Config
from looklisten.data.pairs import PairBatch
from looklisten.media import frames as media_frames
from looklisten.media import spectrogram


def augment(
    batch: PairBatch, config: Config, step: int, device: str
) -> tuple[Float[Tensor, "own channels height width"], Float[Tensor, "own samples"]]:
    """Inputs of the towers: frames with other brightness and saturation, sounds with another gain.

    Frames are in -1..1, waveforms in -1..1 before the gain. The changes depend on the seed and the
    step alone. Each frame and each sound has its own, the same in whichever process its row is.
    """
    settings = config.augment
    generator = torch.Generator().manual_seed(step_seed(config.train.seed, step))
    # Drawn for the whole batch, so that the number of processes changes nothing.
    uniform = torch.rand(3, config.train.batch_size, generator=generator) * 2 - 1
    brightness, saturation, gain = uniform[:, batch.rows].to(device)
    frames, waveforms = _move_to_device(batch, device)
    frames = media_frames.jitter(
        frames, settings.brightness * brightness, 1 + settings.saturation * saturation
    )
    return frames, spectrogram.int16_to_float(waveforms).mul_((1 + settings.gain * gain)[:, None])


def without_changes(
    batch: PairBatch, device: str
) -> tuple[Float[Tensor, "own channels height width"], Float[Tensor, "own samples"]]:
    """Inputs of the towers as they are stored: frames and waveforms in -1..1, on the device."""
    frames, waveforms = _move_to_device(batch, device)
    return media_frames.frames_to_input(frames), spectrogram.int16_to_float(waveforms)


def _move_to_device(
    batch: PairBatch, device: str
) -> tuple[UInt8[Tensor, "own channels height width"], Int16[Tensor, "own samples"]]:
    # They travel as integers, which are smaller.
    frames: UInt8[Tensor, "own channels height width"] = batch.frames.to(device, non_blocking=True)
    waveforms: Int16[Tensor, "own samples"] = batch.waveforms.to(device, non_blocking=True)
    return frames, waveforms


def step_seed(seed: int, step: int) -> int:
    """The seed of the random changes of one step: below 2^64, as PyTorch requires, for any seed."""
    if seed < 2**32:
        return (seed << 32) + step
    # A larger seed leaves no bits for the step, so both are mixed.
    return int.from_bytes(hashlib.sha256(f"{seed} {step}".encode()).digest()[:8], "big")
