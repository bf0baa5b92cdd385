"""Thousands of damaged files through `prepare`: nothing may crash it, hang it, or cost a good file.

    python benchmarks/fuzz.py VIDEOS [--files 2000] [--seed 0]

VIDEOS is a folder of short videos of many kinds; those that give clips are used. Each damaged file is one of them with bits
flipped, a block zeroed, overwritten, cut out, doubled or exchanged, the head or the tail damaged, the end missing, or another
file glued in. Every tenth is left as it is; its clips must come out as they do alone. Exit code 1 when anything is lost.
"""

import argparse
import hashlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from looklisten.data.prepare import prepare
from looklisten.data.shards import Clip, Shards
from looklisten.data.worker import Isolation


def damage(data: bytes, other: bytes, chance: random.Random) -> tuple[str, bytes]:
    """`data` with one kind of damage, drawn from `chance`."""
    size = len(data)
    at = chance.randrange(size)
    length = min(chance.choice((1, 16, 400, 4_000, 40_000)), size - at)
    kind = chance.choice(("flips", "head", "tail", "truncated", "zeros", "noise", "cut", "doubled", "exchanged", "glued"))
    changed = bytearray(data)
    if kind in ("flips", "head", "tail"):
        low, high = {"flips": (0, size), "head": (0, min(2_000, size)), "tail": (max(size - 4_000, 0), size)}[kind]
        for _ in range(chance.choice((1, 5, 50, 500))):
            changed[chance.randrange(low, high)] ^= 1 << chance.randrange(8)
    elif kind == "truncated":
        del changed[at:]
    elif kind in ("zeros", "noise"):
        changed[at : at + length] = bytes(length) if kind == "zeros" else chance.randbytes(length)
    elif kind == "cut":
        del changed[at : at + length]
    elif kind == "doubled":
        changed[at:at] = changed[at : at + length]
    elif kind == "exchanged":
        where = chance.randrange(size - length + 1)
        changed[at : at + length], changed[where : where + length] = changed[where : where + length], changed[at : at + length]
    else:
        changed[at : at + length] = other[:length]
    return kind, bytes(changed)


def contents(clips: list[Clip]) -> str:
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(repr((clip.start_seconds, clip.frame_seconds)).encode())
        digest.update(b"".join(clip.frames) + clip.waveform.tobytes())
    return digest.hexdigest()


def by_source(folder: Path) -> dict[str, list[Clip]]:
    found: dict[str, list[Clip]] = {}
    for clip in Shards(folder):
        found.setdefault(clip.source, []).append(clip)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that crashed or hung a decoder")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare([given.videos], folder / "alone")
        alone = {source: contents(clips) for source, clips in by_source(folder / "alone").items()}
        root = Path(json.loads((folder / "alone" / "index.json").read_text())["root"])
        originals = sorted(root / source for source in alone)
        kinds, good = Counter[str](), {}
        (folder / "files").mkdir()
        for number in range(given.files):
            original, other = chance.choice(originals), chance.choice(originals)
            target = folder / "files" / f"{number:06d}{original.suffix}"
            if number % 10 == 0:
                kind, data = "good", original.read_bytes()
                good[target.name] = alone[original.relative_to(root).as_posix()]
            else:
                kind, data = damage(original.read_bytes(), other.read_bytes(), chance)
            kinds[kind] += 1
            target.write_bytes(data)
        began = time.perf_counter()
        result = prepare([folder / "files"], folder / "out", limits=Isolation(stall_seconds=30))
        seconds = time.perf_counter() - began
        clips = by_source(folder / "out")
        told = {
            row["source"]
            for name in ("failures.jsonl", "skipped.jsonl")
            for row in map(json.loads, (folder / "out" / name).read_text().splitlines())
        }
        failures = [json.loads(line) for line in (folder / "out" / "failures.jsonl").read_text().splitlines()]
        lost_good = [name for name, digest in good.items() if contents(clips.get(name, [])) != digest]
        unaccounted = [f.name for f in (folder / "files").iterdir() if f.name not in clips and f.name not in told]
        for row in failures if given.keep else ():
            if row["stage"] == "worker":
                given.keep.mkdir(exist_ok=True)
                shutil.copy(folder / "files" / row["source"], given.keep)
        balanced = result["sources"] == given.files == result["prepared"] + result["skipped"] + result["failed"]
    report = {
        "files": given.files,
        "seed": given.seed,
        **{key: result[key] for key in ("prepared", "skipped", "failed", "clips", "marks")},
        "partly_recovered": sum(row["seconds_recovered"] > 0 for row in failures),
        "stages": dict(Counter(row["stage"] for row in failures)),
        "workers_lost": dict(Counter(row["reason"] for row in failures if row["stage"] == "worker")),
        "good_files": len(good),
        "good_files_that_lost_anything": lost_good,
        "files_nobody_speaks_of": unaccounted,
        "balanced": balanced,
        "seconds": round(seconds, 1),
        "damage": dict(kinds),
    }
    print(json.dumps(report))
    sys.exit(bool(lost_good or unaccounted or not balanced))


if __name__ == "__main__":
    main()
