"""JPEG -> pixels -> the input of the vision tower: decoding, cropping, jitter of training."""

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


def jitter(
    frames: Float[Tensor, "batch channels height width"],
    brightness: Float[Tensor, " batch"],
    saturation: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """Add `brightness` and multiply saturation by `saturation`, row by row (paper, section 3).

    Several frames that are stacked in the channels are changed alike.
    """
    images = frames.reshape(len(frames), -1, 3, *frames.shape[2:])
    red, green, blue = BRIGHTNESS_WEIGHTS
    luma = (images[:, :, 0] * red + images[:, :, 1] * green + images[:, :, 2] * blue)[:, :, None]
    factor = saturation.view(-1, 1, 1, 1, 1)
    added = brightness.view(-1, 1, 1, 1, 1)
    changed: Tensor = (images * factor).add_(luma * (1 - factor) + added).clamp_(0, 1)
    return changed.flatten(1, 2)
