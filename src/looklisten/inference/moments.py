"""Moments of a clip, one frame with one second of sound each, and their vectors. Knows no label."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int, Int16, UInt8
from torch import Tensor

from looklisten.config import SIDES, ModelConfig
from looklisten.data.clips import Clip
from looklisten.inference.towers import ALIGNED, check_layer, listen, look, side_vectors
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.frames import decode_jpeg, fit_square, neighbor_frames, stack
from looklisten.media.spectrogram import WINDOW_SAMPLES, check_holds_window
from looklisten.model.backbones.backbone import TowerOutput
from looklisten.model.l3net import L3Net

MOMENTS_PER_BATCH = 32
LEAST_STEP_SAMPLES = WINDOW_SAMPLES // 4
"""Seconds of one clip overlap by at most three quarters."""


@dataclass(frozen=True, eq=False)
class Moment:
    """One second of a clip with the frame nearest to its middle, ready for the towers."""

    clip: Clip
    start_seconds: float
    """Of the second of sound, from the start of the clip."""
    frame_seconds: float
    """Of the frame, from the start of the clip."""
    frame: UInt8[Tensor, "height width 3"]
    """RGB, resized, not cropped."""
    vision_input: UInt8[Tensor, "height width channels"]
    """The input of the vision tower, not cropped: `frame`, or several neighboring frames, side by
    side in the channels (`frames_per_pair`).
    """
    waveform: Int16[np.ndarray, " samples"]
    """The second of sound, mono at 48 kHz."""


@dataclass(frozen=True, eq=False)
class MomentVectors:
    """Vectors of moments: row i of both sides is the same second of clip number `clips[i]`."""

    vision: Float[np.ndarray, "moments vision_features"]
    audio: Float[np.ndarray, "moments audio_features"]
    clips: Int[np.ndarray, " moments"]


def moments(clip: Clip, config: ModelConfig, count: int) -> Iterator[Moment]:
    """`count` moments of a clip, their seconds of sound evenly spread over all of it.

    A short clip has fewer, so that they overlap by at most three quarters. A single moment is the
    middle one. Raises ConfigError for a clip of less than a second.
    """
    for start in moment_starts(clip, count):
        yield moment_at(clip, config, start, nearest_frame(clip, start))


def nth_moment(clip: Clip, config: ModelConfig, count: int, number: int) -> Moment:
    """Moment `number`, from 0, of those that `moments(clip, config, count)` gives."""
    start = moment_starts(clip, count)[number]
    return moment_at(clip, config, start, nearest_frame(clip, start))


def moment_starts(clip: Clip, count: int) -> list[int]:
    """The first sample of each of the seconds that `moments` gives."""
    check_holds_window(len(clip.waveform))
    # The first sample of the last second.
    room = len(clip.waveform) - WINDOW_SAMPLES
    count = min(count, 1 + room // LEAST_STEP_SAMPLES)
    if count <= 1:
        return [room // 2]
    starts: list[int] = np.linspace(0, room, count).round().astype(int).tolist()
    return starts


def nearest_frame(clip: Clip, start: int) -> int:
    """The number of the stored frame nearest to the middle of the second from sample `start` on."""
    middle_seconds = (start + WINDOW_SAMPLES / 2) / SAMPLE_RATE_HZ
    return int(np.abs(np.array(clip.frame_seconds) - middle_seconds).argmin())


def moment_at(clip: Clip, config: ModelConfig, start: int, frame_number: int) -> Moment:
    """The second of sound from sample `start` on, with one of the stored frames.

    `config`: of the network that takes the moment.
    """
    input_frames = neighbor_frames(frame_number, len(clip.frames), config.frames_per_pair)
    # Each stored frame is decoded once, also where a short clip repeats it.
    images = {}
    for number in {frame_number, *input_frames}:
        images[number] = decode_jpeg(clip.frames[number], config.resize_pixels)
    return Moment(
        clip=clip,
        start_seconds=start / SAMPLE_RATE_HZ,
        frame_seconds=clip.frame_seconds[frame_number],
        frame=images[frame_number],
        vision_input=torch.cat([images[number] for number in input_frames], dim=2),
        waveform=clip.waveform[start : start + WINDOW_SAMPLES],
    )


def look_and_listen(model: L3Net, batch: Sequence[Moment]) -> tuple[TowerOutput, TowerOutput]:
    """The outputs of the vision tower and of the audio tower, for frames without random change."""
    device = next(model.parameters()).device
    config = model.config
    squares = []
    waveforms = []
    for moment in batch:
        squares.append(fit_square(moment.vision_input, config.crop_pixels, config.frame_fit))
        waveforms.append(moment.waveform)
    vision_output = look(model, stack(squares).to(device))
    audio_output = listen(model, torch.from_numpy(np.stack(waveforms)).to(device))
    return vision_output, audio_output


def embed_clips(model: L3Net, clips: Iterable[Clip], per_clip: int = 5) -> MomentVectors:
    """The vectors (pool4) of both sides for `per_clip` moments of each clip."""
    (vectors,) = embed_clips_with_each([model], clips, per_clip)
    return vectors


def embed_clips_aligned(model: L3Net, clips: Iterable[Clip], per_clip: int = 5) -> MomentVectors:
    """The vectors of both sides in their shared space, for `per_clip` moments of each clip.

    Raises ConfigError for a network without a vector of a whole frame.
    """
    for side in SIDES:
        check_layer(model, side, ALIGNED)
    (vectors,) = embed_clips_with_each([model], clips, per_clip, aligned=True)
    return vectors


@torch.inference_mode()
def embed_clips_with_each(
    models: Sequence[L3Net], clips: Iterable[Clip], per_clip: int = 5, aligned: bool = False
) -> list[MomentVectors]:
    """The vectors of each network for the same moments, whose frames are decoded once.

    The networks have the same config. The vectors are those of pool4 or, with `aligned`, of the
    space that both sides share.
    """
    # The arrays begin with no rows, so that they have the right width even without clips.
    widths = models[0].features
    if aligned:
        widths = dict.fromkeys(SIDES, models[0].fusion.aligned_width)
    no_frames, no_sounds = (np.zeros((0, widths[side]), np.float32) for side in SIDES)
    vision = [[no_frames] for _ in models]
    audio = [[no_sounds] for _ in models]
    clip_numbers: list[int] = []
    numbered = _numbered_moments(clips, models[0].config, per_clip)
    while rows := list(islice(numbered, MOMENTS_PER_BATCH)):
        clip_numbers += [clip_number for clip_number, _ in rows]
        batch = [moment for _, moment in rows]
        for number, model in enumerate(models):
            frame_vectors, sound_vectors = _vectors_of(model, batch, aligned)
            vision[number].append(frame_vectors)
            audio[number].append(sound_vectors)
    results = []
    for vision_parts, audio_parts in zip(vision, audio, strict=True):
        results.append(
            MomentVectors(
                vision=np.concatenate(vision_parts),
                audio=np.concatenate(audio_parts),
                clips=np.array(clip_numbers, dtype=np.int64),
            )
        )
    return results


def _numbered_moments(
    clips: Iterable[Clip], config: ModelConfig, per_clip: int
) -> Iterator[tuple[int, Moment]]:
    """The moments of all clips, each with the number of its clip."""
    for number, clip in enumerate(clips):
        for moment in moments(clip, config, per_clip):
            yield number, moment


def _vectors_of(
    model: L3Net, batch: Sequence[Moment], aligned: bool
) -> tuple[
    Float[np.ndarray, "moments vision_features"], Float[np.ndarray, "moments audio_features"]
]:
    """The vectors of the frames and of the sounds of a batch."""
    vision_output, audio_output = look_and_listen(model, batch)
    frame_vectors, sound_vectors = vision_output.vector, audio_output.vector
    if aligned:
        frame_vectors = side_vectors(model, vision_output, "vision", ALIGNED)
        sound_vectors = side_vectors(model, audio_output, "audio", ALIGNED)
    return frame_vectors.float().cpu().numpy(), sound_vectors.float().cpu().numpy()
