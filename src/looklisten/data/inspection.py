"""What a prepared set holds, in numbers. Reads the small columns and some JPEG headers of the
shards, never the sound.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import simplejpeg
from numpy.typing import NDArray

from looklisten.data.shards import Shards
from looklisten.names import printable
from looklisten.system.progress import Progress, no_progress

MEASURED_PICTURES = 2000
"""Headers that are read at most, spread evenly over the set: each costs a look-up somewhere else on
the disk.
"""

UNFIT = {
    "silent": "there is nothing to hear in them",
    "black": "there is nothing to see in them",
    "still": "their picture does not change",
    "duplicate": "they are copies of other clips",
}
"""Marks that make a set unfit for training when many clips have them, and why."""

WARN_SHARE = 0.5
"""The share of marked clips from which on `training_warnings` warns."""

FROM_INDEX = ("sources", "prepared", "skipped", "failed", "settings")


def inspect(path: str | Path, progress: Progress = no_progress) -> dict[str, Any]:
    """What the shards in the folder `path` hold; of pictures, the first of each of at most 2,000
    clips is measured.

    `lost_seconds` says by reason how many seconds of the sources no clip holds; None in sets of
    earlier versions. Raises ShardError when `path` is no whole set of shards.
    """
    shards = Shards(path, open_record_batches=1, read_ahead=False)
    small = shards.columns("duration_seconds", "frame_seconds", "marks")
    durations: NDArray[np.float64] = small["duration_seconds"].to_numpy()
    frames: NDArray[np.int64] = (
        pc.list_value_length(small["frame_seconds"]).to_numpy().astype(np.int64)
    )
    sizes, measured = _picture_sizes(shards, np.flatnonzero(frames), progress)
    hours, size = (
        float(durations.sum()) / 3600,
        sum(shard["bytes"] for shard in shards.manifest["shards"]),
    )
    return {
        "path": str(path),
        "videos": len(set(shards.video_ids)),
        "clips": len(shards),
        "hours": round(hours, 4),
        "frames": int(frames.sum()),
        "frames_per_clip": _spread(frames),
        "clip_seconds": _spread(durations),
        "pictures": {"measured_on": measured, "sizes": sizes},
        "labels": _counts(label for labels in shards.labels for label in set(labels)),
        "splits": _splits(shards),
        "marks": _counts(pc.list_flatten(small["marks"]).to_pylist()),
        "lost_seconds": shards.manifest.get("lost_seconds"),
        "shards": len(shards.manifest["shards"]),
        "bytes": size,
        "bytes_per_hour": round(size / hours) if hours else None,
        "index": {name: shards.manifest.get(name) for name in FROM_INDEX},
    }


def training_warnings(shards: Shards, mask: NDArray[np.bool_]) -> list[str]:
    """Sentences on what makes the clips of `mask`, `[clips]` bool, unfit to learn from; empty when
    nothing does.
    """
    count = int(np.count_nonzero(mask))
    if not count:
        return [
            sentence
            for sentence in ("there is no clip to train on", shards.splits_sentence())
            if sentence
        ]
    found = []
    clips = "1 clip" if count == 1 else f"{count:,} clips"
    marks_of_clips = [
        marks
        for marks, inside in zip(shards.columns("marks")["marks"].to_pylist(), mask, strict=True)
        if inside
    ]
    marked = Counter(mark for marks in marks_of_clips for mark in set(marks))
    for mark, consequence in UNFIT.items():
        if marked[mark] >= WARN_SHARE * count:
            are = "is" if count == 1 else "are"
            found.append(f"{marked[mark]:,} of {clips} {are} {mark}: {consequence}")
    videos = sorted(set(shards.video_ids[mask].tolist()))
    if len(videos) == 1:
        found.append(
            f"all {clips} are of one video ({printable(videos[0])}): a negative pair needs two videos"
        )
    strange = sorted(set(shards.splits.tolist()) - {"train", "val", "test", ""})
    without = np.any(shards.splits == "") and np.any(shards.splits != "")
    if strange or without:
        found.append(shards.splits_sentence())
    return found


def _picture_sizes(
    shards: Shards, clips: NDArray[np.int64], progress: Progress
) -> tuple[dict[str, int], int]:
    """How many clips have which width x height, and of how many that was read."""
    some = clips[
        np.linspace(0, len(clips) - 1, min(len(clips), MEASURED_PICTURES)).round().astype(np.int64)
    ]
    sizes = []
    for done, clip in enumerate(some, 1):
        sizes.append(_picture_size(shards.jpeg(int(clip), 0)))
        progress(done, len(some))
    return _counts(sizes), len(some)


def _picture_size(jpeg: memoryview) -> str:
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError:
        return "no JPEG"
    return f"{width}x{height}"


def _splits(shards: Shards) -> dict[str, dict[str, int]]:
    """Videos and clips of each split; those without one stand under `unnamed`."""
    inside = {str(split): shards.splits == split for split in np.unique(shards.splits)}
    return {
        split or "unnamed": {
            "videos": len(set(shards.video_ids[mask])),
            "clips": int(np.count_nonzero(mask)),
        }
        for split, mask in inside.items()
    }


def _counts(names: Iterable[str]) -> dict[str, int]:
    """How often each name is there, the most common first, equals by name."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _spread(values: NDArray[np.float64] | NDArray[np.int64]) -> dict[str, float] | None:
    """Least, middle and greatest; None where there is nothing."""
    if not len(values):
        return None
    return {
        name: round(float(of(values)), 3)
        for name, of in (("min", np.min), ("median", np.median), ("max", np.max))
    }
