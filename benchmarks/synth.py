"""What a synthetic video costs, to make and to prepare, at the sizes of `synth` and of the demo.

    python benchmarks/synth.py [--against OTHER/src] [--videos 24] [--repeats 5]

Processor milliseconds a video, of one process and its children, not wall time: so other work on the
machine matters less. `--against` measures another checkout of the package beside this one, such as
the one before a change. The checkouts and sizes take turns, each in a process of its own; the table
has the median over the turns and the lowest, and the ratios are medians of each turn's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

SIZES = {"256 px, 25 fps": (256, 25), "160 px, 10 fps": (160, 10)}

# Only functions that older versions have, too.
MEASURE = """
import json, os, sys
from pathlib import Path
from looklisten.data.prepare import prepare
from looklisten.media.synth.options import WorldOptions
from looklisten.media.synth.synth import synth

def processor_seconds():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system

folder, videos, side, fps, seed = Path(sys.argv[1]), *map(int, sys.argv[2:])
sizes = {"side_pixels": side, "frames_per_second": fps, "seconds": 3.0, "test_share": 0.0}
synth(folder / "first", WorldOptions(videos=1, seed=1, **sizes), workers=1)
prepare([folder / "first"], folder / "first-shards", workers=1)
begun = processor_seconds()
synth(folder / "videos", WorldOptions(videos=videos, seed=seed, **sizes), workers=1)
made = processor_seconds()
prepare([folder / "videos"], folder / "shards", workers=1)
prepared = processor_seconds()
print(json.dumps({"synth": made - begun, "prepare": prepared - made}))
"""


def measured(source: Path, videos: int, side: int, fps: int, seed: int) -> dict[str, float]:
    """Processor milliseconds a video of both verbs, by the package in `source`."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [folder, *map(str, (videos, side, fps, seed))]
        environment = os.environ | {"PYTHONPATH": str(source)}
        result = subprocess.run(
            [sys.executable, "-c", MEASURE, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
        )
    seconds = json.loads(result.stdout.splitlines()[-1])
    return {verb: 1e3 * value / videos for verb, value in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="the folder `src` of another checkout")
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    sources = {"this": Path(__file__).parents[1] / "src"}
    if options.against:
        sources = {"other": options.against.resolve()} | sources
    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for turn in range(options.repeats):
        for size, (side, fps) in SIZES.items():
            for name, source in sources.items():
                for verb, value in measured(source, options.videos, side, fps, turn).items():
                    times[verb, size, name].append(value)
    for (verb, size, name), values in times.items():
        print(
            f"{verb:8} {size:15} {name:6} median {statistics.median(values):6.1f} ms"
            f"  lowest {min(values):6.1f} ms"
        )
    first, *others = times
    for verb in ("synth", "prepare"):
        base = times[verb, first[1], first[2]]
        for key in others:
            if key[0] == verb and times[key] is not base:
                ratio = statistics.median(a / b for a, b in zip(base, times[key], strict=True))
                print(f"{verb}: {first[1]} ({first[2]}) / {key[1]} ({key[2]}) = {ratio:.2f}")


if __name__ == "__main__":
    main()
