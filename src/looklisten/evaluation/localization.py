"""Does the map point at what sounds? Pointing accuracy against known boxes, beside the rule that always says "the centre"."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from looklisten.data.shards import Box, Clip, Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.correspondence import interval
from looklisten.inference.embed import moments
from looklisten.inference.localize import Method, localize_moments
from looklisten.model.l3net import L3Net
from looklisten.runtime import Progress, silent

BOX_TOLERANCE_SECONDS = 0.2
"""A box counts for a frame when it is at most so far from it in time."""


@dataclass(frozen=True)
class Pointing:
    """Share of frames in which the strongest place of the map lies in the box of what sounds; the interval over videos."""

    pointing: float
    center: float
    """The same for a map that always points at the middle of the frame."""
    n: int
    ci95: tuple[float, float]
    method: str
    with_silent: float
    """`pointing` where a silent object of another class is in the frame too; NaN when there is no such frame."""
    on_silent: float
    """Among those, how often the map points at the silent one."""
    n_with_silent: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def boxes_at(clip: Clip, at_seconds: float) -> list[Box]:
    """The boxes nearest in time to a moment of the clip; none when the nearest is too far."""
    nearest = min((abs(box.at_seconds - at_seconds) for box in clip.boxes), default=np.inf)
    if nearest > BOX_TOLERANCE_SECONDS:
        return []
    return [box for box in clip.boxes if abs(box.at_seconds - at_seconds) <= nearest + 1e-6]


def _holds(boxes: list[Box], point: tuple[float, float]) -> bool:
    return any(box.x0 <= point[0] <= box.x1 and box.y0 <= point[1] <= box.y1 for box in boxes)


def pointing(
    model: L3Net, shards: Shards, mask: NDArray[np.bool_], method: Method = "correspondence", per_clip: int = 2, progress: Progress = silent
) -> Pointing:
    """Pointing accuracy over `per_clip` frames of each clip that `mask` allows and whose sounding things have boxes.

    Raises ConfigError when no clip has boxes.
    """
    hits: list[tuple[bool, bool, bool, bool]] = []
    videos: list[str] = []
    clips = np.flatnonzero(mask)
    for done, number in enumerate(clips, 1):
        clip = shards[int(number)]
        batch = [m for m in moments(clip, model.config, per_clip) if any(b.sounding for b in boxes_at(clip, m.frame_seconds))]
        for found in localize_moments(model, batch, method) if batch else []:
            boxes = boxes_at(clip, found.moment.frame_seconds)
            sounding = [box for box in boxes if box.sounding]
            mute = [box for box in boxes if not box.sounding]
            peak = found.frame_map.peak()
            videos.append(clip.video_id)
            hits.append((_holds(sounding, peak), _holds(sounding, (0.5, 0.5)), bool(mute), _holds(mute, peak)))
        progress(done, len(clips))
    if not hits:
        raise ConfigError(f"pointing needs held-out clips with boxes of what sounds; {shards.path} has none")
    right, center, beside, wrong = np.array(hits, dtype=np.float64).T
    both = beside > 0
    by_video = np.array([right[np.array(videos) == video].mean() for video in dict.fromkeys(videos)])
    return Pointing(
        pointing=float(right.mean()),
        center=float(center.mean()),
        n=len(right),
        ci95=interval(by_video),
        method=method,
        with_silent=float(right[both].mean()) if both.any() else float("nan"),
        on_silent=float(wrong[both].mean()) if both.any() else float("nan"),
        n_with_silent=int(both.sum()),
    )
