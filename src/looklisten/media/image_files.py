"""A picture file -> pixels as they are decoded: upright RGB, whatever its format. Knows no tensor,
so that it starts fast.
"""

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from looklisten.errors import SourceError

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM", "JPEG2000", "HEIF")
"""What is tried, where this Pillow has it. Pillow would take some videos for pictures, too."""

HEIF_PLUGIN = "pillow_heif"
"""The package that reads HEIC photographs, which Pillow alone does not; used where it is installed."""

MAX_ASPECT = 8
"""Of a picture that is longer than so many times its shorter side, only the middle is resized: the
crop sees no more.
"""


def register_heif() -> bool:
    """Let Pillow read HEIC photographs. False when the package for it is not installed."""
    try:
        plugin = importlib.import_module(HEIF_PLUGIN)
    except ImportError:
        return False
    if "HEIF" not in Image.OPEN:
        plugin.register_heif_opener()
    return True


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    Image.init()
    register_heif()
    with warnings.catch_warnings():
        # Pillow warns of large pictures and refuses those of twice that size; a large one is right
        # here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            yield image


def begins_as_image(path: str | Path) -> bool:
    """Whether a file begins as a picture does; an animated one is a picture, of which the first is
    taken.
    """
    try:
        with _opened(path):
            return True
    except Image.DecompressionBombError:
        return True
    except (UnidentifiedImageError, OSError, ValueError):
        return False


def decode_image(path: str | Path, shorter_side_pixels: int) -> NDArray[np.uint8]:
    """The picture as `[height, width, 3]`, turned as its EXIF says, its shorter side at least
    `shorter_side_pixels` if it was so large.

    Sixteen bits a channel become eight, CMYK and palettes become RGB, what is transparent lies on
    white; of a very long picture only the middle is taken. Raises SourceError, one sentence, when
    it cannot be read.
    """
    try:
        with _opened(path) as image:
            # A JPEG decoder halves, quarters and so on by itself and then decodes less.
            image.draft(None, (shorter_side_pixels, shorter_side_pixels))
            return crop_middle(to_rgb(ImageOps.exif_transpose(image)))
    except Image.DecompressionBombError:
        raise SourceError(
            f"{path} has more pixels than any photograph and may be made to fill the memory; scale it down first"
        ) from None
    except (OSError, ValueError, SyntaxError) as error:
        raise SourceError(f"{path} cannot be read as an image: {error}") from None


def crop_middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of a picture that is longer than `MAX_ASPECT` times its shorter side; others as
    they are.
    """
    height, width = pixels.shape[:2]
    most = MAX_ASPECT * min(height, width)
    top, left = max(height - most, 0) // 2, max(width - most, 0) // 2
    return pixels[top : top + most, left : left + most]


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an open picture as eight bits of red, green and blue. Raises ValueError when it
    has no known white.
    """
    if image.mode.startswith("I"):  # sixteen bits of grey, which Pillow would clip at 255
        grey: NDArray[Any] = np.asarray(image)
        image = Image.fromarray((np.clip(grey, 0, 2**16 - 1) >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError(
            "its values are floating-point, without a known white; save it with 8 or 16 bits"
        )
    if image.mode in ("RGBa", "La"):  # colors times opacity, which Pillow turns into no other mode
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.array(image.convert("RGB"))
