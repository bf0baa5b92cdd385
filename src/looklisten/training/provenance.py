"""Which videos a run was trained on and which it held out: recorded, and compared on resuming.

`data.json` of a run has one entry for each set of shards that it was trained on, with digests and
counts. The video ids of an entry are in `data/from-step-NNNNNNNNN.parquet`. Knows shards and files,
no network.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from looklisten.data.shards import Shards
from looklisten.errors import CheckpointError
from looklisten.model.training_videos import (
    HELD_OUT,
    RECORD_NAME,
    TRAINED_ON,
    read_record,
    read_video_ids,
)
from looklisten.names import first_few
from looklisten.system.files import atomic_write, write_json

_log = logging.getLogger("looklisten")

_VideosByPart = Mapping[str, frozenset[str]]

_Entry = dict[str, Any]
"""An entry of `data.json`."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Which shards a training reads, and which of their videos it uses for what."""

    path: str
    files: tuple[tuple[str, str], ...]
    """Name and sha256 of each shard."""
    trained_on: tuple[str, ...]
    kept_apart: tuple[str, ...]
    """Sorted video ids of the held-out videos, and of those that thresholds are chosen with."""

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """Equal for equal shards and for equal sets of videos."""
        return {
            "shards": _digest(sorted(f"{name} {sha256}" for name, sha256 in self.files)),
            "trained_on": _digest(self.trained_on),
            "kept_apart": _digest(self.kept_apart),
        }


def training_data(
    data: Shards, trained_on: NDArray[np.bool_], kept_apart: NDArray[np.bool_]
) -> TrainingData:
    """The data of a training on the clips `trained_on`; it never reads the clips `kept_apart`.

    Both are masks, `[clips]`.
    """
    files = tuple((str(shard["name"]), str(shard["sha256"])) for shard in data.manifest["shards"])
    return TrainingData(
        path=str(data.path),
        files=files,
        trained_on=tuple(data.video_list(trained_on)),
        kept_apart=tuple(data.video_list(kept_apart)),
    )


def start_record(run: Path, data: TrainingData) -> None:
    """Write the record of a new run."""
    both = set(data.kept_apart).intersection(data.trained_on)
    if both:
        _log.warning(
            "%d videos of %s have clips both to train on and held out (%s): "
            "the accuracy on held-out videos is too high for them",
            len(both),
            data.path,
            first_few(sorted(both)),
        )
    _add_entry(run, [], data, 0)


def continue_record(run: Path, data: TrainingData, step: int, other_data: bool = False) -> bool:
    """Compare `data` with what `run` was trained on up to `step`; warn of a change and record it.

    Returns whether anything changed. Raises CheckpointError when videos that were kept apart would
    be trained on, unless `other_data` allows it.
    """
    # An entry of this step or a later one belongs to steps that were lost.
    entries = [entry for entry in read_record(run) if entry["from_step"] < step]
    if not entries:
        _log.info(
            "%s does not say which videos it was trained on; %s says it from step %d on",
            run,
            run / RECORD_NAME,
            step + 1,
        )
        _add_entry(run, [], data, step)
        return False
    recorded = read_video_ids(run, entries)
    if recorded is None:
        _accept_missing_lists(run, other_data)
        _add_entry(run, entries, data, step)
        return True
    last = entries[-1]
    if last["sha256"] == data.digests:
        # Entries of lost steps are removed, so that the record tells what the weights have seen.
        if len(entries) < len(read_record(run)):
            write_json(run / RECORD_NAME, {"trained_on": entries})
        return False
    _report_change(run, data, step, last, recorded, other_data)
    _add_entry(run, entries, data, step)
    return True


def _accept_missing_lists(run: Path, other_data: bool) -> None:
    """Raises CheckpointError when the lists of video ids are missing, unless it is allowed."""
    problem = (
        f"{run / 'data'} lacks the lists of videos that {run / RECORD_NAME} names, "
        f"or they cannot be read"
    )
    if not other_data:
        raise CheckpointError(
            f"{problem}, so nobody can see whether held-out videos would be trained on. "
            f"Copy the folder data of this run back, or give --resume other-data to resume it all "
            f"the same"
        )
    _log.warning("%s; the run is resumed all the same", problem)


def _report_change(
    run: Path,
    data: TrainingData,
    step: int,
    last: _Entry,
    recorded: _VideosByPart,
    other_data: bool,
) -> None:
    """Warn of other shards; raises CheckpointError when they would train on held-out videos."""
    before = f"{run} was trained on {last['shards']} until step {step}"
    leaked = (recorded[HELD_OUT] - recorded[TRAINED_ON]).intersection(data.trained_on)
    if leaked and not other_data:
        raise CheckpointError(
            f"{before}, and {len(leaked)} videos that were held out then would be trained on now "
            f"({first_few(sorted(leaked))}), so that nothing could be measured on them any more. "
            f"Give the earlier shards, another run folder, or --resume other-data to train on "
            f"them all the same"
        )
    _log.warning(
        "%s, and is resumed with %s, which %s; %s says so",
        before,
        data.path,
        _describe_change(recorded, last, data),
        run / RECORD_NAME,
    )
    if leaked:
        _log.warning(
            "%d videos that were held out until step %d are trained on from now on (%s)",
            len(leaked),
            step,
            first_few(sorted(leaked)),
        )
    now_held_out = recorded[TRAINED_ON].intersection(data.kept_apart)
    if now_held_out:
        _log.warning(
            "%d videos that were trained on are held out now (%s): "
            "the accuracy on held-out videos is too high for them",
            len(now_held_out),
            first_few(sorted(now_held_out)),
        )


def _describe_change(recorded: _VideosByPart, last: _Entry, data: TrainingData) -> str:
    """In words, what other shards change."""
    trained_on = set(data.trained_on)
    added = len(trained_on - recorded[TRAINED_ON])
    removed = len(recorded[TRAINED_ON] - trained_on)
    changes = []
    if added:
        changes.append(f"has {added} videos to train on that were not trained on before")
    if removed:
        changes.append(f"does not train on {removed} of the earlier videos")
    if changes:
        return " and ".join(changes)
    if last["sha256"]["kept_apart"] == data.digests["kept_apart"]:
        return "has the same videos in other shards"
    return "has the same videos to train on and holds out others"


def _add_entry(run: Path, entries: list[_Entry], data: TrainingData, step: int) -> None:
    """Write the record with one more entry."""
    ids_by_part = {TRAINED_ON: data.trained_on, HELD_OUT: data.kept_apart}
    name = f"data/from-step-{step:09d}.parquet"
    # The list is written before the entry, so that every entry of the record has its list.
    _write_ids(run / name, ids_by_part)
    counts = {part.replace(" ", "_"): len(ids) for part, ids in ids_by_part.items()}
    entry = {
        "from_step": step,
        "shards": data.path,
        "files": len(data.files),
        "videos": counts,
        "sha256": data.digests,
        "ids": name,
    }
    write_json(run / RECORD_NAME, {"trained_on": [*entries, entry]})


def _write_ids(path: Path, ids_by_part: Mapping[str, Sequence[str]]) -> None:
    counts = [len(ids) for ids in ids_by_part.values()]
    # By number, because millions of texts of Python take seconds.
    numbers = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    table = pa.table(
        {
            "video_id": pa.chunked_array(
                [pa.array(ids, pa.string()) for ids in ids_by_part.values()]
            ),
            "part": pa.DictionaryArray.from_arrays(numbers, pa.array(list(ids_by_part))),
        }
    )
    with atomic_write(path) as scratch:
        pq.write_table(table, scratch, compression="zstd")


def _digest(lines: Sequence[str]) -> str:
    """sha256 of sorted texts, each on a line as JSON, in hexadecimal."""
    # One call for all of them, because there may be millions. The texts of JSON hold no newline.
    as_list = json.dumps(lines, separators=("\n", ":"))
    text = as_list[1:-1] + "\n" if lines else ""
    return hashlib.sha256(text.encode()).hexdigest()
