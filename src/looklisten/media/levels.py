"""Whether a sound is silent. Samples in, decisions out."""

import numpy as np
from jaxtyping import Int16

from looklisten.media import SAMPLE_RATE_HZ

SILENT_DECIBELS = -60.0
"""A sound is silent when no tenth of a second is louder than this, relative to full scale."""

LARGE_OFFSET = 0.01
"""A larger offset, of full scale, makes codecs ring where the sound begins and ends."""


def is_silent(waveform: Int16[np.ndarray, " samples"]) -> bool:
    """Whether sound at 48 kHz is silent; less than a tenth of a second counts as silent."""
    samples_per_tenth = SAMPLE_RATE_HZ // 10
    whole_samples = len(waveform) // samples_per_tenth * samples_per_tenth
    tenths = waveform[:whole_samples].reshape(-1, samples_per_tenth).astype(np.float32) / 2.0**15
    # A constant offset (DC) cannot be heard, so the mean of each tenth is subtracted.
    offsets = tenths.mean(axis=1, keepdims=True)
    tenths -= offsets
    # The ringing at both ends of sound with an offset is no sound of the scene.
    if len(tenths) > 2 and abs(float(np.median(offsets))) > LARGE_OFFSET:
        tenths = tenths[1:-1]
    power = np.einsum("ts,ts->t", tenths, tenths) / samples_per_tenth
    return bool(power.max(initial=0.0) < 10 ** (SILENT_DECIBELS / 10))
