"""Metrics of one heat map with boxes, as numbers that a hand can check.

Knows no network, no file and no clip. The cIoU and its summary are those of the evaluator that came
with VGG-SS ("Localizing Visual Sounds the Hard Way", Chen et al. 2021, test.py and utils.py of
hche11/Localizing-Visual-Sounds-the-Hard-Way), which EZ-VSL, SLAVC and others use too. Average
precision and F1 with negatives follow SLAVC (Mo & Morgado 2022, utils.py of stoneMo/SLAVC).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn import functional

from looklisten.data.clips import Box

SIDE_PIXELS = 224
"""Maps and boxes are compared on a square of so many pixels a side, as in that evaluator."""
CIOU_THRESHOLD = 0.5
"""From this cIoU on, a map is right."""
THRESHOLDS = tuple(0.05 * step for step in range(21))

Map = Float[np.ndarray, "rows columns"]


def point_in_boxes(
    boxes: Sequence[Box], point: tuple[float, float] | None, min_annotators: int = 1
) -> bool:
    """Whether at least `min_annotators` of the boxes hold a point (x, y) in 0..1.

    Where there are fewer boxes, all must hold it. Without a point the answer is no.
    """
    if point is None or not boxes:
        return False
    # The borders belong to a box.
    x, y = point
    holding = [box for box in boxes if box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1]
    return len(holding) >= min(min_annotators, len(boxes))


def truth_map(boxes: Sequence[Box], min_annotators: int = 1) -> Float[np.ndarray, "side side"]:
    """The weight of each pixel: the number of boxes over it by `min_annotators`, at most 1.

    With 1 this is the union of boxes (VGG-SS). With 2 it is the consensus of annotators
    (Flickr-SoundNet). Corners are rounded down to pixels and moved inside the image.
    """
    # Boxes of annotators overlap, so they are counted pixel by pixel.
    count = np.zeros((SIDE_PIXELS, SIDE_PIXELS), np.float32)
    for box in boxes:
        x0, y0, x1, y1 = map(_pixel, (box.x0, box.y0, box.x1, box.y1))
        count[y0:y1, x0:x1] += 1
    return np.minimum(count / min_annotators, 1)


def _pixel(position: float) -> int:
    return int(SIDE_PIXELS * min(max(position, 0.0), 1.0))


def resize_map(values: Map) -> Float[np.ndarray, "side side"]:
    """The map over the full image, bilinear, as a square of SIDE_PIXELS."""
    size = (SIDE_PIXELS, SIDE_PIXELS)
    if values.shape == size:
        return values
    batch = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None]
    resized = functional.interpolate(batch, size, mode="bilinear")[0, 0]
    square: Float[np.ndarray, "side side"] = resized.numpy()
    return square


def above_median_mask(values: Map) -> Bool[np.ndarray, "side side"]:
    """Pixels above the median, and those of the highest value: half of the image for any map.

    Only the order of the pixels counts. So it does not matter that the evaluator scales maps to
    0..1 first. The mask of a constant map is the full image.
    """
    square = resize_map(values)
    # The upper of the two middle values, as in the evaluator.
    median = np.sort(square, axis=None)[square.size // 2]
    # Where most of a map is its highest value, no pixel is above the median.
    mask: Bool[np.ndarray, "side side"] = (square > median) | (square == square.max())
    return mask


def ciou(mask: Bool[np.ndarray, "side side"], truth: Float[np.ndarray, "side side"]) -> float:
    """cIoU: the truth inside the mask, by all truth and the mask where there is no truth.

    It is 0 where both are empty.
    """
    union = truth.sum() + (mask & (truth == 0)).sum()
    return float((truth * mask).sum() / union) if union else 0.0


def success_auc(cious: Float[np.ndarray, " moments"]) -> float:
    """AUC of success: the area under the share of moments whose cIoU is at least a threshold.

    The thresholds are 0, 0.05 … 1; the area is made of trapezoids.
    """
    shares = np.array([np.mean(cious >= threshold) for threshold in THRESHOLDS])
    return float(np.mean((shares[1:] + shares[:-1]) / 2))


def detection_scores(
    confidence: Float[np.ndarray, " moments"],
    sounds: Bool[np.ndarray, " moments"],
    right: Bool[np.ndarray, " moments"],
) -> tuple[float, float]:
    """Average precision and the highest F1 over all thresholds of the confidence.

    `sounds`: whether a visible object makes the sound of the moment.
    `right`: whether the map is right.

    A moment at or above the threshold is a detection. It is a true one where a visible object
    `sounds` and the map is `right`, else a false one. A sounding moment below the threshold is a
    miss. Precision is true detections by all detections. Recall is true detections by these and the
    misses, so a detection at a wrong position costs precision only. The precision of a threshold is
    the highest of this and all lower ones. Here every confidence is a threshold. SLAVC's code takes
    about 200 thresholds for average precision and ten for F1, and leaves out the first step.
    """
    order = np.argsort(-confidence, kind="stable")
    # Moments of one confidence are detected together, so only the last of them counts.
    is_last = np.append(np.diff(confidence[order]) != 0, True)
    detections = np.arange(1, len(order) + 1)[is_last]
    true_detections = np.cumsum((sounds & right)[order])[is_last]
    detected_sounding = np.cumsum(sounds[order])[is_last]
    misses = sounds.sum() - detected_sounding
    precision = true_detections / detections
    recall = true_detections / np.maximum(true_detections + misses, 1)
    # From the end, as precision is the highest of all lower thresholds.
    best_precision = np.maximum.accumulate(precision[::-1])[::-1]
    average_precision = (best_precision * np.diff(recall, prepend=0.0)).sum()
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(average_precision), float(f1.max())
