"""Frames of high dynamic range or wide gamut -> the range and colors of ordinary video.

The curve is fixed, so that a frame depends on nothing but itself. The brightness of white paper,
203 nits (ITU-R BT.2408), becomes white, and so does what is brighter.
"""

import functools
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

WHITE_NITS = 203.0
"""The brightness that becomes white: HDR reference white, ITU-R BT.2408."""

DISPLAY_GAMMA = 2.4
"""An ordinary display shows a signal to the power of this (ITU-R BT.1886).

The inverse makes the signal.
"""

PEAK_PQ_NITS = 10_000.0
PEAK_HLG_NITS = 1_000.0
HLG_SYSTEM_GAMMA = 1.2
"""The system gamma of a display with a peak of 1,000 nits (ITU-R BT.2100)."""

HLG_LUMINANCE = (0.2627, 0.6780, 0.0593)
"""Weights of red, green and blue in luminance (ITU-R BT.2100)."""

PQ = 16
HLG = 18
"""Transfer characteristics of ITU-T H.273: SMPTE ST 2084 and ARIB STD-B67."""

UNSPECIFIED = 2
WIDE_PRIMARIES = 9
P3_D65_PRIMARIES = 12
"""ITU-R BT.2020 and P3 with white D65, in ITU-T H.273."""

TO_BT709 = {
    WIDE_PRIMARIES: (
        (1.6605, -0.5876, -0.0728),
        (-0.1246, 1.1329, -0.0083),
        (-0.0182, -0.1006, 1.1187),
    ),
    P3_D65_PRIMARIES: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
}
"""Matrices from linear red, green and blue of other primaries to those of BT.709."""

SIGNAL_LEVELS = 2**16
"""How many values a signal of 16 bits has; the curves are tables over them."""


def is_high_range(codec: Any) -> bool:
    """Whether a decoder (`av.VideoCodecContext`) gives frames that are stored as PQ or HLG."""
    return codec.color_trc in (PQ, HLG)


def needs_mapping(codec: Any) -> bool:
    """Whether the colors of a decoder's frames are not those of ordinary video."""
    return is_high_range(codec) or _primaries(codec) == WIDE_PRIMARIES


def _primaries(codec: Any) -> int:
    primaries = int(codec.color_primaries)
    # ITU-R BT.2100, which defines PQ and HLG for video, has the primaries of BT.2020.
    if primaries == UNSPECIFIED and is_high_range(codec):
        return WIDE_PRIMARIES
    return primaries


class RangeMapper:
    """Maps the frames of one decoder."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec
        self._scaler = VideoReformatter()

    def mapped(self, frame: Any, width: int, height: int, interpolation: str) -> Any:
        """A decoded frame, scaled to a size, as RGB with eight bits and primaries of BT.709."""
        # A stream of high range that does not name its matrix has that of BT.2020.
        source = Colorspace.BT2020 if frame.colorspace == UNSPECIFIED else None
        deep = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format="rgb48le",
            src_colorspace=source,
            dst_color_range="JPEG",
            interpolation=interpolation,
            threads=1,
        )
        plane: Any = deep.planes[0]
        rows = np.frombuffer(plane, "<u2").reshape(-1, plane.line_size // 2)
        pixels = rows[:height, : 3 * width].reshape(height, width, 3)
        rgb = standard_range(pixels, self._codec.color_trc, _primaries(self._codec))
        return av.VideoFrame.from_ndarray(rgb, "rgb24")


def standard_range(
    pixels: NDArray[np.uint16], transfer: int, primaries: int
) -> UInt8[np.ndarray, "height width 3"]:
    """RGB `[height, width, 3]` of 16 bits -> RGB of 8 bits for an ordinary display.

    transfer, primaries: numbers of ITU-T H.273.
    """
    linear = linear_light(transfer)[pixels]
    if transfer == HLG:
        # HLG is light of the scene. A display shows bright parts brighter still.
        luminance = linear @ np.array(HLG_LUMINANCE, np.float32)
        gain = PEAK_HLG_NITS / WHITE_NITS * luminance ** np.float32(HLG_SYSTEM_GAMMA - 1)
        linear = linear * gain[..., None]
    if primaries in TO_BT709:
        linear = linear @ np.array(TO_BT709[primaries], np.float32).T
    levels = np.rint(linear.clip(0, 1) * (SIGNAL_LEVELS - 1)).astype(np.uint16)
    signal: NDArray[np.uint8] = _display_signal()[levels]
    return signal


@functools.cache
def linear_light(transfer: int) -> Float32[np.ndarray, " levels"]:
    """The light of each of 2^16 values of a signal, where 1 is white.

    For HLG, 1 is the brightest light that the camera records.
    """
    signal = np.linspace(0, 1, SIGNAL_LEVELS)
    if transfer == PQ:
        return (_pq_nits(signal) / WHITE_NITS).astype(np.float32)
    if transfer == HLG:
        return _hlg_scene_light(signal).astype(np.float32)
    light: NDArray[np.float32] = (signal**DISPLAY_GAMMA).astype(np.float32)
    return light


def _pq_nits(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """SMPTE ST 2084, equation 4.1."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = signal ** (1 / m2)
    ratio = np.maximum(root - c1, 0) / (c2 - c3 * root)
    nits: NDArray[np.float64] = PEAK_PQ_NITS * ratio ** (1 / m1)
    return nits


def _hlg_scene_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of the curve of ARIB STD-B67, as ITU-R BT.2100 writes it."""
    a = 0.17883277
    b = 1 - 4 * a
    c = 0.5 - a * np.log(4 * a)
    dark = signal**2 / 3
    bright = (np.exp((signal - c) / a) + b) / 12
    return np.where(signal <= 0.5, dark, bright)


@functools.cache
def _display_signal() -> UInt8[np.ndarray, " levels"]:
    """The eight-bit signal that makes an ordinary display show each of 2^16 steps of light."""
    light = np.linspace(0, 1, SIGNAL_LEVELS)
    signal: NDArray[np.uint8] = np.rint(255 * light ** (1 / DISPLAY_GAMMA)).astype(np.uint8)
    return signal
