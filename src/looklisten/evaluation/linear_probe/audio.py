"""A labeled set of sounds -> vectors of windows of each sound (paper, section 4.1).

Also the log-mel description that networks are compared with. Knows files, windows and vectors:
neither classifiers nor folds.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looklisten.evaluation.linear_probe.features import FeatureExtractor
from looklisten.evaluation.linear_probe.vector_cache import (
    SAVE_SECONDS,
    VectorCache,
    cached_vectors,
)
from looklisten.evaluation.sets.labeled_set import LabeledFiles
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.front_ends import FrontEnd
from looklisten.media.isolation.readers import read_audio
from looklisten.media.spectrogram import WINDOW_SAMPLES, mel_filters
from looklisten.system.progress import Progress, no_progress

# A sound is in memory as a whole, and no set has longer ones.
MAX_HOURS = 1.0
"""Longer sounds are cut off there."""

LOG_MEL = FrontEnd(
    window_samples=2048,
    hop_samples=1024,
    fft_samples=2048,
    floor=1e-5,
    offset=0.0,
    scale=1.0,
    mel_bands=40,
    low_hz=0.0,
)
"""40 bands up to 24 kHz. The floor is about -100 dB of the magnitude of a full-scale sine."""


def repeat_to_length(
    samples: Float[np.ndarray, " samples"], length: int
) -> Float[np.ndarray, " length"]:
    """`samples` repeated up to `length`; longer sounds are returned unchanged."""
    return samples if len(samples) >= length else np.resize(samples, length)


def spaced_windows(
    samples: Float[np.ndarray, " samples"], count: int, clip_seconds: float
) -> Float[np.ndarray, "count window"]:
    """`count` windows of one second, equally spaced from the start to the end of a sound.

    A sound shorter than `clip_seconds` is repeated first.
    """
    # All sounds of a set are repeated to the same length, so that padding tells no class.
    clip_samples = round(clip_seconds * SAMPLE_RATE_HZ)
    repeated = repeat_to_length(samples, max(clip_samples, WINDOW_SAMPLES))
    last_start = len(repeated) - WINDOW_SAMPLES
    if count == 1:
        starts = np.array([last_start // 2])
    else:
        starts = np.linspace(0, last_start, count).round().astype(int)
    return np.stack([repeated[start : start + WINDOW_SAMPLES] for start in starts])


def log_mel_statistics(
    waveforms: Float[Tensor, "batch samples"],
) -> Float[Tensor, "batch features"]:
    """Mean and deviation over time of each of 40 log-mel bands."""
    frames = waveforms.float().unfold(-1, LOG_MEL.window_samples, LOG_MEL.hop_samples)
    window = torch.hann_window(LOG_MEL.window_samples)
    magnitudes = torch.fft.rfft(frames * window).abs()
    bands = magnitudes @ mel_filters(LOG_MEL)
    # The floor keeps digital silence finite.
    bands = bands.clamp_min(LOG_MEL.floor).log()
    return torch.cat([bands.mean(1), bands.std(1)], dim=1)


def log_mel_extractor() -> FeatureExtractor:
    """`log_mel_statistics` of whole clips: a description without any network."""
    return FeatureExtractor(
        name="spectrogram",
        encode=log_mel_statistics,
        width=2 * LOG_MEL.mel_bands,
        key="log-mel-40",
        whole_clips=True,
    )


def audio_vectors(
    files: LabeledFiles,
    extractor: FeatureExtractor,
    cache: Path | None = None,
    progress: Progress = no_progress,
    save_seconds: float = SAVE_SECONDS,
) -> VectorCache:
    """Vectors `[items, windows, width]` of each sound, or `[items, 1, width]` of whole clips."""
    labeled_set = files.labeled_set
    n_windows = 1 if extractor.whole_clips else labeled_set.windows

    def read(item: int) -> Tensor:
        samples = read_audio(files.root / files.paths[item], MAX_HOURS)
        if extractor.whole_clips:
            clip_samples = round(labeled_set.clip_seconds * SAMPLE_RATE_HZ)
            return torch.from_numpy(repeat_to_length(samples, clip_samples))[None]
        return torch.from_numpy(spaced_windows(samples, n_windows, labeled_set.clip_seconds))

    return cached_vectors(files, extractor, n_windows, read, cache, progress, save_seconds)


def clip_statistics(
    vectors: Float[np.ndarray, "items windows features"],
) -> Float[np.ndarray, "items one both"]:
    """One vector for each item: the mean of its windows' vectors, then their deviation."""
    means = vectors.mean(1, keepdims=True)
    deviations = vectors.std(1, keepdims=True)
    return np.concatenate([means, deviations], axis=2)
