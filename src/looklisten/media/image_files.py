"""An image file -> its pixels, upright and as RGB, whatever its format.

Imports no PyTorch, so that a decoder process starts fast.
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
"""The formats that are tried, as far as this Pillow has them.

Pillow would also take some videos for images.
"""

HEIF_PLUGIN = "pillow_heif"
"""The package that reads HEIC photographs, which Pillow alone cannot. Used where installed."""

MAX_ASPECT = 8
"""Of an image longer than so many times its shorter side, only the middle is kept.

The network sees a center crop, so nothing else of it would be used.
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
    formats = [name for name in FORMATS if name in Image.OPEN]
    with warnings.catch_warnings():
        # Pillow warns about large images and refuses those of twice that size. Large photographs
        # are normal here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path, formats=formats) as image:
            yield image


def image_size(path: str | Path) -> tuple[int, int] | None:
    """The width and the height that an image file declares; None for a file that is no image.

    Nothing is decoded. Raises DecompressionBombError of Pillow for far too many pixels.
    """
    try:
        with _opened(path) as image:
            return image.size
    except Image.DecompressionBombError:
        raise
    except (UnidentifiedImageError, OSError, ValueError):
        return None


def begins_as_image(path: str | Path) -> bool:
    """Whether a file begins as an image does; an animated image counts as one."""
    try:
        with _opened(path):
            return True
    except Image.DecompressionBombError:
        # It is an image, though one that `decode_image` refuses with a sentence.
        return True
    except (UnidentifiedImageError, OSError, ValueError):
        return False


def decode_image(path: str | Path, shorter_side_pixels: int) -> NDArray[np.uint8]:
    """The pixels of an image, `[height, width, 3]`, turned as its EXIF data says.

    The image may come smaller than it is stored, but its shorter side has `shorter_side_pixels` or
    more, if it was so large. Of an animated image the first frame is taken, of a very long one the
    middle. Raises SourceError when the file cannot be read.
    """
    try:
        with _opened(path) as image:
            # A JPEG decoder halves or quarters the image by itself and then decodes less.
            image.draft(None, (shorter_side_pixels, shorter_side_pixels))
            return crop_middle(to_rgb(ImageOps.exif_transpose(image)))
    except Image.DecompressionBombError:
        raise SourceError(
            f"{path} has more pixels than any photograph and may be made to fill the memory; "
            "scale it down first"
        ) from None
    except (OSError, ValueError, SyntaxError) as error:
        # Pillow raises SyntaxError for damaged PNG files.
        raise SourceError(f"{path} cannot be read as an image: {error}") from None


def crop_middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of an image longer than MAX_ASPECT times its shorter side; others unchanged."""
    height, width = pixels.shape[:2]
    longest = MAX_ASPECT * min(height, width)
    top = max(height - longest, 0) // 2
    left = max(width - longest, 0) // 2
    return pixels[top : top + longest, left : left + longest]


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an open image as eight bits of red, green and blue.

    Transparent parts lie on white. Raises ValueError when the image has no known white.
    """
    if image.mode.startswith("I"):
        # Sixteen bits of gray, which Pillow would clip at 255.
        gray: NDArray[Any] = np.asarray(image)
        image = Image.fromarray((np.clip(gray, 0, 2**16 - 1) >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError(
            "its values are floating-point, without a known white; save it with 8 or 16 bits"
        )
    # Colors times opacity. Pillow converts these modes to no other ones.
    if image.mode == "RGBa":
        image = image.convert("RGBA")
    elif image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        foreground = image.convert("RGBA")
        white = Image.new("RGBA", foreground.size, "white")
        image = Image.alpha_composite(white, foreground)
    return np.array(image.convert("RGB"))
