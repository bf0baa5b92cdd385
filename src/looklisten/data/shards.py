"""The clips of a set of shards, and which of them training holds out.

One row of the files is one `Clip`. A selection of clips is a set of its own. Knows no video file
and no network.
"""

import copy
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from looklisten.data.clips import Clip
from looklisten.data.output_folder import local_copy
from looklisten.data.shard_files import (
    SCHEMA,
    ShardFiles,
    check_sample_rates,
    check_sizes,
    read_manifest,
    stored_box,
)
from looklisten.errors import ConfigError
from looklisten.names import normalize_split, printable

ALL_CLIPS, HELD_OUT_CLIPS = "all", "held-out"
"""Names of splits that every set of shards has."""
MIN_HELD_OUT_VIDEOS = 2
"""A negative pair takes the frame of one video and the sound of another."""


class Shards(Sequence[Clip]):
    """The clips of a folder of shards, open for reading: all of them, or a selection.

    `path` is the folder that `prepare` wrote. `read_ahead=False` is for reading a few clips here
        and there: the system then reads only the memory pages that are used.
    `open_record_batches`: so many record batches stay mapped. Without `read_ahead` each of them
        keeps its file open.

    Raises ShardError when the set is incomplete, damaged, of another version, or has sound of a
    sample rate that the networks do not take.
    """

    def __init__(
        self, path: str | Path, open_record_batches: int = 4096, read_ahead: bool = True
    ) -> None:
        self.path = local_copy(str(path)) if "://" in str(path) else Path(path)
        self.manifest = read_manifest(self.path)
        check_sizes(self.path, self.manifest)
        self._files = ShardFiles(self.path, self.manifest, open_record_batches, read_ahead)
        table = self._files.columns(("video_id", "split", "labels", "sample_rate_hz"))
        check_sample_rates(self.path, table["sample_rate_hz"])
        stored_splits = np.array(table["split"].to_pylist(), dtype=np.str_)
        # Set in a selection only: a reference to itself would keep the files mapped for longer.
        self._folder: Shards | None = None
        # These columns are small, so they stay in memory; training reads them for every row.
        self._rows: NDArray[np.int64] = np.arange(len(table))
        """The stored row of each clip."""
        self.video_ids: NDArray[np.str_] = np.array(table["video_id"].to_pylist(), dtype=np.str_)
        self.splits: NDArray[np.str_] = _normalized(stored_splits)
        """The split of each clip, `[clips]`: `train`, `val` or `test` for all usual words, else the
        name as it was written.
        """
        self.labels: list[tuple[str, ...]] = list(map(tuple, table["labels"].to_pylist()))
        self.names: NDArray[np.str_] = np.array(
            [labels[0] if labels else "" for labels in self.labels], dtype=np.str_
        )
        """The first label of each clip, `[clips]`; empty where there is none."""

    @property
    def is_selection(self) -> bool:
        """Whether `select` made this set."""
        return self._folder is not None

    @property
    def folder(self) -> "Shards":
        """All clips of the folder; they decide the split of a selection too."""
        return self if self._folder is None else self._folder

    @property
    def folder_numbers(self) -> NDArray[np.int64]:
        """The number of each clip in the folder, `[clips]`."""
        return self._rows

    def select(self, mask: NDArray[np.bool_]) -> "Shards":
        """The clips for which `mask`, `[clips]`, is true, in the same order, numbered from 0.

        The selection shares the open files of this set.
        """
        # A shallow copy, so that both use the same open files.
        selection = copy.copy(self)
        selection._folder = self.folder
        selection._rows = self._rows[mask]
        selection.video_ids = self.video_ids[mask]
        selection.splits = self.splits[mask]
        selection.labels = list(itertools.compress(self.labels, mask))
        selection.names = self.names[mask]
        return selection

    def complement(self) -> "Shards":
        """The clips of the folder that are not in this selection."""
        mask = np.ones(len(self.folder), dtype=bool)
        mask[self._rows] = False
        return self.folder.select(mask)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Shards({str(self.path)!r}, {len(self)} clips of {len(set(self.video_ids))} videos)"

    def __getitem__(self, clip: int) -> Clip:  # type: ignore[override]
        # `for clip in shards` ends at the first IndexError, and -1 is no clip.
        if not 0 <= clip < len(self):
            raise IndexError(f"clip {clip} of {len(self)}")
        record_batch, row = self._files.find(int(self._rows[clip]))
        values = {
            name: record_batch.column(name)[row].as_py()
            for name in SCHEMA.names
            # `as_py` would make a Python object of each of the 480,000 samples of 10 s.
            if name not in ("waveform", "duration_seconds")
        }
        values["boxes"] = tuple(stored_box(box) for box in values["boxes"])
        for name in ("frame_seconds", "frames", "labels", "marks"):
            values[name] = tuple(values[name])
        return Clip(waveform=self.waveform(clip), **values)

    def columns(self, *names: str) -> pa.Table:
        """These columns of all clips; no other column is read, and no file stays open."""
        table = self._files.columns(names)
        return table.take(self._rows) if self.is_selection else table

    def frame_seconds(self, clip: int) -> NDArray[np.float64]:
        """The time of each stored frame of a clip, `[frames]`, in seconds from its start."""
        record_batch, row = self._files.find(int(self._rows[clip]))
        times: NDArray[np.float64] = record_batch.column("frame_seconds")[row].values.to_numpy()
        return times

    def jpeg(self, clip: int, frame: int) -> memoryview:
        """One stored frame, still compressed; no byte of the other frames is read."""
        record_batch, row = self._files.find(int(self._rows[clip]))
        frames = record_batch.column("frames")[row].values
        return memoryview(frames[frame].as_buffer()).cast("B")

    def waveform(self, clip: int) -> NDArray[np.int16]:
        """The sound of a clip, `[samples]`, a view of the memory map."""
        record_batch, row = self._files.find(int(self._rows[clip]))
        samples: NDArray[np.int16] = record_batch.column("waveform")[row].values.to_numpy()
        return samples

    # `run` is anything with a config. A protocol would read `run.config` to check its type, and
    # that raises for a network that was saved without one.
    def held_out(self, run: Any) -> "Shards":
        """The clips that `run` holds out, by the fraction in its config (`held_out_mask`).

        `run`: a run, a checkpoint, or whatever has a `Config` as `config`.
        """
        return self.select(self.held_out_mask(run.config.train.held_out_fraction))

    def validation(self, run: Any) -> "Shards":
        """The clips that `run` chooses thresholds on, by its config (`validation_mask`)."""
        settings = run.config.train
        return self.select(
            self.validation_mask(settings.validation_fraction, settings.held_out_fraction)
        )

    def split(self, name: str, held_out_fraction: float) -> "Shards":
        """The clips of a split: `all`, `held-out` (`held_out_mask`), or a split's own name.

        Raises ConfigError for a split that is not there.
        """
        if name == ALL_CLIPS:
            return self.select(np.ones(len(self), dtype=bool))
        if name == HELD_OUT_CLIPS:
            return self.select(self.held_out_mask(held_out_fraction))
        usual_name = normalize_split(name)
        if usual_name not in self.splits:
            known = ", ".join(sorted({HELD_OUT_CLIPS, ALL_CLIPS, *self.splits.tolist()} - {""}))
            raise ConfigError(
                f"there is no split {usual_name!r} in {self.path}; the splits are {known}"
            )
        return self.select(self.splits == usual_name)

    def held_out_mask(self, fraction: float) -> NDArray[np.bool_]:
        """Which clips are held out from training, `[clips]`.

        Where a clip of the folder names a split, all clips that are not of `train` are held out.
        Else the hash of its video id decides: the lowest `fraction` of hashes is held out, and at
        least two videos. So adding videos moves no video to the other side.
        """
        if np.any(self.folder.splits != ""):
            return np.asarray(self.splits != "train", dtype=bool)
        return self._is_of(_lowest_hashes(set(self.folder.video_ids), fraction, salt=""))

    def validation_mask(
        self, validation_fraction: float, held_out_fraction: float
    ) -> NDArray[np.bool_]:
        """Which clips are not held out and still not trained on, `[clips]`; none for fraction 0.

        The hash of the video id decides, independently of `held_out_mask`. At least two videos.
        """
        if not validation_fraction:
            return np.zeros(len(self), dtype=bool)
        folder = self.folder
        not_held_out = folder.video_ids[~folder.held_out_mask(held_out_fraction)]
        return self._is_of(
            _lowest_hashes(set(not_held_out), validation_fraction, salt="validation ")
        )

    def _is_of(self, videos: set[str]) -> NDArray[np.bool_]:
        # The dtype is for no videos at all, which NumPy would take for numbers.
        return np.isin(self.video_ids, np.array(sorted(videos), dtype=np.str_))

    def splits_sentence(self) -> str:
        """The splits with their videos, for messages; "" when the folder names no split."""
        if not np.any(self.splits != ""):
            return ""
        # `train` comes first, and clips without a split last.
        named = sorted(
            set(self.splits.tolist()), key=lambda name: (name != "train", name == "", name)
        )
        counts = []
        for name in named:
            videos = len(set(self.video_ids[self.splits == name]))
            counts.append(f"{printable(name) or 'no name'} ({videos:,})")
        are = "the splits are" if len(counts) > 1 else "the only split is"
        return f"{are} {', '.join(counts)}, counted in videos; only `train` is trained on"


def _normalized(splits: NDArray[Any]) -> NDArray[Any]:
    # Millions of clips have a few names of splits.
    names, number_of_clip = np.unique(splits, return_inverse=True)
    normalized = [normalize_split(name) for name in names.tolist()]
    return np.array(normalized, dtype=np.str_)[number_of_clip]


def _lowest_hashes(videos: set[str], fraction: float, salt: str) -> set[str]:
    """The videos whose hash, in 0..1, is below `fraction`, and at least two."""
    hashes = {}
    for video in sorted(videos):
        digest = hashlib.sha256((salt + video).encode()).hexdigest()
        # 12 digits are 48 bits, which a float holds exactly.
        hashes[video] = int(digest[:12], 16) / 16**12
    # A hash instead of a draw: a new video changes the side of no other video.
    lowest = sorted(hashes, key=lambda video: hashes[video])[:MIN_HELD_OUT_VIDEOS]
    return {video for video in hashes if hashes[video] < fraction} | set(lowest)
