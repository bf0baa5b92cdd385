"""`made.json` of a run: how much it was trained on, when it began, and on what machine.

The card of a published network repeats these facts, so they hold no name and no path.
"""

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
    run: Path, data: Shards, trained_on: NDArray[np.bool_], held_out: NDArray[np.bool_]
) -> None:
    """Write the facts of a new run. `trained_on` and `held_out` are masks, `[clips]`."""
    facts = _amounts(data, trained_on, held_out)
    facts |= {"began": f"{datetime.now(UTC):%Y-%m-%d}", "environment": environment()}
    write_json(run / "made.json", facts)


def add_data_change(
    run: Path,
    step: int,
    data: Shards,
    trained_on: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
) -> None:
    """Add that the run was resumed after `step` with other shards, and how much they hold."""
    facts = read_run_facts(run)
    change = {"after_step": step} | _amounts(data, trained_on, held_out)
    changes = [*facts.get("other_data", []), change]
    write_json(run / "made.json", facts | {"other_data": changes})


def _amounts(
    data: Shards, trained_on: NDArray[np.bool_], held_out: NDArray[np.bool_]
) -> dict[str, Any]:
    hours = data.columns("duration_seconds")["duration_seconds"].to_numpy() / 3600
    amounts = {}
    for name, mask in (("trained_on", trained_on), ("held_out", held_out)):
        amounts[name] = {
            "videos": data.video_count(mask),
            "clips": int(mask.sum()),
            "hours": float(hours[mask].sum()),
        }
    return amounts


def read_run_facts(run: Path) -> dict[str, Any]:
    """What `write_run_facts` wrote; empty where a run of an older version wrote nothing."""
    path = run / "made.json"
    if not path.exists():
        return {}
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts
