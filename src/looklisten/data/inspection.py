"""What a prepared set holds, in numbers. Reads the small columns and some JPEG headers of the shards, never the sound."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import simplejpeg
from numpy.typing import NDArray

from looklisten.data.shards import Shards
from looklisten.runtime import Progress, silent

MEASURED_PICTURES = 2000
"""Headers that are read at most, spread evenly over the set: each costs a look-up somewhere else on the disk."""

FROM_INDEX = ("sources", "prepared", "skipped", "failed", "settings")


def inspect(path: str | Path, progress: Progress = silent) -> dict[str, Any]:
    """What the shards in the folder `path` hold; of pictures, the first of each of at most 2,000 clips is measured.

    Raises ShardError when `path` is no whole set of shards.
    """
    shards = Shards(path, open_record_batches=1, read_ahead=False)
    small = shards.columns("duration_seconds", "frame_seconds", "marks")
    durations: NDArray[np.float64] = small["duration_seconds"].to_numpy()
    frames: NDArray[np.int64] = pc.list_value_length(small["frame_seconds"]).to_numpy().astype(np.int64)
    sizes, measured = _picture_sizes(shards, np.flatnonzero(frames), progress)
    hours, size = float(durations.sum()) / 3600, sum(shard["bytes"] for shard in shards.manifest["shards"])
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
        "shards": len(shards.manifest["shards"]),
        "bytes": size,
        "bytes_per_hour": round(size / hours) if hours else None,
        "index": {name: shards.manifest.get(name) for name in FROM_INDEX},
    }


def warnings_of(shards: Shards, mask: NDArray[np.bool_]) -> list[str]:  # noqa: ARG001
    """Sentences about the clips of `mask`, `[clips]`, that whoever trains on them must know."""
    return []  # At a merge take the other branch's function.


def _picture_sizes(shards: Shards, clips: NDArray[np.int64], progress: Progress) -> tuple[dict[str, int], int]:
    """How many clips have which width x height, and of how many that was read."""
    some = clips[np.linspace(0, len(clips) - 1, min(len(clips), MEASURED_PICTURES)).round().astype(np.int64)]
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
        split or "unnamed": {"videos": len(set(shards.video_ids[mask])), "clips": int(np.count_nonzero(mask))}
        for split, mask in inside.items()
    }


def _counts(names: Iterable[str]) -> dict[str, int]:
    """How often each name is there, the most common first, equals by name."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _spread(values: NDArray[np.float64] | NDArray[np.int64]) -> dict[str, float] | None:
    """Least, middle and greatest; None where there is nothing."""
    if not len(values):
        return None
    return {name: round(float(of(values)), 3) for name, of in (("min", np.min), ("median", np.median), ("max", np.max))}
