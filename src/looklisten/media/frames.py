"""JPEG -> pixels -> what the vision tower sees: decoding to size, cropping, and the jitter of
training.
"""

import simplejpeg
import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor
from torch.nn import functional

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601); saturation is the distance from it."""


def decode_jpeg(
    data: bytes | memoryview, shorter_side_pixels: int
) -> UInt8[Tensor, "height width 3"]:
    """A picture resized so that its shorter side is `shorter_side_pixels`.

    Halving, quartering and so on are done inside the JPEG decoder, which then decodes less.
    """
    pixels = simplejpeg.decode_jpeg(
        data, "RGB", min_height=shorter_side_pixels, min_width=shorter_side_pixels
    )
    return resize(torch.from_numpy(pixels), shorter_side_pixels)


def resize(
    pixels: UInt8[Tensor, "height width 3"], shorter_side_pixels: int
) -> UInt8[Tensor, "new_height new_width 3"]:
    """Bilinear with antialiasing, the aspect kept."""
    height, width = pixels.shape[:2]
    scale = shorter_side_pixels / min(height, width)
    if scale == 1:
        return pixels
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    batch = pixels.permute(2, 0, 1)[None]
    return functional.interpolate(batch, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)


def crop(
    pixels: UInt8[Tensor, "height width channels"], side_pixels: int, down: float, right: float
) -> UInt8[Tensor, "side side channels"]:
    """A square cut out at the fractions `down` and `right` (0..1) of the room there is; 0.5, 0.5 is
    the centre.
    """
    top = round((pixels.shape[0] - side_pixels) * down)
    left = round((pixels.shape[1] - side_pixels) * right)
    return pixels[top : top + side_pixels, left : left + side_pixels]


def stack(
    pictures: list[UInt8[Tensor, "height width channels"]],
) -> UInt8[Tensor, "batch channels height width"]:
    """Pictures of one size as a batch, channels-last in memory."""
    return torch.stack(pictures).permute(0, 3, 1, 2)


def frames_to_unit(
    frames: Integer[Tensor, "batch channels height width"]
    | Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """uint8 to 0..1; floats are 0..1 already."""
    return frames if frames.is_floating_point() else frames.float() / 255


def jitter(
    frames: Float[Tensor, "batch channels height width"],
    brightness: Float[Tensor, " batch"],
    saturation: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """Add `brightness` and multiply saturation by `saturation`, each its own number for each row
    (paper, section 3).

    Several pictures side by side in the channels are changed alike.
    """
    pictures = frames.reshape(len(frames), -1, 3, *frames.shape[2:])
    luma = (
        pictures[:, :, 0] * LUMA_WEIGHTS[0]
        + pictures[:, :, 1] * LUMA_WEIGHTS[1]
        + pictures[:, :, 2] * LUMA_WEIGHTS[2]
    )[:, :, None]
    kept, added = saturation.view(-1, 1, 1, 1, 1), brightness.view(-1, 1, 1, 1, 1)
    changed: Tensor = (pictures * kept).add_(luma * (1 - kept) + added).clamp_(0, 1)
    return changed.flatten(1, 2)
