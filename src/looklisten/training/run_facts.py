"""What a run was made of."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from looklisten.data.shards import Shards
from looklisten.system.environment import environment
from looklisten.system.files import write_json


def write_run_facts(
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


def add_data_change(
    folder: Path,
    step: int,
    data: Shards,
    trained_on: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
) -> None:
    """Add to `made.json` that the run went on after `step` with other shards, and how much they
    hold.
    """
    made = read_run_facts(folder)
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


def read_run_facts(folder: Path) -> dict[str, Any]:
    """What `write_run_facts` wrote; empty where a run of an older version wrote nothing."""
    path = folder / "made.json"
    made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return made
