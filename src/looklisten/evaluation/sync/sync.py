"""A clip -> by how much its sound is early or late, or that nobody can tell.

A network knows *when* a sound belongs to a frame only if it was trained to tell moments of one
video apart (`train.negatives = "same-video"`). Any other one compares only *what* is seen and
heard, which is the same at every offset.
"""

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looklisten.data.clips import Clip
from looklisten.data.cutting import cut
from looklisten.data.options import PrepareOptions
from looklisten.data.sources import Source
from looklisten.evaluation.comparison import compare_in_blocks, fusion_comparison
from looklisten.evaluation.sync.agreement import (
    LEAST_BLOCKS,
    LEAST_CONFIDENCE,
    MOST_CHANCE,
    OFFSET_STEP_SECONDS,
    OffsetAgreement,
    offset_agreement,
)
from looklisten.evaluation.sync.options import SyncChoices, SyncOptions
from looklisten.inference.moments import moment_at
from looklisten.inference.towers import listen, look
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.records import DecodeReport
from looklisten.media.frames import fit_square, stack
from looklisten.media.isolation.parent import stream_isolated
from looklisten.media.spectrogram import WINDOW_SAMPLES, WINDOW_SECONDS
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run, open_network
from looklisten.system.progress import Progress, no_progress

SOUNDS_AT_ONCE = 32
OFFSET_SHARE = 1 / 3
"""Of the clip: a larger offset would leave too little of it to compare."""


@dataclass(frozen=True, eq=False)
class SyncResult:
    """The offset of a clip's sound, or why it stays unknown."""

    offset_seconds: float | None
    """The sound comes so much after its picture; negative where it comes before. None where it
    is unknown."""
    confidence: float | None
    """From 0 to 1: how often other parts of the clip have the same best offset."""
    chance: float | None
    """How often a sound that belongs to nothing agrees as well somewhere."""
    reason: str
    """Why the offset is unknown, in one sentence; empty where it is known."""
    compared_seconds: float
    """Length of the part of the clip that was compared."""
    agreement: OffsetAgreement | None = None
    """All offsets that were tried, where any were."""

    @property
    def is_known(self) -> bool:
        """Whether an offset stands out."""
        return self.offset_seconds is not None

    def as_dict(self) -> dict[str, Any]:
        """The values that the command line prints."""
        return {
            "offset_seconds": self.offset_seconds,
            "confidence": self.confidence,
            "chance": self.chance,
            "reason": self.reason,
            "compared_seconds": self.compared_seconds,
        }


def sync(
    clip: str | Path | Clip,
    network: L3Net | Run | str | Path,
    options: SyncOptions | None = None,
    device: str = "auto",
    progress: Progress = no_progress,
    **choices: Unpack[SyncChoices],
) -> SyncResult:
    """By how much the sound of a video is early or late, or why nobody can tell.

    `network`: trained with `train.negatives = "same-video"`; for any other one the result says so.
    A plain network is taken as it is. `choices` are fields of `SyncOptions`.

    Raises SourceError for a file that is no video with sound.
    """
    options = replace(options or SyncOptions(), **choices)
    if isinstance(network, (str, Path)):
        network = open_network(network, device)
    if isinstance(network, Run):
        reason = _untaught(network)
        if reason:
            return _cannot_tell(reason)
        network = network.l3net
    taken = clip if isinstance(clip, Clip) else _beginning(Path(clip), options.seconds)
    seconds = taken.duration_seconds
    least_seconds = _least_seconds()
    if seconds < least_seconds:
        return _cannot_tell(
            f"picture and sound share {seconds:.1f} s, and {least_seconds:g} s are needed", seconds
        )
    starts = np.arange(
        0, len(taken.waveform) - WINDOW_SAMPLES + 1, round(OFFSET_STEP_SECONDS * SAMPLE_RATE_HZ)
    )
    agreement = offset_agreement(
        _all_scores(network.eval(), taken, starts, progress),
        np.array(taken.frame_seconds),
        starts / SAMPLE_RATE_HZ + WINDOW_SECONDS / 2,
        min(options.max_offset_seconds, OFFSET_SHARE * seconds),
    )
    if agreement is None:
        return _cannot_tell("too few frames have sound at every offset", seconds)
    return _result(agreement, seconds)


def _untaught(run: Run) -> str:
    """Why a network cannot know when a sound belongs to a frame; empty where it can."""
    recipe = 'train one with train.negatives = "same-video"'
    if not run.step or not run.knows_split:
        return f"{run.name} is not known to be trained to tell moments of one video apart; {recipe}"
    negatives = run.config.train.negatives
    if negatives != "same-video":
        return (
            f"{run.name} was trained with train.negatives = {negatives!r}, so it compares what is "
            f"seen and heard, not when; {recipe}"
        )
    return ""


def _least_seconds() -> float:
    # A frame at the largest offset must still lie in the middle of seconds of the clip.
    return (LEAST_BLOCKS + WINDOW_SECONDS) / (1 - OFFSET_SHARE)


def _beginning(path: Path, seconds: float) -> Clip:
    """The first stretch of a video that has frames and sound."""
    size = path.stat().st_size if path.is_file() else 0
    file = Source(path.name, size, stop_seconds=seconds)
    options = PrepareOptions(clip_seconds=seconds, min_clip_seconds=min(1.0, seconds))
    clips = stream_isolated(cut, path, file, options, source=path, report=DecodeReport())
    with closing(clips):
        first: Clip = next(clips)
    return first


@torch.inference_mode()
def _all_scores(
    model: L3Net, clip: Clip, starts: Any, progress: Progress
) -> Float[np.ndarray, "frames sounds"]:
    """The log-odds of every frame with every second of sound."""
    comparison = fusion_comparison(model)
    device = next(model.parameters()).device
    parts = min(-(-len(starts) // SOUNDS_AT_ONCE), len(clip.frames))
    vision: list[Tensor] = []
    audio: list[Tensor] = []
    for number, (frames, sounds) in enumerate(
        zip(
            np.array_split(np.arange(len(clip.frames)), parts),
            np.array_split(starts, parts),
            strict=True,
        )
    ):
        vision_output = look(model, _squares(model, clip, frames.tolist()).to(device))
        waveforms = np.stack([clip.waveform[start : start + WINDOW_SAMPLES] for start in sounds])
        audio_output = listen(model, torch.from_numpy(waveforms).to(device))
        vision_rows, audio_rows = comparison.project(vision_output, audio_output)
        vision.append(vision_rows)
        audio.append(audio_rows)
        progress(number + 1, parts)
    return compare_in_blocks(comparison, torch.cat(vision), torch.cat(audio))


def _squares(model: L3Net, clip: Clip, frames: list[int]) -> Tensor:
    config = model.config
    squares = []
    for frame in frames:
        # The sound of the moment is not used; it may be any second of the clip.
        pixels = moment_at(clip, config, 0, frame).vision_input
        squares.append(fit_square(pixels, config.crop_pixels, config.frame_fit))
    return stack(squares)


def _result(agreement: OffsetAgreement, seconds: float) -> SyncResult:
    best = agreement.best_seconds
    reason = ""
    if agreement.chance > MOST_CHANCE:
        reason = (
            f"no offset stands out: {best:+.1f} s agrees best, and in {agreement.chance:.0%} of "
            "trials chance alone agrees as well somewhere"
        )
    elif agreement.confidence < LEAST_CONFIDENCE:
        reason = (
            f"several offsets agree about as well: {best:+.1f} s is the best in "
            f"{agreement.confidence:.0%} of the repeats with other parts of the clip"
        )
    return SyncResult(
        offset_seconds=None if reason else best,
        confidence=round(agreement.confidence, 3),
        chance=round(agreement.chance, 4),
        reason=reason,
        compared_seconds=round(seconds, 3),
        agreement=agreement,
    )


def _cannot_tell(reason: str, seconds: float = 0.0) -> SyncResult:
    return SyncResult(None, None, None, reason, round(seconds, 3))
