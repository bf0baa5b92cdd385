"""JPEG -> pixels -> the input of the vision tower: decoding, cropping, jitter of training."""

import math
from typing import Literal

import simplejpeg
import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor
from torch.nn import functional

BRIGHTNESS_WEIGHTS = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601).

Saturation is the distance of a color from its brightness.
"""


def decode_jpeg(
    data: bytes | memoryview, shorter_side_pixels: int
) -> UInt8[Tensor, "height width 3"]:
    """The image of a JPEG file, its shorter side resized to `shorter_side_pixels`."""
    # With a minimum size, the JPEG decoder halves or quarters the image and then decodes less.
    pixels = simplejpeg.decode_jpeg(
        data, "RGB", min_height=shorter_side_pixels, min_width=shorter_side_pixels
    )
    return resize(torch.from_numpy(pixels), shorter_side_pixels)


def resize(
    pixels: UInt8[Tensor, "height width 3"], shorter_side_pixels: int
) -> UInt8[Tensor, "new_height new_width 3"]:
    """Resize bilinearly with antialiasing; the aspect ratio stays."""
    height, width = pixels.shape[:2]
    scale = shorter_side_pixels / min(height, width)
    if scale == 1:
        return pixels
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    batch = pixels.permute(2, 0, 1)[None]
    resized = functional.interpolate(batch, size, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0)


def crop(
    pixels: UInt8[Tensor, "height width channels"], side_pixels: int, down: float, right: float
) -> UInt8[Tensor, "side side channels"]:
    """A square that is cut out of an image.

    down, right: where, as fractions (0..1) of the room that there is; 0.5, 0.5 is the center.
    """
    top = round((pixels.shape[0] - side_pixels) * down)
    left = round((pixels.shape[1] - side_pixels) * right)
    return pixels[top : top + side_pixels, left : left + side_pixels]


FrameFit = Literal["crop", "squeeze"]
"""How a frame becomes a square: its center is cut out, or all of it is squeezed."""


def fit_square(
    pixels: UInt8[Tensor, "height width channels"], side_pixels: int, fit: FrameFit
) -> UInt8[Tensor, "side side channels"]:
    """The square that a network gets of a frame where nothing is random."""
    if fit == "crop":
        return crop(pixels, side_pixels, 0.5, 0.5)
    size = (side_pixels, side_pixels)
    if pixels.shape[:2] == size:
        return pixels
    batch = pixels.permute(2, 0, 1)[None]
    squeezed = functional.interpolate(batch, size, mode="bilinear", antialias=True)
    return squeezed[0].permute(1, 2, 0)


def neighbor_frames(frame: int, frames: int, count: int) -> list[int]:
    """The numbers of `count` frames in a row around `frame`, in a clip of `frames`.

    Near an end of the clip `frame` is not in their middle. A shorter clip repeats its last frame.
    """
    first = min(max(frame - (count - 1) // 2, 0), max(frames - count, 0))
    return [min(number, frames - 1) for number in range(first, first + count)]


def stack(
    images: list[UInt8[Tensor, "height width channels"]],
) -> UInt8[Tensor, "batch channels height width"]:
    """Images of one size as a batch, channels-last in memory."""
    # Channels-last, as the networks are: faster on a CPU (docs/architecture.md).
    return torch.stack(images).permute(0, 3, 1, 2)


def frames_to_unit(
    frames: Integer[Tensor, "batch channels height width"]
    | Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """uint8 frames as floats in 0..1; floats are returned unchanged."""
    return frames if frames.is_floating_point() else frames.float() / 255


INPUT_RANGE = (-1.0, 1.0)
"""What the vision tower reads for black and for white."""


def frames_to_input(
    frames: Integer[Tensor, "batch channels height width"]
    | Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """The input of the vision tower, in `INPUT_RANGE`: frames as uint8, or as floats in 0..1."""
    low, high = INPUT_RANGE
    return frames_to_unit(frames) * (high - low) + low


def input_to_frames(
    inputs: Float[Tensor, "*any channels height width"],
) -> Float[Tensor, "*any channels height width"]:
    """Frames in 0..1 from the input of the vision tower."""
    low, high = INPUT_RANGE
    return (inputs - low) / (high - low)


MOST_PIXELS_TOGETHER = 8
"""So many pixels of a row of the batch are one row of a matrix product."""


def jitter(
    frames: UInt8[Tensor, "batch channels height width"],
    brightness: Float[Tensor, " batch"],
    saturation: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """Add `brightness` and multiply saturation by `saturation`, row by row (paper, section 3).

    The result is in `INPUT_RANGE`. Brightness counts from 0 to 1. Several frames that are stacked
    in the channels are changed alike.
    """
    # Everything but the limits is linear in red, green and blue, so one matrix for each row does
    # it: few passes over the pixels.
    low, high = INPUT_RANGE
    luma = frames.new_tensor(BRIGHTNESS_WEIGHTS, dtype=torch.float32)[:, None].expand(3, 3)
    identity = torch.eye(3, device=frames.device)
    factor = saturation[:, None, None]
    colors = (identity * factor + luma * (1 - factor)) * ((high - low) / 255)
    added = (brightness * (high - low) + low)[:, None, None]

    batch, channels, height, width = frames.shape
    # Some pixels at once, each with its own copy of the matrix on the diagonal: three times as fast
    # as a product for every pixel.
    together = math.gcd(height * width * channels // 3, MOST_PIXELS_TOGETHER)
    pixels = frames.permute(0, 2, 3, 1).reshape(batch, -1, 3 * together).float()
    matrices = torch.kron(torch.eye(together, device=frames.device), colors)
    changed = torch.baddbmm(added, pixels, matrices).clamp_(low, high)
    return changed.view(batch, height, width, channels).permute(0, 3, 1, 2)
