"""Which videos a run was trained on, and which it kept apart: written beside the run, and asked
when it goes on.

`data.json` has one entry for each set of shards that the run was trained on, with digests and
counts. The video ids of an entry are in `data/from-step-NNNNNNNNN.parquet`. Knows shards and files,
no network.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterable
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
from looklisten.system.files import atomic_write, write_json

log = logging.getLogger("looklisten")

NAMED_VIDEOS = 3
"""Video ids that a sentence names."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Which shards a training reads, which of their videos it trains on, and which it keeps apart."""

    path: str
    files: tuple[tuple[str, str], ...]
    """Name and sha256 of each shard."""
    trained_on: frozenset[str]
    kept_apart: frozenset[str]
    """Video ids of the held-out videos, and of those that thresholds are chosen on."""

    def digests(self) -> dict[str, str]:
        """Equal for equal shards and for equal sets of videos, whatever their order."""
        return {
            "shards": _digest(f"{name} {sha256}" for name, sha256 in self.files),
            "trained_on": _digest(self.trained_on),
            "kept_apart": _digest(self.kept_apart),
        }


def training_data(
    data: Shards, allowed: NDArray[np.bool_], kept_apart: NDArray[np.bool_]
) -> TrainingData:
    """What a training on the clips `allowed`, `[clips]`, reads; `kept_apart`, `[clips]`, are those
    it must never see.
    """
    files = tuple((str(shard["name"]), str(shard["sha256"])) for shard in data.manifest["shards"])
    trained_on = frozenset(np.unique(data.video_ids[allowed]).tolist())
    return TrainingData(
        str(data.path), files, trained_on, frozenset(np.unique(data.video_ids[kept_apart]).tolist())
    )


def start_record(run: Path, data: TrainingData) -> None:
    """The record of a run that begins."""
    both = data.trained_on & data.kept_apart
    if both:
        log.warning(
            "%d videos of %s have clips both to train on and held out (%s): the accuracy on held-out videos is too high for them",
            *(len(both), data.path, some(both)),
        )
    _write(run, [], data, 0)


def continue_record(run: Path, data: TrainingData, step: int, other_data: bool = False) -> bool:
    """Compare `data` with what `run` was trained on up to `step`. Say and record what changed;
    whether anything did.

    Raises CheckpointError when videos that were kept apart would be trained on, unless `other_data`
    allows it.
    """
    # What was recorded at this very step took no step that is left.
    entries = [entry for entry in read_record(run) if entry["from_step"] < step]
    found = read_video_ids(run, entries)
    if entries and found is None:
        lacking = f"{run / 'data'} lacks the lists of videos that {run / RECORD_NAME} names, or they cannot be read"
        if not other_data:
            raise CheckpointError(
                f"{lacking}, so nobody can see whether held-out videos would be trained on. Copy the folder data of this "
                f"run back, or give --resume other-data to go on all the same"
            )
        log.warning("%s; the run goes on all the same", lacking)
        _write(run, entries, data, step)
        return True
    if found is None:
        log.info(
            "%s does not say which videos it was trained on; %s says it from step %d on",
            run,
            run / RECORD_NAME,
            step + 1,
        )
        _write(run, [], data, step)
        return False
    last = entries[-1]
    if last["sha256"] == data.digests():
        if len(entries) < len(read_record(run)):
            write_json(run / RECORD_NAME, {"trained_on": entries})
        return False
    before = f"{run} was trained on {last['shards']} until step {step}"
    leaked = (found[HELD_OUT] - found[TRAINED_ON]) & data.trained_on
    if leaked and not other_data:
        raise CheckpointError(
            f"{before}, and {len(leaked)} videos that were held out then would be trained on now ({some(leaked)}), so that nothing could "
            f"be measured on them any more. Give the shards of before, another run folder, or --resume other-data to train on them "
            f"all the same"
        )
    log.warning(
        "%s, and goes on with %s, which %s; %s says so",
        before,
        data.path,
        _change(found, last, data),
        run / RECORD_NAME,
    )
    if leaked:
        log.warning(
            "%d videos that were held out until step %d are trained on from now on (%s)",
            len(leaked),
            step,
            some(leaked),
        )
    seen = found[TRAINED_ON] & data.kept_apart
    if seen:
        log.warning(
            "%d videos that were trained on are held out now (%s): the accuracy on held-out videos is too high for them",
            *(len(seen), some(seen)),
        )
    _write(run, entries, data, step)
    return True


def some(video_ids: Collection[str]) -> str:
    """A few of them, in order."""
    named = ", ".join(sorted(video_ids)[:NAMED_VIDEOS])
    return f"{named}, …" if len(video_ids) > NAMED_VIDEOS else named


def _change(found: dict[str, frozenset[str]], last: dict[str, Any], data: TrainingData) -> str:
    """In words, what other shards change."""
    more = len(data.trained_on - found[TRAINED_ON])
    fewer = len(found[TRAINED_ON] - data.trained_on)
    said = []
    if more:
        said.append(f"has {more} videos to train on that were not trained on before")
    if fewer:
        said.append(f"does not train on {fewer} of the videos before")
    if not said:
        same = last["sha256"]["kept_apart"] == data.digests()["kept_apart"]
        said.append(
            "has the same videos in other shards"
            if same
            else "has the same videos to train on and holds out others"
        )
    return " and ".join(said)


def _write(run: Path, entries: list[dict[str, Any]], data: TrainingData, step: int) -> None:
    """Add an entry: its ids first, so that every entry of the record has them."""
    name = f"data/from-step-{step:09d}.parquet"
    ids = {TRAINED_ON: sorted(data.trained_on), HELD_OUT: sorted(data.kept_apart)}
    parts = pa.array(
        [part for part, videos in ids.items() for _ in videos], pa.string()
    ).dictionary_encode()
    table = pa.table(
        {"video_id": pa.array([*ids[TRAINED_ON], *ids[HELD_OUT]], pa.string()), "part": parts}
    )
    with atomic_write(run / name) as scratch:
        pq.write_table(table, scratch, compression="zstd")
    entry = {
        "from_step": step,
        "shards": data.path,
        "files": len(data.files),
        "videos": {part.replace(" ", "_"): len(videos) for part, videos in ids.items()},
        "sha256": data.digests(),
        "ids": name,
    }
    write_json(run / RECORD_NAME, {"trained_on": [*entries, entry]})


def _digest(lines: Iterable[str]) -> str:
    """sha256 of the lines in order of the alphabet, in hexadecimal."""
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()
