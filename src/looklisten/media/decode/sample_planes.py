"""A decoded frame of sound -> arrays of its samples, in the type that the decoder uses.

Knows PyAV; no time, no mixing.
"""

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

DTYPES = {
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
    "flt": np.float32,
    "dbl": np.float64,
}
"""FFmpeg's sample formats. The name of a planar format (one array per channel) ends in p."""

MAX_PLANES = 8
"""PyAV finds the end of a frame's planes by a null pointer.

FFmpeg writes no null pointer behind more planes than this.
"""


class SamplePlanes:
    """Reads the samples of the frames of one stream."""

    def __init__(self) -> None:
        self._packer: av.AudioResampler | None = None
        self._layout: tuple[str, str, int] | None = None

    def read(self, frame: av.AudioFrame) -> tuple[list[NDArray[Any]], int]:
        """The arrays of a frame, and how many items of an array make one sample.

        There is one array per channel with one item a sample, or a single array with the channels
        interleaved. Raises ValueError for a frame that cannot be read.
        """
        channels = len(frame.layout.channels)
        name = frame.format.name
        if name.removesuffix("p") not in DTYPES:
            raise ValueError(f"sound in the sample format {name} cannot be read")
        if frame.format.is_planar and channels > MAX_PLANES:
            frame = self._interleaved(frame, channels)
        dtype = DTYPES[frame.format.name.removesuffix("p")]
        is_planar = frame.format.is_planar
        items_per_sample = 1 if is_planar else channels
        # With eight planes PyAV lists a ninth, and reading that one ends the process.
        planes: tuple[Any, ...] = frame.planes[: channels if is_planar else 1]
        items = frame.samples * items_per_sample
        return [np.frombuffer(plane, dtype, items) for plane in planes], items_per_sample

    def _interleaved(self, frame: av.AudioFrame, channels: int) -> av.AudioFrame:
        """The same samples with all channels in one plane."""
        # FFmpeg repacks them, so that no plane has to be listed here.
        layout = (frame.format.name, frame.layout.name, frame.sample_rate)
        samples = frame.samples
        if layout != self._layout:
            self._packer = av.AudioResampler(frame.format.packed)
            self._layout = layout
        assert self._packer is not None
        try:
            repacked = self._packer.resample(frame)
        except (av.FFmpegError, ValueError) as error:
            self._layout = None
            raise ValueError(f"sound in {channels} planes cannot be read ({error})") from error
        if len(repacked) != 1 or repacked[0].samples != samples:
            # The packer may still hold samples, so the next frame gets a new one.
            self._layout = None
            raise ValueError(f"sound in {channels} planes cannot be read")
        return repacked[0]
