"""The clips of a set of shards, and which of them training holds out.

One row of the files is one `Clip`. A selection of clips is a set of its own. Knows no video file
and no network.
"""

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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

    `path` is the folder that `prepare` wrote. `read_ahead=False` is for reading little of each
        clip: the system then reads only the memory pages that are used, and none after them.
    `open_record_batches`: about so many record batches stay mapped, and with them their files.

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
        # Set in a selection only: a reference to itself would keep the files mapped for longer.
        self._folder: Shards | None = None
        # These columns are small, so they stay in memory; training reads them for every row.
        self._rows: NDArray[np.int64] = np.arange(len(table))
        """The stored row of each clip."""
        self.video_ids: NDArray[np.str_] = _texts(table["video_id"])
        self._videos, self._video_numbers = _numbered(table["video_id"])
        self.splits: NDArray[np.str_] = _normalized(table["split"])
        """The split of each clip, `[clips]`: `train`, `val` or `test` for all usual words, else the
        name as it was written.
        """
        self._labels: pa.ListArray = table["labels"].combine_chunks()
        self.names: NDArray[np.str_] = _first_labels(self._labels)
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

    @property
    def labels(self) -> list[tuple[str, ...]]:
        """The labels of each clip, made anew at every call."""
        return [tuple(labels) for labels in self._labels.to_pylist()]

    @property
    def video_numbers(self) -> NDArray[np.int64]:
        """A number for each clip's video, `[clips]`; videos are numbered in order of their ids."""
        return self._video_numbers

    def videos(self, mask: NDArray[np.bool_] | None = None) -> NDArray[Any]:
        """The ids of the videos of all clips, or of those of `mask`, `[clips]`; sorted."""
        numbers = self._video_numbers if mask is None else self._video_numbers[mask]
        # Millions of ids are slow to sort, so they are sorted once, when the folder is opened.
        is_of_clips = np.zeros(len(self._videos), dtype=bool)
        is_of_clips[numbers] = True
        return self._videos[is_of_clips]

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
        selection._labels = self._labels.filter(pa.array(mask))
        selection._video_numbers = self._video_numbers[mask]
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
        return f"Shards({str(self.path)!r}, {len(self)} clips of {len(self.videos())} videos)"

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
        return self._is_of(_lowest_hashes(self.folder.videos(), fraction, salt=""))

    def validation_mask(
        self, validation_fraction: float, held_out_fraction: float
    ) -> NDArray[np.bool_]:
        """Which clips are not held out and still not trained on, `[clips]`; none for fraction 0.

        The hash of the video id decides, independently of `held_out_mask`. At least two videos.
        """
        if not validation_fraction:
            return np.zeros(len(self), dtype=bool)
        folder = self.folder
        not_held_out = folder.videos(~folder.held_out_mask(held_out_fraction))
        return self._is_of(_lowest_hashes(not_held_out, validation_fraction, salt="validation "))

    def _is_of(self, videos: NDArray[Any]) -> NDArray[np.bool_]:
        """Which clips are of these videos of the folder."""
        is_of_videos = np.zeros(len(self._videos), dtype=bool)
        is_of_videos[np.searchsorted(self._videos, videos)] = True
        return is_of_videos[self._video_numbers]

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
            videos = len(self.videos(self.splits == name))
            counts.append(f"{printable(name) or 'no name'} ({videos:,})")
        are = "the splits are" if len(counts) > 1 else "the only split is"
        return f"{are} {', '.join(counts)}, counted in videos; only `train` is trained on"


def _texts(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    # By way of Python's texts. The dtype is for no rows at all, which NumPy takes for numbers.
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.str_)


def _first_labels(labels: pa.ListArray) -> NDArray[Any]:
    has_label = pc.list_value_length(labels).to_numpy(zero_copy_only=False) > 0
    first = _texts(pc.list_flatten(pc.list_slice(labels, 0, 1)))
    names = np.zeros(len(labels), dtype=first.dtype)
    names[has_label] = first
    return names


def _numbered(video_ids: pa.ChunkedArray) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The different ids, sorted, and for each clip the number of its id among them."""
    # Arrow sorts texts several times as fast as NumPy, and in the same order: UTF-8 has the order
    # of code points. Large offsets, because all ids in one array may be more than 2 GB.
    ids = video_ids.cast(pa.large_string()).combine_chunks()
    order = pc.sort_indices(ids).to_numpy()
    in_order = ids.take(pa.array(order))
    is_first = np.ones(len(ids), dtype=bool)
    is_first[1:] = pc.not_equal(in_order[1:], in_order[:-1]).to_numpy(zero_copy_only=False)
    numbers = np.empty(len(ids), dtype=np.int64)
    numbers[order] = np.cumsum(is_first) - 1
    return _texts(in_order.filter(pa.array(is_first))), numbers


def _normalized(splits: pa.ChunkedArray) -> NDArray[Any]:
    # Millions of clips have a few names of splits.
    encoded = splits.combine_chunks().dictionary_encode()
    names = [normalize_split(name) for name in encoded.dictionary.to_pylist()]
    numbers = encoded.indices.to_numpy()
    splits_of_clips: NDArray[np.str_] = np.array(names, dtype=np.str_)[numbers]
    return splits_of_clips


def _lowest_hashes(videos: NDArray[Any], fraction: float, salt: str) -> NDArray[Any]:
    """The videos whose hash, in 0..1, is below `fraction`, and at least two. `videos`: sorted."""
    # A hash instead of a draw: a new video changes the side of no other video.
    digests = bytearray()
    for video in videos.tolist():
        # 6 bytes are 48 bits, which a float holds exactly.
        digests += b"\0\0" + hashlib.sha256((salt + video).encode()).digest()[:6]
    hashes = np.frombuffer(digests, ">u8") / 2**48
    is_lowest = hashes < fraction
    is_lowest[np.argsort(hashes, kind="stable")[:MIN_HELD_OUT_VIDEOS]] = True
    return videos[is_lowest]
