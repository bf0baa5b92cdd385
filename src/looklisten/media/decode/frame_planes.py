"""The planes of a decoded frame, and its size with square pixels. Knows PyAV; scales nothing."""

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from looklisten.media.decode.orientation import orientation_of
from looklisten.media.decode.records import Planes


def stored_planes(frame: av.VideoFrame) -> Planes:
    """Views of the three planes of a YUV frame: what is written there is in the frame."""
    stored: tuple[Any, ...] = frame.planes
    luma, blue, red = (_view(plane) for plane in stored)
    return luma, blue, red


def _view(plane: Any) -> NDArray[np.uint8]:
    # A line in memory may be longer than the plane is wide.
    lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return lines[: plane.height, : plane.width]


def square_pixel_size(stream: av.VideoStream, frame: av.VideoFrame) -> tuple[float, float]:
    """Width and height of a stored frame with square pixels, not larger than it is stored."""
    # FFmpeg's ratio is 0 where it is not known.
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1
    aspect = float(ratio) or 1.0
    if aspect >= 1:
        return frame.width, frame.height / aspect
    return frame.width * aspect, frame.height


def displayed_size(stream: av.VideoStream, frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height of a stored frame, upright, with square pixels."""
    width, height = square_pixel_size(stream, frame)
    if orientation_of(frame).swaps_sides:
        width, height = height, width
    return max(round(width), 1), max(round(height), 1)


def pad_to_even(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same plane, stored in memory of even height and width."""
    height, width = plane.shape
    if not (height % 2 or width % 2):
        return np.ascontiguousarray(plane)
    # libjpeg-turbo reads up to the even size, so that memory must exist and hold plausible values.
    padded = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
    return padded[:height, :width]
