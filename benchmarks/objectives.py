"""Objectives and negatives at equal steps: AVC and probe accuracy of each, several seeds.

    python benchmarks/objectives.py SHARDS OUT [--steps 500] [--seeds 0 1 2] [--only NAME ...]
    [--jobs 2]

Every variant is the recipe `tiny` with one thing changed, so that networks, batch and schedule are
the same. A run that OUT holds already is not run again; rows print as they come, then the means.
Labels are used for measuring only.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "yes or no, one re-pairing": {"train": {"negatives": "roll"}},
    "yes or no, all re-pairings (tiny)": {},
    "yes or no, half of the rows same-video": {
        "train": {"negatives": "same-video", "same_video_steps": 300}
    },
    "three frames a pair, all re-pairings": {"model": {"frames_per_pair": 3}},
    "contrastive, all re-pairings": {"train": {"objective": "contrastive"}},
    "contrastive, half of the rows same-video": {
        "train": {"objective": "contrastive", "negatives": "same-video", "same_video_steps": 300}
    },
}
MEASURES = ("avc", "positives", "negatives", "audio", "vision", "seconds")


def measure(shards: str, run: Path, name: str, steps: int, seed: int) -> dict[str, Any]:
    import looklisten as ll

    config = ll.Config.load("tiny")
    for section, values in VARIANTS[name].items():
        config = config.changed(section, **values)
    config = config.changed(
        "train",
        steps=steps,
        seed=seed,
        evaluate_every=10 * steps,
        probe_every=0,
        checkpoint_every=steps,
    )
    data = ll.Shards(shards)
    began = time.perf_counter()
    ll.train(shards, config, run)
    seconds = time.perf_counter() - began
    network = ll.open(run)
    found = ll.evaluate(network, data)
    sides = ll.probe(network, data, per_clip=2, seed=seed)
    return {
        "name": name,
        "seed": seed,
        "steps": steps,
        "avc": found.accuracy,
        "positives": found.positives_right,
        "negatives": found.negatives_right,
        "audio": sides["audio"].accuracy,
        "vision": sides["vision"].accuracy,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument(
        "--jobs", type=int, default=2, help="runs at a time, each on its share of the cores"
    )
    parser.add_argument(
        "--one",
        nargs=2,
        metavar=("NAME", "SEED"),
        help="run just this one and write its JSON; used by the command itself",
    )
    options = parser.parse_args()
    folder = options.out / str(options.steps)

    def record(name: str, seed: int) -> Path:
        return folder / f"{list(VARIANTS).index(name)}-{seed}.json"

    if options.one:
        name, seed = options.one[0], int(options.one[1])
        result = measure(
            options.shards, record(name, seed).with_suffix(""), name, options.steps, seed
        )
        record(name, seed).write_text(json.dumps(result) + "\n")
        return
    folder.mkdir(parents=True, exist_ok=True)
    threads = max((os.cpu_count() or 1) // options.jobs, 1)

    def run(task: tuple[str, int]) -> None:
        name, seed = task
        if not record(name, seed).exists():
            command = [
                sys.executable,
                __file__,
                options.shards,
                str(options.out),
                "--steps",
                str(options.steps),
                "--one",
                name,
                str(seed),
            ]
            subprocess.run(
                command,
                check=True,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                stderr=subprocess.DEVNULL,
            )
        print(record(name, seed).read_text(), end="", flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, [(name, seed) for seed in options.seeds for name in options.only]))
    print(
        f"\n| variant, {options.steps} steps | "
        + " | ".join(MEASURES)
        + " |\n| --- |"
        + " --- |" * len(MEASURES)
    )
    for name in options.only:
        rows = [json.loads(record(name, seed).read_text()) for seed in options.seeds]
        cells = []
        for key in MEASURES:
            values = [row[key] for row in rows]
            spread = (
                f" ({min(values):.3f} – {max(values):.3f})"
                if len(values) > 1 and key != "seconds"
                else ""
            )
            mean = statistics.mean(values)
            cells.append(f"{mean:.0f}" if key == "seconds" else f"{mean:.3f}{spread}")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
