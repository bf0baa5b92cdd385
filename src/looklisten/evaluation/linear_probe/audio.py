"""A labelled set of sounds -> vectors of its sub-clips (paper, section 4.1), and the plain
spectrogram that networks have to beat.

Knows files, windows and vectors: neither classifiers nor folds.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looklisten.evaluation.linear_probe.features import Extractor
from looklisten.evaluation.linear_probe.vector_cache import Store, stored_vectors
from looklisten.evaluation.sets.labeled_set import LabeledFiles
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.isolation.readers import read_audio
from looklisten.media.spectrogram import WINDOW_SAMPLES, FrontEnd, mel_filters
from looklisten.system.progress import Progress, no_progress

MAX_HOURS = 1.0
"""A longer sound is cut off there."""

FLOOR = FrontEnd(
    window_samples=2048,
    hop_samples=1024,
    fft_samples=2048,
    floor=1e-5,
    offset=0.0,
    scale=1.0,
    mel_bands=40,
    low_hz=0.0,
)
"""The log-mel description: 40 bands up to 24 kHz; the floor is -100 dB of a full-scale sine's
magnitude, give or take the window.
"""


def loop(samples: Float[np.ndarray, " samples"], length: int) -> Float[np.ndarray, " length"]:
    """`samples` repeated up to `length`; longer ones are as they are."""
    return samples if len(samples) >= length else np.resize(samples, length)


def sub_clips(
    samples: Float[np.ndarray, " samples"], count: int, clip_seconds: float
) -> Float[np.ndarray, "count window"]:
    """`count` windows of a second, equally spaced from the first to the last second of a sound,
    which is looped to `clip_seconds`.
    """
    whole = loop(samples, max(round(clip_seconds * SAMPLE_RATE_HZ), WINDOW_SAMPLES))
    room = len(whole) - WINDOW_SAMPLES
    starts = np.linspace(0, room, count).round().astype(int) if count > 1 else [room // 2]
    return np.stack([whole[start : start + WINDOW_SAMPLES] for start in starts])


def log_mel(waveforms: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch features"]:
    """Means and deviations over time of 40 log-mel bands: what a sound is like with no network at
    all.
    """
    frames = waveforms.float().unfold(
        -1, FLOOR.window_samples, FLOOR.hop_samples
    ) * torch.hann_window(FLOOR.window_samples)
    bands = (torch.fft.rfft(frames).abs() @ mel_filters(FLOOR)).clamp_min(FLOOR.floor).log()
    return torch.cat([bands.mean(1), bands.std(1)], dim=1)


def spectrogram_extractor() -> Extractor:
    """`log_mel` of whole clips."""
    return Extractor("spectrogram", log_mel, 2 * FLOOR.mel_bands, "log-mel-40", whole=True)


def sound_vectors(
    benchmark: LabeledFiles,
    extractor: Extractor,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> Store:
    """Vectors of every sound's sub-clips `[items, windows, width]`, or of whole clips `[items, 1,
    width]` where `extractor` wants them.
    """
    rows = 1 if extractor.whole else benchmark.labeled_set.windows

    def read(item: int) -> Tensor:
        sound = read_audio(benchmark.root / benchmark.paths[item], MAX_HOURS)
        if extractor.whole:
            return torch.from_numpy(
                loop(sound, round(benchmark.labeled_set.clip_seconds * SAMPLE_RATE_HZ))
            )[None]
        return torch.from_numpy(sub_clips(sound, rows, benchmark.labeled_set.clip_seconds))

    return stored_vectors(benchmark, extractor, rows, read, cache, progress)


def clip_statistics(
    vectors: Float[np.ndarray, "items windows features"],
) -> Float[np.ndarray, "items one both"]:
    """Of each item one vector: the means of its sub-clips' vectors, then their deviations."""
    return np.concatenate([vectors.mean(1, keepdims=True), vectors.std(1, keepdims=True)], axis=2)
