"""Sound, pictures and videos -> vectors with their times, the same alone or in a batch. Knows no label."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Float, Int, Int16, UInt8
from torch import Tensor

from looklisten.config import ModelConfig
from looklisten.data.pairs import neighbours
from looklisten.data.shards import Clip
from looklisten.inference.embeddings import AlignedEmbeddings, Embeddings, joined
from looklisten.inference.encoder import Encoder, Precision, encoder_of
from looklisten.inference.intake import SideOrAuto, aligned, parts
from looklisten.inference.sources import Source
from looklisten.inference.streaming import BATCH_SIZE, HOP_SECONDS, How
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.frames import crop, decode_jpeg, stack
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.media.waveform import Rate
from looklisten.model.l3net import L3Net
from looklisten.model.towers import TowerOutput

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
    """What the vision tower gets: `frame`, or with `frames_per_pair` it and its neighbours, side by side in the channels."""
    waveform: Int16[np.ndarray, " samples"]


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of moments: row i of both sides is the same second of clip number `clips[i]`."""

    vision: Float[np.ndarray, "moments features"]
    audio: Float[np.ndarray, "moments features"]
    clips: Int[np.ndarray, " moments"]


def moments(clip: Clip, config: ModelConfig, count: int) -> Iterator[Moment]:
    """`count` seconds of a clip, evenly spread from its first to its last; fewer when they would overlap by over three quarters."""
    room = len(clip.waveform) - WINDOW_SAMPLES
    times = np.array(clip.frame_seconds)
    count = min(count, 1 + room // (WINDOW_SAMPLES // 4))
    for start in np.linspace(0, room, count).round().astype(int) if count > 1 else [room // 2]:
        middle = (start + WINDOW_SAMPLES / 2) / SAMPLE_RATE_HZ
        yield moment_at(clip, config, int(start), int(np.abs(times - middle).argmin()))


def moment_at(clip: Clip, config: ModelConfig, start: int, frame: int) -> Moment:
    """The second of sound that begins at sample `start`, with stored frame number `frame`, for a network of `config`."""
    numbers = neighbours(frame, len(clip.frames), config.frames_per_pair)
    pictures = {number: decode_jpeg(clip.frames[number], config.resize_pixels) for number in {frame, *numbers}}
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
    """The pooled vectors (pool4) of both towers for `per_clip` moments of each clip; frames are centrally cropped."""
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
    return Vectors(np.concatenate([empty, *vision]), np.concatenate([empty, *audio]), np.array(owners, dtype=np.int64))


@overload
def embed(
    source: Source,
    model: L3Net | Encoder,
    side: SideOrAuto = ...,
    layer: str | None = ...,
    hop_seconds: float | Fraction = ...,
    center: bool = ...,
    normalize: bool = ...,
    dense: bool = ...,
    batch_size: int = ...,
    sample_rate_hz: Rate | None = ...,
    precision: Precision = ...,
    align: Literal[False] = ...,
) -> Embeddings: ...
@overload
def embed(
    source: Source,
    model: L3Net | Encoder,
    side: SideOrAuto = ...,
    layer: str | None = ...,
    hop_seconds: float | Fraction = ...,
    center: bool = ...,
    normalize: bool = ...,
    dense: bool = ...,
    batch_size: int = ...,
    sample_rate_hz: Rate | None = ...,
    precision: Precision = ...,
    *,
    align: Literal[True],
) -> AlignedEmbeddings: ...
def embed(
    source: Source,
    model: L3Net | Encoder,
    side: SideOrAuto = "auto",
    layer: str | None = None,
    hop_seconds: float | Fraction = HOP_SECONDS,
    center: bool = False,
    normalize: bool = False,
    dense: bool = False,
    batch_size: int = BATCH_SIZE,
    sample_rate_hz: Rate | None = None,
    precision: Precision = "float32",
    align: bool = False,
) -> Embeddings | AlignedEmbeddings:
    """Vectors of any sound, picture or video; with `align` those of both sides of a video on the same times.

    `source`: a file; a picture of Pillow; sound as `[samples]`, `[samples, channels]` or `[channels, samples]` with
    `sample_rate_hz` (the longer axis is time, integers are scaled, channels averaged); or pictures as `[height, width, 3]` or
    `[n, height, width, 3]`, uint8 or floats in 0..1, without it. Numbers may be an array of any library, a tensor or a list.

    `side`: `auto` takes the sound where there is one, else the picture. `layer`: pool4 (512-D), conv4_2 (6144-D of
    sound, 8192-D of pictures), aligned (128-D), texture (7680-D, of sound). Sound gives `1 + ceil((samples - 48000) / hop)`
    windows of a second at 48 kHz, the last filled up with silence, at least one; `center` puts half a second of silence in front,
    so that window k has the moment k times `hop_seconds` in its middle. Of a video's picture the frames nearest to multiples of
    `hop_seconds` are taken.
    `normalize`: unit vectors. `dense`: sound in one run of the tower (see `dense.py`). `precision`: float32, or the faster
    bfloat16. The same source gives the same vectors; on a CPU in float32 to the bit, alone or in company, whole or streamed.

    Raises SourceError for a source that cannot be what it should be, ConfigError for choices that cannot be met.
    """
    how = How(layer, hop_seconds, center, normalize, dense, batch_size)
    encoder = encoder_of(model, precision)
    if align:
        return aligned(source, encoder, how)
    return joined(parts(source, encoder, how, side, sample_rate_hz))
