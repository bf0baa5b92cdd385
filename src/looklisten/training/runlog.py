"""A run's diary: `metrics.jsonl` and TensorBoard's files, both cut back to the step that a resumed
run starts from.

Beside them `made.json`: what the run was made of, for the card of a network that leaves the house.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from looklisten.data.shards import Shards
from looklisten.system.environment import environment
from looklisten.system.files import atomic_write, write_json


class NoLog:
    """The diary of a process that keeps none."""

    def write(self, step: int, **values: float) -> None:
        pass

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class RunLog(NoLog):
    """Appends to the diary of the run in `folder`, forgetting what lies after `first_step`."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._path = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(folder) if row["step"] <= first_step]
        with atomic_write(self._path) as scratch:
            scratch.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(
            str(folder / "tensorboard"), purge_step=first_step + 1, flush_secs=30
        )

    def write(self, step: int, **values: float) -> None:
        """One line of `metrics.jsonl` and one point a curve."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; a last line that a crash cut short is left out."""
    rows = []
    path = folder / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def write_made(
    folder: Path, data: Shards, trained_on: NDArray[np.bool_], held_out: NDArray[np.bool_]
) -> None:
    """`made.json`: how much was trained on and how much held out (no name, no path), when the run
        began and on what machine.

    `trained_on` and `held_out` are `[clips]`.
    """
    amounts = _amounts(data, trained_on, held_out)
    write_json(
        folder / "made.json",
        amounts | {"began": f"{datetime.now(UTC):%Y-%m-%d}", "environment": environment()},
    )


def add_change(
    folder: Path,
    step: int,
    data: Shards,
    trained_on: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
) -> None:
    """Add to `made.json` that the run went on after `step` with other shards, and how much they
    hold.
    """
    made = read_made(folder)
    change = {"after_step": step} | _amounts(data, trained_on, held_out)
    write_json(folder / "made.json", made | {"other_data": [*made.get("other_data", []), change]})


def _amounts(
    data: Shards, trained_on: NDArray[np.bool_], held_out: NDArray[np.bool_]
) -> dict[str, Any]:
    hours = np.array(data.columns("duration_seconds")["duration_seconds"].to_pylist()) / 3600
    return {
        part: {
            "videos": len(set(data.video_ids[mask])),
            "clips": int(mask.sum()),
            "hours": float(hours[mask].sum()),
        }
        for part, mask in (("trained_on", trained_on), ("held_out", held_out))
    }


def read_made(folder: Path) -> dict[str, Any]:
    """What `write_made` wrote; empty where a run of an older version wrote nothing."""
    path = folder / "made.json"
    made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return made
