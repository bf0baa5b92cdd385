"""One decoded frame of sound -> arrays of its samples, as the decoder stores them.

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
"""FFmpeg's sample formats. The name of a planar format, one array a channel, ends in p."""

MAX_PLANES = 8
"""PyAV finds the planes of a frame by a zero pointer behind the last one. FFmpeg writes none behind
more planes than this.
"""


class SamplePlanes:
    """Reads the samples of the frames of one stream."""

    def __init__(self) -> None:
        self._packing: av.AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None

    def read(self, frame: av.AudioFrame) -> tuple[list[NDArray[Any]], int]:
        """The samples of all channels: one array a channel, or one array with all channels in turn.

        The second value says how many items of an array make one sample: 1, or the number of
        channels. Raises ValueError, a sentence, for a frame that cannot be read.
        """
        channels = len(frame.layout.channels)
        name = frame.format.name
        if name.removesuffix("p") not in DTYPES:
            raise ValueError(f"sound in the sample format {name} cannot be read")
        if frame.format.is_planar and channels > MAX_PLANES:
            frame = self._packed(frame, channels)
        dtype = DTYPES[frame.format.name.removesuffix("p")]
        planar = frame.format.is_planar
        items = 1 if planar else channels
        # With eight planes PyAV lists a ninth, and to read that one ends the process: take only
        # those that there are.
        planes: tuple[Any, ...] = frame.planes[: channels if planar else 1]
        return [np.frombuffer(plane, dtype, frame.samples * items) for plane in planes], items

    def _packed(self, frame: av.AudioFrame, channels: int) -> av.AudioFrame:
        """The same samples with all channels in one plane; FFmpeg repacks them, so no plane is
        listed here.
        """
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        samples = frame.samples
        if kind != self._kind:
            self._packing, self._kind = av.AudioResampler(frame.format.packed), kind
        assert self._packing is not None
        try:
            repacked = self._packing.resample(frame)
        except (av.FFmpegError, ValueError) as error:
            self._kind = None
            raise ValueError(f"sound in {channels} planes cannot be read ({error})") from error
        if len(repacked) != 1 or repacked[0].samples != samples:
            self._kind = None
            raise ValueError(f"sound in {channels} planes cannot be read")
        return repacked[0]
