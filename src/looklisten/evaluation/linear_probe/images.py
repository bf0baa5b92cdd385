"""A labeled set of images -> vectors of square crops of each image (paper, section 4.2).

Also the color description that networks are compared with. Knows image files and vectors: neither
folds nor classifiers.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Num, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from looklisten.errors import SourceError
from looklisten.evaluation.linear_probe.features import FeatureExtractor
from looklisten.evaluation.linear_probe.vector_cache import (
    VectorCache,
    cached_vectors,
    read_ahead,
)
from looklisten.evaluation.sets.labeled_set import LabeledFiles
from looklisten.media.frames import FrameFit, crop, fit_square, frames_to_unit, stack
from looklisten.media.images import read_image
from looklisten.system.progress import Progress, no_progress

RANDOM_VIEWS = 4
"""Random crops of each image whose vectors are stored; epochs use them in turn."""
GRID_CELLS = 4
EDGE_ORIENTATIONS = 8
COLOR_NUMBERS = 6
"""The mean and the deviation of red, green and blue."""

ViewKey = tuple[int, ...]
"""The seed of a random crop: the number of a stored view, or the seed of a probe and an epoch."""

VectorsOfItems = tuple[list[int], NDArray[np.float32]]
"""Items, and their vectors `[items, width]`."""


def crop_square(
    pixels: UInt8[Tensor, "height width 3"],
    side_pixels: int,
    random_numbers: Float[np.ndarray, " 3"] | None,
    fit: FrameFit = "crop",
) -> UInt8[Tensor, "side side 3"]:
    """The square that `fit` says, or a random crop.

    `random_numbers`, each in 0..1, choose how far down and right the crop is, and its mirroring.
    """
    if random_numbers is None:
        return fit_square(pixels, side_pixels, fit)
    down, right, flip = map(float, random_numbers)
    square = crop(pixels, side_pixels, down, right)
    is_mirrored = flip < 0.5
    return square.flip(1) if is_mirrored else square


def image_views(
    files: LabeledFiles, extractor: FeatureExtractor, item: int, keys: Sequence[ViewKey | None]
) -> UInt8[Tensor, "views 3 side side"]:
    """Squares of one image: for None as `extractor.frame_fit` says, else a random crop.

    `item`: its index in `files.paths`. Raises SourceError for a file that cannot be read.
    """
    # Decoded once for all views, because that takes most of the time.
    pixels = read_image(files.root / files.paths[item], extractor.resize_pixels)
    squares = []
    for key in keys:
        random_numbers = None
        if key is not None:
            # The item is part of the seed, so that images of one epoch differ in their crops.
            random_numbers = np.random.default_rng((*key, item)).random(3)
        square = crop_square(pixels, extractor.crop_pixels, random_numbers, extractor.frame_fit)
        squares.append(square)
    return stack(squares)


def image_vectors(
    files: LabeledFiles,
    extractor: FeatureExtractor,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> VectorCache:
    """Vectors `[items, 1 + RANDOM_VIEWS, width]`: of the central square, then of random ones.

    `cache`: folder that stores them; by default they are not stored. An image that cannot be read
    is recorded and skipped.
    """
    keys: list[ViewKey | None] = [None]
    for view in range(RANDOM_VIEWS):
        keys.append((view,))

    def read(item: int) -> Tensor:
        return image_views(files, extractor, item, keys)

    return cached_vectors(files, extractor, len(keys), read, cache, progress)


def streamed_image_vectors(
    files: LabeledFiles,
    extractor: FeatureExtractor,
    items: Sequence[int],
    key: ViewKey | None,
    failures: dict[int, str],
) -> Iterator[VectorsOfItems]:
    """Vectors of one square of each item, in batches, none of which is stored.

    `failures`: gets the reason for each image that cannot be read.
    """
    pending: dict[int, Tensor] = {}

    def vectors_of_pending() -> VectorsOfItems:
        return list(pending), extractor(torch.cat(list(pending.values())))

    def read(item: int) -> Tensor:
        return image_views(files, extractor, item, [key])

    for item, view_or_error in read_ahead(read, items):
        if isinstance(view_or_error, SourceError):
            failures[item] = str(view_or_error)
            continue
        pending[item] = view_or_error
        if len(pending) == extractor.batch_rows:
            yield vectors_of_pending()
            pending.clear()
    if pending:
        yield vectors_of_pending()


def color_extractor() -> FeatureExtractor:
    """`colors_and_edges` of squares of 112 pixels: a description without any network."""
    return FeatureExtractor(
        name="colors",
        encode=colors_and_edges,
        width=GRID_CELLS * GRID_CELLS * (COLOR_NUMBERS + EDGE_ORIENTATIONS),
        key="colors-edges-4x4",
        resize_pixels=128,
        crop_pixels=112,
    )


def colors_and_edges(
    frames: Num[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch features"]:
    """Colors and edges in each of 4 x 4 cells of an image.

    The mean and deviation of red, green and blue, then the strength of edges in 8 orientations.
    """
    pixels = frames_to_unit(frames)
    mean = functional.adaptive_avg_pool2d(pixels, GRID_CELLS)
    mean_square = functional.adaptive_avg_pool2d(pixels.square(), GRID_CELLS)
    # Rounding can make the variance of an even color negative.
    deviation = (mean_square - mean.square()).clamp_min(0).sqrt()
    # Replicated borders have no edge of their own.
    gray = pixels.mean(1, keepdim=True)
    gray = functional.pad(gray, (1, 1, 1, 1), mode="replicate")
    down = gray[..., 2:, 1:-1] - gray[..., :-2, 1:-1]
    right = gray[..., 1:-1, 2:] - gray[..., 1:-1, :-2]
    # Opposite gradients are edges of the same orientation. They differ by a half turn, which the
    # remainder removes.
    half_turns = torch.atan2(down, right) / torch.pi
    orientation = (half_turns * EDGE_ORIENTATIONS).floor().long() % EDGE_ORIENTATIONS
    has_orientation = functional.one_hot(orientation[:, 0], EDGE_ORIENTATIONS)
    strengths = has_orientation.permute(0, 3, 1, 2) * torch.hypot(down, right)
    edges = functional.adaptive_avg_pool2d(strengths, GRID_CELLS)
    parts = [mean, deviation, edges]
    return torch.cat([part.flatten(1) for part in parts], dim=1)
