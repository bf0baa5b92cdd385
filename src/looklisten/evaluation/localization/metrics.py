"""A map and boxes -> numbers that a hand can check. Knows no network, no file and no clip.

Overlap and its summary are those of the evaluator that came with VGG-SS ("Localizing Visual Sounds
the Hard Way", Chen et al. 2021, test.py and utils.py of
hche11/Localizing-Visual-Sounds-the-Hard-Way), which EZ-VSL, SLAVC and others took over. Average
precision and F1 with negatives follow SLAVC (Mo & Morgado 2022, utils.py of stoneMo/SLAVC).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn import functional

from looklisten.data.clips import Box

SIDE_PIXELS = 224
"""Maps and boxes meet on a square of so many pixels a side, as in that evaluator."""
RIGHT_OVERLAP = 0.5
THRESHOLDS = tuple(0.05 * step for step in range(21))

Map = Float[np.ndarray, "rows columns"]


def held(boxes: Sequence[Box], point: tuple[float, float] | None, agree: int = 1) -> bool:
    """Whether at least `agree` of the boxes (all, where they are fewer) hold a point (x, y) in
    0..1; no point is in no box.
    """
    if point is None or not boxes:
        return False
    x, y = point
    return sum(box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1 for box in boxes) >= min(
        agree, len(boxes)
    )


def truth_map(boxes: Sequence[Box], agree: int = 1) -> Float[np.ndarray, "side side"]:
    """What each pixel counts: the boxes over it, divided by `agree`, at most 1.

    `agree` 1 is the union of boxes (VGG-SS); 2 is the consensus of annotators of whom two suffice
    (Flickr-SoundNet). Corners are rounded down to pixels; what lies outside of the picture is cut
    off.
    """
    count = np.zeros((SIDE_PIXELS, SIDE_PIXELS), np.float32)
    for box in boxes:
        x0, y0, x1, y1 = (
            int(SIDE_PIXELS * min(max(at, 0.0), 1.0)) for at in (box.x0, box.y0, box.x1, box.y1)
        )
        count[y0:y1, x0:x1] += 1
    return np.minimum(count / agree, 1)


def grown(values: Map) -> Float[np.ndarray, "side side"]:
    """The map over the whole picture, bilinear, as a square of SIDE_PIXELS."""
    if values.shape == (SIDE_PIXELS, SIDE_PIXELS):
        return values
    batch = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None]
    square: Float[np.ndarray, "side side"] = functional.interpolate(
        batch, (SIDE_PIXELS, SIDE_PIXELS), mode="bilinear"
    )[0, 0].numpy()
    return square


def strongest_half(values: Map) -> Bool[np.ndarray, "side side"]:
    """Pixels above the median one, and those of the highest value: half of the picture, whatever
    the map is sure of.

    Only the order of the pixels counts, so that scaling a map to 0..1 first, as the evaluator does,
    changes nothing. A map that is the same everywhere marks everything.
    """
    square = grown(values)
    median = np.sort(square, axis=None)[square.size // 2]
    marked: Bool[np.ndarray, "side side"] = (square > median) | (square == square.max())
    return marked


def overlap(marked: Bool[np.ndarray, "side side"], truth: Float[np.ndarray, "side side"]) -> float:
    """cIoU: the truth that is marked, over all truth and what is marked where there is none; 0
    where neither is anything.
    """
    either = truth.sum() + (marked & (truth == 0)).sum()
    return float((truth * marked).sum() / either) if either else 0.0


def success_area(overlaps: Float[np.ndarray, " moments"]) -> float:
    """AUC: the area under the share of moments whose cIoU is at least a threshold, over the
    thresholds 0, 0.05 … 1 (trapezoids).
    """
    shares = np.array([np.mean(overlaps >= threshold) for threshold in THRESHOLDS])
    return float(np.mean((shares[1:] + shares[:-1]) / 2))


def detection_scores(
    confidence: Float[np.ndarray, " moments"],
    sounds: Bool[np.ndarray, " moments"],
    right: Bool[np.ndarray, " moments"],
) -> tuple[float, float]:
    """Average precision and the highest F1 over all thresholds of the confidence, with moments in
    which nothing seen sounds.

    A moment at or above the threshold is a find: a true one where something seen `sounds` and the
    map is `right`, else a false one; a sounding moment below it is a miss. So precision is right
    finds over all finds, and recall right finds over these and the misses (a find at a wrong place
    costs precision alone). Precision is the highest of this and all lower thresholds. Every
    confidence is a threshold here; SLAVC's code takes about 200 for the one and ten for the other,
    and leaves out the first step.
    """
    order = np.argsort(-confidence, kind="stable")
    last = np.append(
        np.diff(confidence[order]) != 0, True
    )  # moments of one confidence are found together
    finds = np.arange(1, len(order) + 1)[last]
    true, sounding = (np.cumsum(these[order])[last] for these in (sounds & right, sounds))
    precision = true / finds
    recall = true / np.maximum(true + sounds.sum() - sounding, 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float((best * np.diff(recall, prepend=0.0)).sum()), float(f1.max())
