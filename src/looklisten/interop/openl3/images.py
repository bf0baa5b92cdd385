"""Embeds arrays of images as OpenL3 does: squares of 224 pixels, then vectors. Knows no file.

The values of the squares depend on the size of the image, as in OpenL3 (openl3/core.py,
`_preprocess_image_batch`; docs/openl3.md). An image of exactly 224 x 224 pixels is scaled to -1..1,
a larger one that is resized to 0..1. An image that is only cropped is divided by its own maximum.
"""

import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, SupportsFloat, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from looklisten.interop.openl3.audio import embed_rows
from looklisten.interop.openl3.errors import OpenL3Error, OpenL3Warning
from looklisten.interop.openl3.models import load_image_embedding_model
from looklisten.interop.openl3.networks import CROP_PIXELS, RESIZE_PIXELS, OpenL3Net

RESIZED_FRAMES = 32
"""Frames that are resized at a time."""


def get_image_embedding(
    image: NDArray[Any] | list[NDArray[Any]],
    frame_rate: SupportsFloat | Sequence[SupportsFloat] | None = None,
    model: OpenL3Net | None = None,
    input_repr: str = "mel256",
    content_type: str = "music",
    embedding_size: int = 8192,
    batch_size: int = 32,
    verbose: bool | int = True,  # noqa: ARG001
) -> Any:
    """Vectors `[frames, size]`, float32.

    `image` is `[height, width, 3]` or `[frames, height, width, 3]`; lists give lists. With
    `frame_rate` (frames per second) the result is `(vectors, times)`, times in seconds. Unsigned
    integers go from black to white; floats and signed integers are taken as -1..1. Warns
    (OpenL3Warning) of black images. Raises OpenL3Error for other arrays and for images smaller than
    224 pixels.
    """
    is_list = isinstance(image, list)
    images = cast(list[NDArray[Any]], image if is_list else [image])
    rates = list(frame_rate) if isinstance(frame_rate, Sequence) else [frame_rate] * len(images)
    if len(images) != len(rates):
        raise OpenL3Error(
            f"{len(images)} images came with {len(rates)} frame rates; "
            "give one for each, or one for all"
        )
    for rate in rates:
        if rate is not None and not 0 < float(rate) < np.inf:
            raise OpenL3Error(f"{rate!r} is no frame rate; give frames per second, such as 25")
    net = image_model(model, input_repr, content_type, embedding_size)
    videos = [checked_frames(image) for image in images]
    squares = chain.from_iterable(center_squares(frames) for frames in videos)
    vectors = np.concatenate(list(embed_rows(net, squares, batch_size, embedding_size)))
    counts = [len(frames) for frames in videos]
    vectors_of_each = np.split(vectors, np.cumsum(counts)[:-1])
    if frame_rate is None:
        return vectors_of_each if is_list else vectors_of_each[0]
    times_of_each = [
        np.arange(count) / float(rate or np.inf) for count, rate in zip(counts, rates, strict=True)
    ]
    return (vectors_of_each, times_of_each) if is_list else (vectors_of_each[0], times_of_each[0])


def image_model(
    model: OpenL3Net | None, input_repr: str, content_type: str, embedding_size: int
) -> OpenL3Net:
    """`model`, or the published network that the other parameters mean.

    Raises OpenL3Error for a model of another kind.
    """
    if model is None:
        return load_image_embedding_model(input_repr, content_type, embedding_size)
    if not isinstance(model, OpenL3Net) or model.variant.side != "vision":
        raise OpenL3Error(
            "the model must be one of load_image_embedding_model, "
            "or of looklisten.load with openl3:image-…"
        )
    return model


def checked_frames(image: NDArray[Any]) -> NDArray[Any]:
    """`image` as `[frames, height, width, 3]`; warns and raises as `get_image_embedding`."""
    if not isinstance(image, np.ndarray) or image.dtype.kind not in "iuf":
        is_array = isinstance(image, np.ndarray)
        kind = f"an array of {image.dtype}" if is_array else type(image).__name__
        raise OpenL3Error(
            f"an image must be a numpy array of numbers, or a list of such, not {kind}"
        )
    if not image.size:
        raise OpenL3Error("the image is empty; give at least one frame")
    if image.ndim not in (3, 4) or image.shape[-1] != 3:
        raise OpenL3Error(
            "an image must be [height, width, 3] or [frames, height, width, 3], in RGB; "
            f"this has the shape {image.shape}"
        )
    frames = image if image.ndim == 4 else image[None]
    height, width = frames.shape[1:3]
    if min(height, width) < CROP_PIXELS:
        raise OpenL3Error(
            f"an image must have at least {CROP_PIXELS} x {CROP_PIXELS} pixels; "
            f"this has {width} x {height}; enlarge it first"
        )
    if not np.isfinite(frames).all():
        raise OpenL3Error("the image holds NaN or infinity; repair it first")
    if not frames.any():
        warnings.warn(
            "the image is all black; its vectors mean nothing", OpenL3Warning, stacklevel=4
        )
    return frames


def center_squares(frames: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
    """The center crop of each frame, `[3, 224, 224]`, as the network takes it.

    If values go beyond -1..1, all frames are divided by the largest value.
    """
    groups = [
        frames[start : start + RESIZED_FRAMES] for start in range(0, len(frames), RESIZED_FRAMES)
    ]
    is_scaled = frames.dtype.kind != "f" and _scales_integers(frames)
    peak = 1.0
    # The squares are made twice, so that only one group of frames is in memory as floats.
    if not is_scaled and np.abs(frames).max() > 1:
        peak = max(float(_center_squares_of(group).abs().max()) for group in groups)
    for group in groups:
        yield from (_center_squares_of(group) / max(peak, 1.0)).numpy()


def _scales_integers(frames: NDArray[Any]) -> bool:
    """Whether OpenL3 scales integers to 0..1; it does not if it only crops."""
    sides = frames.shape[1:3]
    return min(sides) > RESIZE_PIXELS or sides == (CROP_PIXELS, CROP_PIXELS)


def _center_squares_of(frames: NDArray[Any]) -> Tensor:
    # The order of these steps decides the last bits, and is that of OpenL3.
    values = frames.astype(np.float32)
    if frames.dtype.kind != "f" and _scales_integers(frames):
        values = np.maximum(values / np.float32(np.iinfo(frames.dtype).max), -1)
    pixels = torch.from_numpy(values).permute(0, 3, 1, 2)
    height, width = pixels.shape[2:]
    if (height, width) == (CROP_PIXELS, CROP_PIXELS):
        return pixels * 2 - 1 if frames.dtype.kind == "u" else pixels
    shorter = min(height, width)
    if shorter > RESIZE_PIXELS:
        # Without antialiasing, as OpenL3 calls the `rescale` of scikit-image.
        size = [round(RESIZE_PIXELS / shorter * side) for side in (height, width)]
        pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
    top, left = (side // 2 - CROP_PIXELS // 2 for side in pixels.shape[2:])
    return pixels[:, :, top : top + CROP_PIXELS, left : left + CROP_PIXELS]
