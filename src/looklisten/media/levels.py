"""How loud a sound is: where there is nothing to hear. Samples in, decisions out."""

import numpy as np
from jaxtyping import Int16

from looklisten.media import SAMPLE_RATE_HZ

SILENT_DECIBELS = -60.0
"""A sound is silent when no tenth of a second is louder than this, relative to full scale."""

LARGE_OFFSET = 0.01
"""An offset of more than this, of full scale, rings audibly where it begins and ends."""


def is_silent(waveform: Int16[np.ndarray, " samples"]) -> bool:
    """Whether there is nothing to hear in sound at 48 kHz; of less than a tenth of a second nothing
    is said, so it is silent.

    A constant offset (DC) cannot be heard, so the mean of each tenth is subtracted. Where sound
    with an offset begins and ends, resamplers and codecs ring; its first and last tenth are not
    looked at.
    """
    tenth = SAMPLE_RATE_HZ // 10
    tenths = (
        waveform[: len(waveform) // tenth * tenth].reshape(-1, tenth).astype(np.float32) / 2.0**15
    )
    offsets = tenths.mean(axis=1, keepdims=True)
    tenths -= offsets
    if len(tenths) > 2 and abs(float(np.median(offsets))) > LARGE_OFFSET:
        tenths = tenths[1:-1]
    power = np.einsum("ts,ts->t", tenths, tenths) / tenth
    return bool(power.max(initial=0.0) < 10 ** (SILENT_DECIBELS / 10))
