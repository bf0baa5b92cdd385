"""A picture file -> pixels: upright RGB, whatever its format. Knows no video and no network."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from looklisten.errors import SourceError
from looklisten.media.frames import resize

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM", "JPEG2000")
"""What is tried, where this Pillow has it. Pillow would take some videos for pictures, too."""

MAX_ASPECT = 8
"""Of a picture that is longer than so many times its shorter side, only the middle is resized: the crop sees no more."""


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    Image.init()
    with warnings.catch_warnings():
        # Pillow warns of large pictures and refuses those of twice that size; a large one is right here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            yield image


def is_picture(path: str | Path) -> bool:
    """Whether a file begins as a picture does; an animated one is a picture, of which the first is taken."""
    try:
        with _opened(path):
            return True
    except Image.DecompressionBombError:
        return True
    except (UnidentifiedImageError, OSError, ValueError):
        return False


def read_picture(path: str | Path, shorter_side_pixels: int) -> UInt8[Tensor, "height width 3"]:
    """The picture, turned as its EXIF says, its shorter side resized to `shorter_side_pixels`.

    Sixteen bits a channel become eight, CMYK and palettes become RGB, what is transparent lies on white. Raises SourceError, one
    sentence, when it cannot be read.
    """
    try:
        with _opened(path) as image:
            # A JPEG decoder halves, quarters and so on by itself and then decodes less.
            image.draft(None, (shorter_side_pixels, shorter_side_pixels))
            pixels = _rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError:
        raise SourceError(f"{path} has more pixels than any photograph and may be made to fill the memory; scale it down first") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise SourceError(f"{path} cannot be read as a picture: {error}") from None
    return fitted(torch.from_numpy(pixels), shorter_side_pixels)


def picture_of(image: Image.Image, shorter_side_pixels: int) -> UInt8[Tensor, "height width 3"]:
    """A picture that Pillow has in memory, treated as a picture file is. Raises SourceError when it cannot be shown as RGB."""
    try:
        pixels = _rgb(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError) as error:
        raise SourceError(f"this picture of mode {image.mode} cannot be read: {error}") from None
    if not pixels.size:
        raise SourceError(f"this picture of {image.width} x {image.height} pixels is empty")
    return fitted(torch.from_numpy(pixels), shorter_side_pixels)


def fitted(pixels: UInt8[Tensor, "height width 3"], shorter_side_pixels: int) -> UInt8[Tensor, "new_height new_width 3"]:
    """The shorter side resized; of a very long picture only the middle."""
    most = MAX_ASPECT * min(pixels.shape[:2])
    for axis in (0, 1):
        length = pixels.shape[axis]
        if length > most:
            pixels = pixels.narrow(axis, (length - most) // 2, most)
    return resize(pixels, shorter_side_pixels)


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # sixteen bits of grey, which Pillow would clip at 255
        grey: NDArray[Any] = np.asarray(image)
        image = Image.fromarray((np.clip(grey, 0, 2**16 - 1) >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its values are floating-point, without a known white; save it with 8 or 16 bits")
    if image.mode in ("RGBa", "La"):  # colors times opacity, which Pillow turns into no other mode
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.array(image.convert("RGB"))
