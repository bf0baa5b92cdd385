"""The clips of a set of shards, and which of them training holds out.

One row of the files is one `Clip`. A selection of clips is a set of its own. Knows no video file
and no network.
"""

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from looklisten.data.clip_columns import (
    FrameTimes,
    VideoNumbers,
    open_columns,
    text_array,
    text_list,
    video_hashes,
)
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
        shards = self.manifest["shards"]
        table = open_columns(self.path, shards)
        self._frame_times = FrameTimes(table) if table is not None else None
        if table is None:
            table = self._files.columns(("video_id", "split", "labels", "sample_rate_hz"))
        self._table: pa.Table = table
        """The small columns of all stored clips."""
        check_sample_rates(self.path, self._table["sample_rate_hz"])
        # Set in a selection only: a reference to itself would keep the files mapped for longer.
        self._folder: Shards | None = None
        self._rows: NDArray[np.int64] = np.arange(len(self._table))
        """The stored row of each clip."""
        self._videos = VideoNumbers(self._table)
        """The videos of the folder, also in a selection."""
        self.video_numbers: NDArray[np.int64] = self._videos.of_clips
        """A number for each clip's video, `[clips]`; videos are numbered in order of their ids."""
        self.splits: NDArray[np.str_] = _normalized(self._table["split"])
        """The split of each clip, `[clips]`: `train`, `val` or `test` for all usual words, else the
        name as it was written.
        """

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

    # Computed when they are asked for: a training of millions of videos needs those of its
    # batches only.
    @cached_property
    def video_ids(self) -> NDArray[Any]:
        """The id of each clip's video, `[clips]`."""
        return text_array(self.columns("video_id")["video_id"])

    @cached_property
    def names(self) -> NDArray[Any]:
        """The first label of each clip, `[clips]`; empty where there is none."""
        return _first_labels(self.columns("labels")["labels"].combine_chunks())

    @property
    def labels(self) -> list[tuple[str, ...]]:
        """The labels of each clip, made anew at every call."""
        return [tuple(labels) for labels in self.columns("labels")["labels"].to_pylist()]

    def video_ids_of(self, clips: NDArray[np.int64]) -> tuple[str, ...]:
        """The ids of the videos of a few clips."""
        column = self._table["video_id"]
        return tuple(column[row].as_py() for row in self._rows[clips].tolist())

    def first_labels_of(self, clips: NDArray[np.int64]) -> tuple[str, ...]:
        """The first label of each of a few clips; empty where there is none."""
        column = self._table["labels"]
        labels = []
        for row in self._rows[clips].tolist():
            of_clip = column[row].values
            labels.append(of_clip[0].as_py() if len(of_clip) else "")
        return tuple(labels)

    def _are_of_clips(self, clips: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Which videos of the folder these clips are of, `[videos]`; by default all clips."""
        numbers = self.video_numbers if clips is None else self.video_numbers[clips]
        are_of_clips = np.zeros(self._videos.count, dtype=bool)
        are_of_clips[numbers] = True
        return are_of_clips

    def videos(self, mask: NDArray[np.bool_] | None = None) -> NDArray[Any]:
        """The ids of the videos of all clips, or of those of `mask`, `[clips]`; sorted."""
        return text_array(self._ids_of(mask))

    def video_list(self, mask: NDArray[np.bool_] | None = None) -> list[str]:
        """`videos` as a list, which takes a third of the time for millions of videos."""
        return text_list(self._ids_of(mask))

    def _ids_of(self, mask: NDArray[np.bool_] | None) -> pa.Array:
        # Millions of ids are slow to sort, so they are sorted once, for the folder.
        return self._videos.ids.filter(pa.array(self._are_of_clips(mask)))

    def video_count(self, mask: NDArray[np.bool_] | None = None) -> int:
        """The number of `videos`."""
        return int(np.count_nonzero(self._are_of_clips(mask)))

    def select(self, mask: NDArray[np.bool_]) -> "Shards":
        """The clips for which `mask`, `[clips]`, is true, in the same order, numbered from 0.

        The selection shares the open files of this set.
        """
        # A shallow copy, so that both use the same open files.
        selection = copy.copy(self)
        selection._folder = self.folder
        selection._rows = self._rows[mask]
        selection.splits = self.splits[mask]
        selection.video_numbers = self.video_numbers[mask]
        # They may be known of this set, and must not be taken for those of the selection.
        for name in ("video_ids", "names"):
            vars(selection).pop(name, None)
        return selection

    def complement(self) -> "Shards":
        """The clips of the folder that are not in this selection."""
        mask = np.ones(len(self.folder), dtype=bool)
        mask[self._rows] = False
        return self.folder.select(mask)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Shards({str(self.path)!r}, {len(self)} clips of {self.video_count()} videos)"

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
        """These columns of all clips; no other column is read, and no shard stays open."""
        if set(names) <= set(self._table.column_names):
            table = self._table.select(names)
        else:
            table = self._files.columns(names)
        return table.take(self._rows) if self.is_selection else table

    def frame_seconds(self, clip: int) -> NDArray[np.float64]:
        """The time of each stored frame of a clip, `[frames]`, in seconds from its start."""
        if self._frame_times is not None:
            return self._frame_times.frame_seconds(int(self._rows[clip]))
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

    def samples(self, clip: int) -> int:
        """The number of samples of a clip's sound."""
        if self._frame_times is not None:
            return self._frame_times.samples(int(self._rows[clip]))
        return len(self.waveform(clip))

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
        return _are_lowest(self._videos.hashes, fraction)[self.video_numbers]

    def validation_mask(
        self, validation_fraction: float, held_out_fraction: float
    ) -> NDArray[np.bool_]:
        """Which clips are not held out and still not trained on, `[clips]`; none for fraction 0.

        The hash of the video id decides, independently of `held_out_mask`. At least two videos.
        """
        if not validation_fraction:
            return np.zeros(len(self), dtype=bool)
        folder = self.folder
        are_candidates = folder._are_of_clips(~folder.held_out_mask(held_out_fraction))
        candidates = text_list(self._videos.ids.filter(pa.array(are_candidates)))
        hashes = video_hashes(candidates, salt="validation ")
        are_chosen = np.zeros(self._videos.count, dtype=bool)
        are_chosen[are_candidates] = _are_lowest(hashes, validation_fraction)
        return are_chosen[self.video_numbers]

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
            videos = self.video_count(self.splits == name)
            counts.append(f"{printable(name) or 'no name'} ({videos:,})")
        are = "the splits are" if len(counts) > 1 else "the only split is"
        return f"{are} {', '.join(counts)}, counted in videos; only `train` is trained on"


def _first_labels(labels: pa.ListArray) -> NDArray[Any]:
    has_label = pc.list_value_length(labels).to_numpy(zero_copy_only=False) > 0
    first = text_array(pc.list_flatten(pc.list_slice(labels, 0, 1)))
    names = np.zeros(len(labels), dtype=first.dtype)
    names[has_label] = first
    return names


def _normalized(splits: pa.ChunkedArray) -> NDArray[Any]:
    # Millions of clips have a few names of splits.
    encoded = splits.combine_chunks().dictionary_encode()
    names = [normalize_split(name) for name in encoded.dictionary.to_pylist()]
    numbers = encoded.indices.to_numpy()
    splits_of_clips: NDArray[np.str_] = np.array(names, dtype=np.str_)[numbers]
    return splits_of_clips


def _are_lowest(hashes: NDArray[np.float64], fraction: float) -> NDArray[np.bool_]:
    """Which hashes are below `fraction`, and at least the two lowest."""
    are_lowest = hashes < fraction
    are_lowest[np.argsort(hashes, kind="stable")[:MIN_HELD_OUT_VIDEOS]] = True
    return are_lowest
