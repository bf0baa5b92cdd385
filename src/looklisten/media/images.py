"""An image -> pixels of the size that a network takes. Knows no video and no network."""

from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from looklisten.errors import SourceError
from looklisten.media.frames import resize
from looklisten.media.image_files import MAX_ASPECT, to_rgb
from looklisten.media.isolation.readers import read_image_pixels


def read_image(path: str | Path, shorter_side_pixels: int) -> UInt8[Tensor, "height width 3"]:
    """An image file, upright, its shorter side resized to `shorter_side_pixels`.

    Another process decodes it. Raises SourceError when it cannot be read.
    """
    pixels = torch.from_numpy(read_image_pixels(path, shorter_side_pixels))
    return fit_image(pixels, shorter_side_pixels)


def image_from_pillow(
    image: Image.Image, shorter_side_pixels: int
) -> UInt8[Tensor, "height width 3"]:
    """An image that Pillow has in memory, treated as an image file is.

    Raises SourceError when it cannot be converted to RGB.
    """
    try:
        pixels = to_rgb(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError) as error:
        raise SourceError(f"this image of mode {image.mode} cannot be read: {error}") from None
    if not pixels.size:
        raise SourceError(f"this image of {image.width} x {image.height} pixels is empty")
    return fit_image(torch.from_numpy(pixels), shorter_side_pixels)


def fit_image(
    pixels: UInt8[Tensor, "height width 3"], shorter_side_pixels: int
) -> UInt8[Tensor, "new_height new_width 3"]:
    """The image with its shorter side resized; of a very long image only the middle."""
    longest = MAX_ASPECT * min(pixels.shape[:2])
    for axis in (0, 1):
        length = pixels.shape[axis]
        if length > longest:
            pixels = pixels.narrow(axis, (length - longest) // 2, longest)
    return resize(pixels, shorter_side_pixels)
