"""Shards of noise, made in milliseconds, for what looks at names and splits alone."""

import json

import numpy as np
import simplejpeg

from looklisten.data.clips import Clip
from looklisten.data.shard_files import FORMAT_VERSION, write_shards


def a_clip(number, split, start_seconds=0.0, label="", content=None):
    """A second of noise of video `vNN`, with its frames.

    `content`: the number that the noise depends on, if it is not that of the video.
    """
    rng = np.random.default_rng([number if content is None else content, int(start_seconds)])
    jpeg = simplejpeg.encode_jpeg(rng.integers(0, 256, (64, 64, 3), np.uint8))
    wave = rng.integers(-(2**14), 2**14, 60_000).astype(np.int16)
    name = f"v{number:02d}"
    return Clip(
        key=f"{name}@{start_seconds}",
        video_id=name,
        source=f"{name}.mp4",
        start_seconds=start_seconds,
        frame_seconds=(0.2, 0.6),
        frames=(jpeg, jpeg),
        waveform=wave,
        sample_rate_hz=48_000,
        split=split,
        labels=(label,) if label else (),
    )


def write_set(folder, training, held_out, more=()):
    """Shards of the numbered videos in two splits, and of the clips `more`."""
    return write_clips(
        folder,
        [a_clip(number, "train") for number in training]
        + [a_clip(number, "test") for number in held_out]
        + list(more),
    )


def write_clips(folder, clips):
    folder.mkdir()
    entries = write_shards(clips, folder, "clips-000000", 10**9)
    (folder / "index.json").write_text(json.dumps({"format": FORMAT_VERSION, "shards": entries}))
    return folder
