"""Reads the pixels of an image file as OpenL3 does.

Imports no PyTorch, so that it starts fast in the decoder's process.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.media.image_files import register_heif


def read_pixels(path: str) -> NDArray[np.uint8]:
    """The upright image as `[height, width, 3]`; of an animation the first image.

    Raises OpenL3Error when the file cannot be read.
    """
    register_heif()
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                # Gray of 16 bits. Pillow's own conversion would clip it to 8 bits.
                gray = np.asarray(upright).clip(0, 2**16 - 1) // 257
                upright = Image.fromarray(gray.astype(np.uint8))
            return np.array(upright.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OpenL3Error(f"{path} cannot be read as an image: {error}") from None
