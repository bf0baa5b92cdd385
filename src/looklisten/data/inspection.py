"""What a set of shards holds, in numbers.

Reads the small columns and some JPEG headers of the shards, never the sound.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import simplejpeg
from numpy.typing import NDArray

from looklisten.data.shards import Shards
from looklisten.names import printable
from looklisten.system.progress import Progress, no_progress

MEASURED_FRAMES = 2000
"""At most so many JPEG headers are read: each costs a seek to another part of the disk."""

UNFIT = {
    "silent": "there is nothing to hear in them",
    "black": "there is nothing to see in them",
    "still": "their picture does not change",
    "duplicate": "they are copies of other clips",
}
"""Marks that make a set unfit for training if many clips have them, and why."""

WARN_SHARE = 0.5
"""`training_warnings` warns if at least this share of the clips has a mark."""

FROM_INDEX = ("sources", "prepared", "skipped", "failed", "settings")


def inspect(
    path: str | Path, progress: Progress = no_progress, max_measured_frames: int = MEASURED_FRAMES
) -> dict[str, Any]:
    """What the shards in the folder `path` hold.

    Under `pictures` are the sizes of the first frames of at most `max_measured_frames` clips.
    `lost_seconds` has the seconds of the sources that no clip holds, by reason; None in sets of
    earlier versions. Raises ShardError if `path` is no complete set of shards.
    """
    # Few frames of many clips are read: reading ahead would read the whole set.
    shards = Shards(path, open_record_batches=1, read_ahead=False)
    columns = shards.columns("duration_seconds", "frame_seconds", "marks")
    clip_seconds: NDArray[np.float64] = columns["duration_seconds"].to_numpy()
    frame_counts: NDArray[np.int64] = (
        pc.list_value_length(columns["frame_seconds"]).to_numpy().astype(np.int64)
    )
    with_frames = np.flatnonzero(frame_counts)
    measured = _evenly_spread(with_frames, max_measured_frames)
    sizes = _frame_sizes(shards, measured, progress)
    labels: list[str] = []
    for labels_of_clip in shards.labels:
        labels += set(labels_of_clip)
    hours = float(clip_seconds.sum()) / 3600
    total_bytes = sum(shard["bytes"] for shard in shards.manifest["shards"])
    return {
        "path": str(path),
        "videos": shards.video_count(),
        "clips": len(shards),
        "hours": round(hours, 4),
        "frames": int(frame_counts.sum()),
        "frames_per_clip": _spread(frame_counts),
        "clip_seconds": _spread(clip_seconds),
        "pictures": {"measured_on": len(measured), "sizes": _counts(sizes)},
        "labels": _counts(labels),
        "splits": _splits(shards),
        "marks": _counts(pc.list_flatten(columns["marks"]).to_pylist()),
        "lost_seconds": shards.manifest.get("lost_seconds"),
        "shards": len(shards.manifest["shards"]),
        "bytes": total_bytes,
        "bytes_per_hour": round(total_bytes / hours) if hours else None,
        "index": {name: shards.manifest.get(name) for name in FROM_INDEX},
    }


def training_warnings(shards: Shards, mask: NDArray[np.bool_]) -> list[str]:
    """Sentences on what makes the clips of `mask`, `[clips]` bool, unfit for training."""
    count = int(np.count_nonzero(mask))
    if not count:
        sentences = ["there is no clip to train on", shards.splits_sentence()]
        return [sentence for sentence in sentences if sentence]
    warnings = []
    clips = "1 clip" if count == 1 else f"{count:,} clips"
    verb = "is" if count == 1 else "are"
    clips_with_mark = _clips_with_mark(shards, mask)
    for mark, consequence in UNFIT.items():
        affected = clips_with_mark[mark]
        if affected >= WARN_SHARE * count:
            warnings.append(f"{affected:,} of {clips} {verb} {mark}: {consequence}")
    if shards.video_count(mask) == 1:
        (video,) = shards.videos(mask).tolist()
        warnings.append(
            f"all {clips} are of one video ({printable(video)}): a negative pair needs two videos"
        )
    splits = set(shards.splits.tolist())
    has_unknown_splits = bool(splits - {"train", "val", "test", ""})
    is_mixture = "" in splits and len(splits) > 1
    if has_unknown_splits or is_mixture:
        warnings.append(shards.splits_sentence())
    return warnings


def _clips_with_mark(shards: Shards, mask: NDArray[np.bool_]) -> Counter[str]:
    """How many of the clips have each mark."""
    marks = shards.columns("marks")["marks"].filter(pa.array(mask))
    # Most clips have none.
    marked = marks.filter(pc.greater(pc.list_value_length(marks), 0))
    counts: Counter[str] = Counter()
    for marks_of_clip in marked.to_pylist():
        counts.update(set(marks_of_clip))
    return counts


def _evenly_spread(clips: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the clips, evenly spread over the set."""
    positions = np.linspace(0, len(clips) - 1, min(len(clips), count))
    chosen: NDArray[np.int64] = clips[positions.round().astype(np.int64)]
    return chosen


def _frame_sizes(shards: Shards, clips: NDArray[np.int64], progress: Progress) -> list[str]:
    """Width x height of the first frame of each clip."""
    sizes = []
    for done, clip in enumerate(clips, 1):
        sizes.append(_frame_size(shards.jpeg(int(clip), 0)))
        progress(done, len(clips))
    return sizes


def _frame_size(jpeg: memoryview) -> str:
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError:
        return "no JPEG"
    return f"{width}x{height}"


def _splits(shards: Shards) -> dict[str, dict[str, int]]:
    """Videos and clips of each split; those without a split are under `unnamed`."""
    counts = {}
    for split in np.unique(shards.splits).tolist():
        mask = shards.splits == split
        videos = len(shards.videos(mask))
        counts[split or "unnamed"] = {"videos": videos, "clips": int(np.count_nonzero(mask))}
    return counts


def _counts(names: Iterable[str]) -> dict[str, int]:
    """How often each name occurs, the most frequent first."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _spread(values: NDArray[np.float64] | NDArray[np.int64]) -> dict[str, float] | None:
    """Minimum, median and maximum; None if there are no values."""
    if not len(values):
        return None
    return {
        "min": round(float(np.min(values)), 3),
        "median": round(float(np.median(values)), 3),
        "max": round(float(np.max(values)), 3),
    }
