"""A labelled set of pictures -> squares as a vision tower is shown them (paper, section 4.2), and
the description that it has to beat.

Knows picture files and vectors: neither folds nor classifiers.
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
from looklisten.evaluation.linear_probe.features import Extractor
from looklisten.evaluation.linear_probe.vector_cache import Store, read_ahead, stored_vectors
from looklisten.evaluation.sets.labeled_set import LabeledFiles
from looklisten.media.frames import crop, frames_to_unit, stack
from looklisten.media.images import read_image
from looklisten.system.progress import Progress, no_progress

VIEWS = 4
"""Random crops of each picture whose vectors are kept, where a set is small enough; training goes
through them in turn.
"""
CELLS = 4
ORIENTATIONS = 8


def square(
    pixels: UInt8[Tensor, "height width 3"], side_pixels: int, chance: NDArray[np.float64] | None
) -> UInt8[Tensor, "side side 3"]:
    """The central square, or with `chance` (three numbers in 0..1) one at a random place, mirrored
    half of the time.
    """
    down, right, flip = (0.5, 0.5, 1.0) if chance is None else chance
    cut = crop(pixels, side_pixels, float(down), float(right))
    return cut.flip(1) if flip < 0.5 else cut


def views(
    benchmark: LabeledFiles, extractor: Extractor, item: int, keys: Sequence[tuple[int, ...] | None]
) -> UInt8[Tensor, "views 3 side side"]:
    """Squares of one picture, decoded once: the central one for None, a random one for each key,
    which draws its place.
    """
    pixels = read_image(benchmark.root / benchmark.paths[item], extractor.resize_pixels)
    chances = [
        None if key is None else np.random.default_rng((*key, item)).random(3) for key in keys
    ]
    return stack([square(pixels, extractor.crop_pixels, chance) for chance in chances])


def picture_vectors(
    benchmark: LabeledFiles,
    extractor: Extractor,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> Store:
    """Vectors of every picture `[items, 1 + VIEWS, width]`: of its central square, then of random
    ones.
    """
    keys = [None, *((view,) for view in range(VIEWS))]
    return stored_vectors(
        benchmark,
        extractor,
        len(keys),
        lambda item: views(benchmark, extractor, item, keys),
        cache,
        progress,
    )


def streamed_vectors(
    benchmark: LabeledFiles,
    extractor: Extractor,
    items: Sequence[int],
    key: tuple[int, ...] | None,
    failed: dict[int, str],
) -> Iterator[tuple[list[int], Float[np.ndarray, "some width"]]]:
    """Items and vectors of one square each, in batches, none of which is kept; pictures that cannot
    be read end up in `failed`.
    """
    waiting: list[tuple[int, Tensor]] = []

    def encoded() -> tuple[list[int], NDArray[np.float32]]:
        return [item for item, _ in waiting], extractor(
            torch.cat([frames for _, frames in waiting])
        )

    for item, found in read_ahead(lambda item: views(benchmark, extractor, item, [key]), items):
        if isinstance(found, SourceError):
            failed[item] = str(found)
            continue
        waiting.append((item, found))
        if len(waiting) == extractor.batch_rows:
            yield encoded()
            waiting.clear()
    if waiting:
        yield encoded()


def color_extractor() -> Extractor:
    """`colors_and_edges` of squares of 112 pixels."""
    return Extractor(
        "colors",
        colors_and_edges,
        CELLS * CELLS * (6 + ORIENTATIONS),
        "colors-edges-4x4",
        resize_pixels=128,
        crop_pixels=112,
    )


def colors_and_edges(
    frames: Num[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch features"]:
    """What a picture is like with no network at all: in each of 4 x 4 cells the mean and deviation
    of red, green and blue, and how strong edges of eight orientations are.
    """
    pixels = frames_to_unit(frames)
    mean = functional.adaptive_avg_pool2d(pixels, CELLS)
    deviation = (
        (functional.adaptive_avg_pool2d(pixels.square(), CELLS) - mean.square()).clamp_min(0).sqrt()
    )
    grey = functional.pad(pixels.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    down, right = (
        grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1],
        grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2],
    )
    turn = (torch.atan2(down, right) / torch.pi * ORIENTATIONS).floor().long() % ORIENTATIONS
    edges = functional.one_hot(turn[:, 0], ORIENTATIONS).permute(0, 3, 1, 2) * torch.hypot(
        down, right
    )
    return torch.cat(
        [
            part.flatten(1)
            for part in (mean, deviation, functional.adaptive_avg_pool2d(edges, CELLS))
        ],
        dim=1,
    )
