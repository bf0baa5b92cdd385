"""Maps of several runs of one recipe on the same held-out moments: the mean of each figure, and how
far the seeds lie apart.

    python benchmarks/localization.py SHARDS RUN [RUN ...] [--per-clip 1] [--seed 0] [--out
    localization.json]

Each run is asked the same questions (`--seed` draws the sounds): its own sound, silence, a sound of
what is not seen, and the sound of the silent thing beside. Clips that the shards hold out are
measured. Runs already in `--out` with these settings are not measured again.
"""

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

COLUMNS = (
    "pointing",
    "with_silent",
    "on_silent",
    "ciou",
    "auc",
    "average_precision",
    "max_f1",
    "pointing_precision",
    "followed",
    "stayed",
    "mismatched",
    "silence",
)


def measure(shards: str, run: str, per_clip: int, seed: int) -> dict[str, Any]:
    import looklisten as ll

    network = ll.open(run)
    began = time.perf_counter()
    table = ll.localization(network, shards, per_clip=per_clip, seed=seed)
    told = table.as_dict()
    merged = [
        places | others
        for places, others in zip(told.pop("rows"), told.pop("other_sounds"), strict=True)
    ]
    return {
        "run": run,
        "per_clip": per_clip,
        "seed": seed,
        "seconds": round(time.perf_counter() - began),
        **told,
        "rows": merged,
    }


def cell(values: list[float]) -> str:
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return "–"
    spread = (
        f" ({min(known):.3f} – {max(known):.3f})"
        if len(known) > 1 and max(known) > min(known)
        else ""
    )
    return f"{statistics.mean(known):.3f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--per-clip", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("localization.json"))
    options = parser.parse_args()
    kept = json.loads(options.out.read_text()) if options.out.exists() else {}
    results = []
    for run in options.runs:
        key = f"{options.shards} {run} {options.per_clip} {options.seed}"
        if key not in kept:
            kept[key] = measure(options.shards, run, options.per_clip, options.seed)
            options.out.write_text(json.dumps(kept, indent=1) + "\n")
        results.append(kept[key])
        counts = f"{kept[key]['moments']} moments of {kept[key]['videos']} videos"
        print(f"{run}: {counts}, {kept[key]['seconds']} s", file=sys.stderr)
    print(
        f"| {len(results)} runs, {results[0]['moments']} moments | "
        + " | ".join(COLUMNS).replace("_", " ")
        + " |"
    )
    print("| --- |" + " --- |" * len(COLUMNS))
    for name in dict.fromkeys(row["name"] for one in results for row in one["rows"]):
        rows = [row for one in results for row in one["rows"] if row["name"] == name]
        print(
            f"| {name} | "
            + " | ".join(cell([row[column] for row in rows]) for column in COLUMNS)
            + " |"
        )


if __name__ == "__main__":
    main()
