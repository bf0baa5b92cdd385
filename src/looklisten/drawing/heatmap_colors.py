"""A heat map in color over an image: dark where the map is low, bright where it is high.

Still images and videos use the same colors. Knows arrays, no file and no network.
"""

from functools import cache

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from looklisten.inference.localization.enlarge import enlarge_map
from looklisten.media.decode.records import Planes

FloatArray = NDArray[np.float32]

RgbImage = FloatArray
"""`[height, width, 3]` in 0..1."""

HEAT_COLORS = colormaps["inferno"]

LOWEST_COLOR = 0.3
"""Position in `HEAT_COLORS` of a map's 0. The colors below are so dark that they look like shadow.
"""

BASE_BRIGHTNESS = 0.72
"""Factor of the image where the map is 0. The image is darker, so that bright colors stand out."""

HIGHEST_OPACITY = 0.85
"""Share of the image that the map's color replaces where the map is 1."""

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
"""Share of red, green and blue in luma: ITU-R BT.601."""

RED, GREEN, BLUE = 0, 1, 2

# Limited range, as in H.264: luma 16..235, chroma 16..240 around 128.
LUMA_ZERO, LUMA_SPAN = 16, 219
CHROMA_ZERO, CHROMA_SPAN = 128, 224


def overlay_image(image: RgbImage, heat: FloatArray) -> RgbImage:
    """`image` with `heat` in color over it; `heat` is a map in 0..1 of any size."""
    intensity = _intensity(enlarge_map(heat, *image.shape[:2]))
    image_factor, color = _mixture(intensity)
    mixed: RgbImage = image * image_factor[..., None] + color
    return np.clip(mixed, 0, 1)


def overlay_planes(image: Planes, heat: FloatArray, out: Planes) -> None:
    """The same for a frame of a video: writes into the planes `out`.

    Planes are luma and, at half the resolution, two of chroma, limited range.
    """
    # Every frame of a video comes through here, so colors are looked up in tables: the high byte
    # of an index is the intensity, the low byte the pixel.
    intensity = _intensity(enlarge_map(heat, *image[0].shape))
    luma_index = np.rint(intensity * 255).astype(np.uint16) << 8
    chroma_index = luma_index[::2, ::2]
    indices = (luma_index, chroma_index, chroma_index)
    for plane, out_plane, table, index in zip(image, out, _tables(), indices, strict=True):
        out_plane[:] = table[index | plane]


def rgb_to_planes(image: RgbImage) -> Planes:
    """Red, green and blue as luma and chroma, limited range, all at the full resolution."""
    luma, blue, red = _luma_and_chroma(image)
    return (
        _to_bytes(LUMA_ZERO + LUMA_SPAN * luma),
        _to_bytes(CHROMA_ZERO + CHROMA_SPAN * blue),
        _to_bytes(CHROMA_ZERO + CHROMA_SPAN * red),
    )


def _luma_and_chroma(
    colors: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Luma in 0..1 and the two chroma values, blue and red, in -0.5..0.5 (ITU-R BT.601)."""
    luma = colors @ LUMA_WEIGHTS
    return luma, _chroma(colors, luma, BLUE), _chroma(colors, luma, RED)


def _chroma(colors: FloatArray, luma: FloatArray, channel: int) -> FloatArray:
    highest_difference = 1 - LUMA_WEIGHTS[channel]
    difference = colors[..., channel] - luma
    chroma: FloatArray = difference / (2 * highest_difference)
    return chroma


def _to_bytes(values: FloatArray) -> NDArray[np.uint8]:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _intensity(heat: FloatArray) -> FloatArray:
    # The square root makes medium values easy to see.
    root: FloatArray = np.sqrt(heat.clip(0, 1))
    return root


def _mixture(intensity: FloatArray) -> tuple[FloatArray, RgbImage]:
    """(factor of the image, color to add) for each intensity."""
    opacity = HIGHEST_OPACITY * intensity**1.5
    color_position = LOWEST_COLOR + (1 - LOWEST_COLOR) * intensity
    color = HEAT_COLORS(color_position)[..., :3].astype(np.float32)
    return BASE_BRIGHTNESS * (1 - opacity), color * opacity[..., None]


@cache
def _tables() -> Planes:
    """For each plane a table from 256 x intensity + byte to the mixed byte."""
    # Mixing is linear in red, green and blue, so it is linear in each plane too.
    intensities = np.linspace(0, 1, 256, dtype=np.float32)
    image_factor, color = _mixture(intensities)
    luma, blue, red = _luma_and_chroma(color)
    return (
        _table(image_factor, luma, LUMA_ZERO, LUMA_SPAN),
        _table(image_factor, blue, CHROMA_ZERO, CHROMA_SPAN),
        _table(image_factor, red, CHROMA_ZERO, CHROMA_SPAN),
    )


def _table(image_factor: FloatArray, added: FloatArray, zero: int, span: int) -> NDArray[np.uint8]:
    byte = np.arange(256, dtype=np.float32)
    from_image = (byte - zero) * image_factor[:, None]
    from_color = span * added[:, None]
    return _to_bytes(zero + from_image + from_color).ravel()
