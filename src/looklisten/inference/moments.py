"""Moments of a clip: one frame with one second of sound, and what the two towers give for them.
Knows no label.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int16, UInt8
from torch import Tensor

from looklisten.config import ModelConfig
from looklisten.data.pairs import neighbours
from looklisten.data.shards import Clip
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.frames import crop, decode_jpeg, stack
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.model.backbones.backbone import TowerOutput
from looklisten.model.l3net import L3Net

BATCH = 32


@dataclass(frozen=True, eq=False)
class Moment:
    """One second of a clip with the frame nearest to its middle, ready for the towers."""

    clip: Clip
    start_seconds: float
    frame_seconds: float
    frame: UInt8[Tensor, "height width 3"]
    """Resized, not cropped."""
    seen: UInt8[Tensor, "height width channels"]
    """What the vision tower gets: `frame`, or with `frames_per_pair` it and its neighbours, side by
    side in the channels.
    """
    waveform: Int16[np.ndarray, " samples"]


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of moments: row i of both sides is the same second of clip number `clips[i]`."""

    vision: Float[np.ndarray, "moments features"]
    audio: Float[np.ndarray, "moments features"]
    clips: Int[np.ndarray, " moments"]


def moments(clip: Clip, config: ModelConfig, count: int) -> Iterator[Moment]:
    """`count` seconds of a clip, evenly spread from its first to its last; fewer when they would
    overlap by over three quarters.
    """
    room = len(clip.waveform) - WINDOW_SAMPLES
    times = np.array(clip.frame_seconds)
    count = min(count, 1 + room // (WINDOW_SAMPLES // 4))
    for start in np.linspace(0, room, count).round().astype(int) if count > 1 else [room // 2]:
        middle = (start + WINDOW_SAMPLES / 2) / SAMPLE_RATE_HZ
        yield moment_at(clip, config, int(start), int(np.abs(times - middle).argmin()))


def moment_at(clip: Clip, config: ModelConfig, start: int, frame: int) -> Moment:
    """The second of sound that begins at sample `start`, with stored frame number `frame`, for a
    network of `config`.
    """
    numbers = neighbours(frame, len(clip.frames), config.frames_per_pair)
    pictures = {
        number: decode_jpeg(clip.frames[number], config.resize_pixels)
        for number in {frame, *numbers}
    }
    return Moment(
        clip=clip,
        start_seconds=start / SAMPLE_RATE_HZ,
        frame_seconds=clip.frame_seconds[frame],
        frame=pictures[frame],
        seen=torch.cat([pictures[number] for number in numbers], dim=2),
        waveform=clip.waveform[start : start + WINDOW_SAMPLES],
    )


def look_and_listen(model: L3Net, batch: Sequence[Moment]) -> tuple[TowerOutput, TowerOutput]:
    """What the two towers say of moments, vision first; frames are centrally cropped."""
    device = next(model.parameters()).device
    squares = [crop(moment.seen, model.config.crop_pixels, 0.5, 0.5) for moment in batch]
    waves = torch.from_numpy(np.stack([moment.waveform for moment in batch]))
    return model.look(stack(squares).to(device)), model.listen(waves.to(device))


@torch.inference_mode()
def embed_clips(model: L3Net, clips: Iterable[Clip], per_clip: int = 5) -> Vectors:
    """The pooled vectors (pool4) of both towers for `per_clip` moments of each clip; frames are
    centrally cropped.
    """
    waiting: list[Moment] = []
    vision, audio, owners = [], [], []

    def flush() -> None:
        seen, heard = look_and_listen(model, waiting)
        vision.append(seen.vector.float().cpu().numpy())
        audio.append(heard.vector.float().cpu().numpy())
        waiting.clear()

    for number, clip in enumerate(clips):
        for moment in moments(clip, model.config, per_clip):
            waiting.append(moment)
            owners.append(number)
            if len(waiting) == BATCH:
                flush()
    if waiting:
        flush()
    empty = np.zeros((0, model.config.widths[-1]), np.float32)
    return Vectors(
        np.concatenate([empty, *vision]),
        np.concatenate([empty, *audio]),
        np.array(owners, dtype=np.int64),
    )
