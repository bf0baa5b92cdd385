"""Pictures as OpenL3 takes them -> squares of 224 pixels -> vectors. Knows arrays and networks; no
file.

Values are OpenL3's own, and depend on the size (openl3/core.py, `_preprocess_image_batch`): a
picture of exactly 224 x 224 comes as -1..1; one that is scaled down, as 0..1; one that is only
cropped, over its own maximum (docs/openl3.md).
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

from looklisten.interop.openl3.audio import embedded
from looklisten.interop.openl3.errors import OpenL3Error, OpenL3Warning
from looklisten.interop.openl3.models import load_image_embedding_model
from looklisten.interop.openl3.networks import CROP_PIXELS, RESIZE_PIXELS, OpenL3Net

AT_ONCE = 32
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
    """Vectors `[frames, size]`, float32, of pictures `[height, width, 3]` or `[frames, height,
    width, 3]`; lists give lists.

    With `frame_rate` (frames a second) times in seconds come beside: `(vectors, times)`. Unsigned
    integers span black to white; floats and signed integers are taken as -1..1. Warns
    (OpenL3Warning) of black; raises OpenL3Error for what is no picture or smaller than 224 pixels.
    """
    several = isinstance(image, list)
    images = cast(list[NDArray[Any]], image if several else [image])
    rates = list(frame_rate) if isinstance(frame_rate, Sequence) else [frame_rate] * len(images)
    if len(images) != len(rates):
        raise OpenL3Error(
            f"{len(images)} images came with {len(rates)} frame rates; give one for each, or one for all"
        )
    for rate in rates:
        if rate is not None and not 0 < float(rate) < np.inf:
            raise OpenL3Error(f"the frame rate {rate!r} is none; give frames a second, such as 25")
    net = image_model(model, input_repr, content_type, embedding_size)
    frames = [checked(one) for one in images]
    squares = chain.from_iterable(map(squared, frames))
    vectors = np.concatenate(list(embedded(net, squares, batch_size, embedding_size)))
    of_each = np.split(vectors, np.cumsum([len(one) for one in frames])[:-1])
    if frame_rate is None:
        return of_each if several else of_each[0]
    times = [
        np.arange(len(one)) / float(rate or np.inf) for one, rate in zip(frames, rates, strict=True)
    ]
    return (of_each, times) if several else (of_each[0], times[0])


def image_model(
    model: OpenL3Net | None, input_repr: str, content_type: str, embedding_size: int
) -> OpenL3Net:
    """`model`, or the one that the words name; raises OpenL3Error when it is of another kind."""
    if model is None:
        return load_image_embedding_model(input_repr, content_type, embedding_size)
    if not isinstance(model, OpenL3Net) or model.variant.side != "vision":
        raise OpenL3Error(
            "the model must be one of load_image_embedding_model, or of looklisten.load with openl3:image-…"
        )
    return model


def checked(image: NDArray[Any]) -> NDArray[Any]:
    """`image` as `[frames, height, width, 3]`; warns and raises as `get_image_embedding`."""
    if not isinstance(image, np.ndarray) or image.dtype.kind not in "iuf":
        what = (
            f"an array of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        )
        raise OpenL3Error(
            f"an image must be a numpy array of numbers, or a list of such, not {what}"
        )
    if not image.size:
        raise OpenL3Error("the image is empty; give at least one frame")
    if image.ndim not in (3, 4) or image.shape[-1] != 3:
        raise OpenL3Error(
            f"an image must be [height, width, 3] or [frames, height, width, 3], in RGB; this has the shape {image.shape}"
        )
    frames = image if image.ndim == 4 else image[None]
    height, width = frames.shape[1:3]
    if min(height, width) < CROP_PIXELS:
        raise OpenL3Error(
            f"an image must have at least {CROP_PIXELS} x {CROP_PIXELS} pixels; this has {width} x {height}; enlarge it first"
        )
    if not np.isfinite(frames).all():
        raise OpenL3Error("the image holds NaN or infinity; mend it first")
    if not frames.any():
        warnings.warn(
            "the image is all black; its vectors say nothing", OpenL3Warning, stacklevel=4
        )
    return frames


def squared(frames: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
    """Each frame's middle, `[3, 224, 224]`, as the network takes it; what goes beyond -1..1 is
    divided by the largest of all.
    """
    parts = range(0, len(frames), AT_ONCE)
    inside = (frames.dtype.kind != "f" and _scales(frames)) or np.abs(frames).max() <= 1
    peak = (
        1.0
        if inside
        else max(float(_squares(frames[start : start + AT_ONCE]).abs().max()) for start in parts)
    )
    for start in parts:
        yield from (_squares(frames[start : start + AT_ONCE]) / max(peak, 1.0)).numpy()


def _scales(frames: NDArray[Any]) -> bool:
    """Whether OpenL3 brings integers to 0..1; those that it merely crops it takes as they are."""
    sides = frames.shape[1:3]
    return min(sides) > RESIZE_PIXELS or sides == (CROP_PIXELS, CROP_PIXELS)


def _squares(frames: NDArray[Any]) -> Tensor:
    values = frames.astype(np.float32)
    if frames.dtype.kind != "f" and _scales(frames):
        values = np.maximum(values / np.float32(np.iinfo(frames.dtype).max), -1)
    pixels = torch.from_numpy(values).permute(0, 3, 1, 2)
    height, width = pixels.shape[2:]
    if (height, width) == (CROP_PIXELS, CROP_PIXELS):
        return pixels * 2 - 1 if frames.dtype.kind == "u" else pixels
    shorter = min(height, width)
    if (
        shorter > RESIZE_PIXELS
    ):  # bilinear, without antialiasing: scikit-image's rescale as OpenL3 calls it
        size = [round(RESIZE_PIXELS / shorter * side) for side in (height, width)]
        pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
    top, left = (side // 2 - CROP_PIXELS // 2 for side in pixels.shape[2:])
    return pixels[:, :, top : top + CROP_PIXELS, left : left + CROP_PIXELS]
