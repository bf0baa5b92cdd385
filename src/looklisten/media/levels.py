"""How loud a sound is: where there is nothing to hear. Samples in, decisions out."""

import numpy as np
from jaxtyping import Int16

from looklisten.media import SAMPLE_RATE_HZ

SILENT_DECIBELS = -60.0
"""A sound is silent when no tenth of a second is louder than this, relative to full scale."""


def is_silent(waveform: Int16[np.ndarray, " samples"]) -> bool:
    """Whether there is nothing to hear in sound at 48 kHz; of less than a tenth of a second nothing is said, so it is silent.

    A constant offset (DC) cannot be heard, so the mean of each tenth is subtracted.
    """
    tenth = SAMPLE_RATE_HZ // 10
    tenths = waveform[: len(waveform) // tenth * tenth].reshape(-1, tenth).astype(np.float32) / 2.0**15
    tenths -= tenths.mean(axis=1, keepdims=True)
    power = np.einsum("ts,ts->t", tenths, tenths) / tenth
    return bool(power.max(initial=0.0) < 10 ** (SILENT_DECIBELS / 10))
