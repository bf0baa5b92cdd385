"""Training from scratch on the folds of `real.py`: the shards of a fold, and one run for each.

No clip is decoded again: the shards of a fold are links to those of all clips, beside a table that
calls the clips of the fold `test`. Clips of other sets may be trained on too.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import looklisten as ll
from looklisten.data.clip_columns import COLUMNS_FILE, columns_of_shards, write_columns
from looklisten.model.l3net import L3Net

EVALUATED_PAIRS = 100
"""Few, because nothing is chosen by the accuracy on the fold that training measures."""


@dataclass(frozen=True)
class Scratch:
    """What a network is trained with, and where its runs stay."""

    recipe: str
    """A recipe, or the path of a TOML file."""
    seed: int
    shards: Path
    """All clips."""
    others: tuple[Path, ...]
    """Shards whose clips of the split `train` are trained on in every fold."""
    out: Path

    @property
    def name(self) -> str:
        """Of the row in the table."""
        others = f" and {', '.join(folder.parent.name for folder in self.others)}"
        clips = f"on the other folds{others if self.others else ''}"
        return f"{Path(self.recipe).stem}, from scratch {clips}, seed {self.seed}"

    def run(self, test: NDArray[np.bool_]) -> tuple[L3Net, float]:
        """The network that did not see the clips of the mask `test`, and its processor seconds.

        A run that is there is not repeated, and one that was interrupted is resumed.
        """
        fold = _digest([*np.flatnonzero(test).tolist(), *map(str, self.others)])
        run = self.out / f"{Path(self.recipe).stem}-seed{self.seed}-{fold}"
        facts_file = run / "scratch.json"
        facts = {"finished": False, "processor_seconds": 0.0}
        if facts_file.is_file():
            facts = json.loads(facts_file.read_text())
        if not facts["finished"]:
            shards = self.out / f"shards-{fold}"
            if not (shards / "index.json").is_file():
                link_shards(self.shards, test, self.others, shards)
            config = ll.Config.load(self.recipe).changed("train", seed=self.seed)
            before = sum(os.times()[:4])
            result = ll.train(shards, config, run, evaluated_pairs=EVALUATED_PAIRS)
            facts["finished"] = not result.stopped_by
            facts["processor_seconds"] += sum(os.times()[:4]) - before
            facts_file.write_text(json.dumps(facts))
        if not facts["finished"]:
            raise SystemExit(f"{run} was stopped by a signal; the same command continues")
        return ll.load(run), facts["processor_seconds"]


def link_shards(
    shards: Path, test: NDArray[np.bool_], others: Sequence[Path], target: Path
) -> None:
    """Shards of all clips, those of the mask `test` as such, and of the sets `others`."""
    target.mkdir(parents=True, exist_ok=True)
    entries, tables = [], []
    for number, folder in enumerate([shards, *others]):
        index = json.loads((folder / "index.json").read_text())
        linked = [_link(folder, number, entry, target) for entry in index["shards"]]
        columns = columns_of_shards(target, linked)
        splits = np.where(test, "test", "train") if number == 0 else columns["split"].to_numpy()
        # Sets number their videos alike.
        ids = [f"{number}/{name}" for name in columns["video_id"].to_pylist()]
        entries += linked
        tables.append(_with(columns, split=splits, video_id=ids))
    video_ids = [table["video_id"] for table in tables]
    write_columns(target / COLUMNS_FILE, video_ids, tables, entries)
    index = json.loads((shards / "index.json").read_text())
    counts = {"clips": sum(entry["clips"] for entry in entries)}
    (target / "index.json").write_text(json.dumps(index | counts | {"shards": entries}))


def _link(folder: Path, number: int, entry: dict[str, Any], target: Path) -> dict[str, Any]:
    """Link one file of a set; its entry in the index, under a name that no other set has."""
    name = f"clips-{number:06}-{_digest([entry['name']])}.arrow"
    link = target / name
    link.unlink(missing_ok=True)
    link.symlink_to((folder / entry["name"]).resolve())
    return entry | {"name": name}


def _with(table: pa.Table, **columns: Any) -> pa.Table:
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        field = table.schema.field(name)
        table = table.set_column(place, field, pa.chunked_array([pa.array(values, field.type)]))
    return table


def _digest(values: Sequence[Any]) -> str:
    return hashlib.sha256(" ".join(map(str, values)).encode()).hexdigest()[:8]
