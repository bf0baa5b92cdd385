"""A picture file -> pixels as OpenL3 reads them. Knows no tensor, so that it starts fast in another
process.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.media.image_files import register_heif


def read_pixels(path: str) -> NDArray[np.uint8]:
    """`[height, width, 3]`, upright, of eight bits; of an animated file the first picture. Raises
    OpenL3Error.
    """
    register_heif()
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # sixteen bits of gray, which Pillow would clip
                upright = Image.fromarray(
                    (np.asarray(upright).clip(0, 2**16 - 1) // 257).astype(np.uint8)
                )
            return np.array(upright.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OpenL3Error(f"{path} cannot be read as a picture: {error}") from None
