"""What it is worth that the shell's programs keep the memory they free
(`looklisten.system.processes.keep_freed_memory`).

    python benchmarks/allocator.py [--config tiny] [--batch 64] [--steps 40] [--turns 5] [--threads
    N] [--json]

Two new processes take turns, one with glibc's allocator as it comes, one told to keep what is
freed, since an allocator cannot be set back. Each takes the product's own training steps on noise
that lies in memory, after five that are not counted. Printed are the pairs a second, the
processor's seconds a step in the program and in the system, the most memory that was resident, and
the median over the turns of the ratio of their times, with the lowest and the highest.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from looklisten.config import Config
from looklisten.system.processes import keep_freed_memory
from looklisten.training.meter import PAIRS_PER_VIDEO

WARM_STEPS = 5


def measured(
    config_name: str, size: int, steps: int, threads: int | None, keep: bool
) -> dict[str, float]:
    """The figures of this process."""
    from step_time import product_step

    from looklisten.app.demo_time import noise_batch

    if keep:
        keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    config = Config.load(config_name).changed("train", batch_size=size, accumulate=1)
    step, _ = product_step(config, noise_batch(config, size), "cpu", compiled=False)
    for _ in range(WARM_STEPS):
        step()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(steps):
        step()
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "videos_per_second": size * steps / seconds,
        "pairs_per_second": PAIRS_PER_VIDEO * size * steps / seconds,
        "program_seconds": (after.ru_utime - before.ru_utime) / steps,
        "system_seconds": (after.ru_stime - before.ru_stime) / steps,
        "resident_megabytes": after.ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="tiny")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=["as it comes", "kept"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(
            json.dumps(
                measured(
                    given.config, given.batch, given.steps, given.threads, given.child == "kept"
                )
            )
        )
        return
    turns: dict[str, list[dict[str, float]]] = {"as it comes": [], "kept": []}
    for _ in range(given.turns):
        for way, found in turns.items():
            told = subprocess.run(
                [sys.executable, *sys.argv, "--child", way],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found.append(json.loads(told.stdout))
    ratios = [
        kept["pairs_per_second"] / plain["pairs_per_second"]
        for plain, kept in zip(turns["as it comes"], turns["kept"], strict=True)
    ]
    result: dict[str, Any] = {
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "config": given.config,
        "batch": given.batch,
        "threads": given.threads or torch.get_num_threads(),
        "torch": torch.__version__,
    } | {
        way: {name: statistics.median(turn[name] for turn in found) for name in found[0]}
        for way, found in turns.items()
    }
    if given.json:
        print(json.dumps(result))
        return
    for way in turns:
        print(
            "{0:12}  {videos_per_second:8.1f} videos/s  {pairs_per_second:8.1f} pairs/s  "
            "a step {program_seconds:.3f} s in the program, "
            "{system_seconds:.3f} s in the system  {resident_megabytes:.0f} MB".format(
                way, **result[way]
            )
        )
    print("kept is {ratio:.2f} times as fast ({lowest:.2f} to {highest:.2f})".format(**result))


if __name__ == "__main__":
    main()
