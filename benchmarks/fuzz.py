"""Thousands of damaged files through `prepare`, `embed` and `localize`: nothing may crash them,
hang them, or cost a good file.

    python benchmarks/fuzz.py VIDEOS [--files 2000] [--seed 0] [--verbs prepare embed localize]

The files are dealt out to the verbs, so that each file is seen by one. VIDEOS is a folder of short
videos of many kinds; those that give clips are used. Each damaged file is one of them with bits
flipped, a block zeroed, overwritten, cut out, doubled or exchanged, the head or the tail damaged,
the end missing, or another file glued in. Every tenth is left as it is; its clips, vectors or maps
must come out as they do alone. Every verb runs in a program of its own, with a small untrained
network. Exit code 1 when a program dies or hangs, a good file loses anything, or a file is neither
done nor named.
"""

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

import looklisten as ll
from looklisten.data.clips import Clip
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.errors import DecoderLostError
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.media.isolation.parent import use_limits

VERBS = ("prepare", "embed", "localize")
STALL_SECONDS = 30
HOP_SECONDS = 2.0
"""Decoding is what is tried, so the network gets little to do."""
SILENT_SECONDS = 900
"""A verb that finishes no file for so long hangs."""


def damage(data: bytes, other: bytes, chance: random.Random) -> tuple[str, bytes]:
    """`data` with one kind of damage, drawn from `chance`."""
    size = len(data)
    at = chance.randrange(size)
    length = min(chance.choice((1, 16, 400, 4_000, 40_000)), size - at)
    kind = chance.choice(
        (
            "flips",
            "head",
            "tail",
            "truncated",
            "zeros",
            "noise",
            "cut",
            "doubled",
            "exchanged",
            "glued",
        )
    )
    changed = bytearray(data)
    if kind in ("flips", "head", "tail"):
        low, high = {
            "flips": (0, size),
            "head": (0, min(2_000, size)),
            "tail": (max(size - 4_000, 0), size),
        }[kind]
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
        changed[at : at + length], changed[where : where + length] = (
            changed[where : where + length],
            changed[at : at + length],
        )
    else:
        changed[at : at + length] = other[:length]
    return kind, bytes(changed)


def clip_digest(clips: list[Clip]) -> str:
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(repr((clip.start_seconds, clip.frame_seconds)).encode())
        digest.update(b"".join(clip.frames) + clip.waveform.tobytes())
    return digest.hexdigest()


def array_digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()


# What each verb makes of a folder: for each file a digest of what came out, and the reason when
# something was wrong with it.

Outcome = dict[str, dict[str, Any]]


def prepared(files: Path, out: Path, network: Path) -> Outcome:
    del network
    result = prepare([files], out, limits=WorkerLimits(stall_seconds=STALL_SECONDS))
    outcome: Outcome = {}
    clips: dict[str, list[Clip]] = {}
    for clip in Shards(out):
        clips.setdefault(clip.source, []).append(clip)
    for name, own in clips.items():
        outcome[name] = {"digest": clip_digest(own)}
    for list_name in ("failures.jsonl", "skipped.jsonl"):
        for row in map(json.loads, (out / list_name).read_text().splitlines()):
            lost = row.get("stage") == "worker"
            outcome.setdefault(row["source"], {}).update(reason=row["reason"], lost=lost)
    if result["sources"] != result["prepared"] + result["skipped"] + result["failed"]:
        raise SystemExit("prepare's counts do not add up")
    return outcome


def embedded(files: Path, out: Path, network: Path) -> Outcome:
    command = [
        sys.executable,
        "-m",
        "looklisten",
        "embed",
        str(files),
        "--checkpoint",
        str(network),
        "-o",
        str(out),
        "--json",
    ]
    command += ["--hop-seconds", str(HOP_SECONDS)]
    done = subprocess.run(
        [*command, "--stall-seconds", str(STALL_SECONDS)], check=False, stdout=subprocess.PIPE
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"embed ended with code {done.returncode}")
    outcome: Outcome = {}
    for file in out.glob("*.npz"):
        arrays = np.load(file)
        kept = {name: arrays[name] for name in arrays.files if name != "about"}
        outcome[file.name.removesuffix(".npz")] = {"digest": array_digest(kept)}
    for row in map(json.loads, (out / "failures.jsonl").read_text().splitlines()):
        outcome.setdefault(row["source"], {}).update(
            reason=row["reason"], lost=row.get("decoder_lost", False)
        )
    return outcome


def localized(files: Path, out: Path, network: Path) -> Outcome:
    """Maps and the film of each video, one after the other in this program."""
    torch.set_num_threads(1)  # so that maps are the same to the bit, whatever else runs
    model = ll.load(network)
    outcome: Outcome = {}
    out.mkdir()
    with use_limits(WorkerLimits(stall_seconds=STALL_SECONDS)):
        paths = sorted(files.iterdir())
        for number, file in enumerate(paths):
            if number % 10 == 0:
                print(f"localize: {number} of {len(paths)} files", file=sys.stderr, flush=True)
            try:
                found = ll.localize(file, model, every_seconds=HOP_SECONDS)
                maps = {f"{at:06d}": one.frame_map.values for at, one in enumerate(found)}
                outcome[file.name] = {"digest": array_digest(maps)}
                ll.overlay(file, found, out / "film.mp4")
            except ll.LookListenError as error:
                outcome.setdefault(file.name, {}).update(
                    reason=str(error), lost=isinstance(error, DecoderLostError)
                )
            (out / "beat").touch()
    return outcome


RUNS = dict(zip(VERBS, (prepared, embedded, localized), strict=True))


def run_apart(verb: str, files: Path, out: Path, network: Path) -> tuple[Outcome, str]:
    """The outcome of a verb in a program of its own, and how that program ended, if not well."""
    report = out.with_suffix(".json")
    program = subprocess.Popen(
        [sys.executable, __file__, "--one", verb, str(files), str(out), str(network), str(report)]
    )
    began = time.time()
    while program.poll() is None:
        time.sleep(1)
        newest = max(
            [began, *(path.stat().st_mtime for path in [out, *out.glob("*")] if path.exists())]
        )
        if time.time() - newest > SILENT_SECONDS:
            program.kill()
            program.wait()
            return {}, f"nothing was finished for {SILENT_SECONDS} s"
    if program.returncode:
        return {}, f"the program ended with code {program.returncode}"
    outcome: Outcome = json.loads(report.read_text())
    return outcome, ""


def small_network(folder: Path) -> Path:
    """An untrained network, small enough that decoding takes most of the time."""
    torch.manual_seed(0)
    config = ll.Config.load("tiny").changed(
        "model", widths=(4, 8, 8, 16), resize_pixels=64, crop_pixels=48
    )
    return ll.save_pretrained(ll.L3Net(config.model).eval(), folder)


def damaged_files(
    originals: list[Path], folder: Path, count: int, chance: random.Random
) -> tuple[dict[str, str], Counter[str]]:
    """Write `count` files; returns the good ones with the originals that they are copies of, and
    the kinds of damage.
    """
    folder.mkdir()
    good, kinds = {}, Counter[str]()
    for number in range(count):
        original, other = chance.choice(originals), chance.choice(originals)
        target = folder / f"{number:06d}{original.suffix}"
        if number % 10 == 0:
            kind, data = "good", original.read_bytes()
            good[target.name] = original.name
        else:
            kind, data = damage(original.read_bytes(), other.read_bytes(), chance)
        kinds[kind] += 1
        target.write_bytes(data)
    return good, kinds


def fuzzed(
    verb: str, videos: Path, count: int, chance: random.Random, scratch: Path, keep: Path | None
) -> dict[str, Any]:
    """One verb over its share of the files: counts, and what was lost."""
    network = small_network(scratch / "network")
    alone, ended = run_apart(verb, videos, scratch / f"{verb}-alone", network)
    if ended:
        return {"files": 0, "ended": f"over the whole files: {ended}"}
    originals = sorted(
        videos / name
        for name, about in alone.items()
        if "digest" in about and "reason" not in about
    )
    files = scratch / f"{verb}-files"
    good, kinds = damaged_files(originals, files, count, chance)
    began = time.perf_counter()
    outcome, ended = run_apart(verb, files, scratch / verb, network)
    seconds = time.perf_counter() - began
    reasons = Counter(
        about["reason"].partition(": ")[2] for about in outcome.values() if about.get("lost")
    )
    for name in [name for name, about in outcome.items() if about.get("lost") and keep]:
        assert keep is not None
        keep.mkdir(exist_ok=True)
        shutil.copy(files / name, keep / f"{verb}-{name}")
    return {
        "files": count,
        "ended": ended,
        "whole": sum("digest" in about and "reason" not in about for about in outcome.values()),
        "partly": sum("digest" in about and "reason" in about for about in outcome.values()),
        "nothing": sum("digest" not in about for about in outcome.values()),
        "decoders_lost": sum(reasons.values()),
        "how_they_were_lost": dict(reasons),
        "good_files": len(good),
        "good_files_that_lost_anything": [
            n for n, o in good.items() if outcome.get(n, {}).get("digest") != alone[o]["digest"]
        ],
        "files_nobody_speaks_of": [
            file.name for file in files.iterdir() if file.name not in outcome
        ],
        "seconds": round(seconds, 1),
        "damage": dict(kinds),
    }


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        verb, files, out, network, report = sys.argv[2:]
        Path(report).write_text(json.dumps(RUNS[verb](Path(files), Path(out), Path(network))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", type=Path)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=VERBS)
    parser.add_argument(
        "--keep", type=Path, help="folder for the files that crashed or hung a decoder"
    )
    given = parser.parse_args()
    lost = False
    for place, verb in enumerate(given.verbs):
        count = given.files * (place + 1) // len(given.verbs) - given.files * place // len(
            given.verbs
        )
        with tempfile.TemporaryDirectory() as scratch:
            chance = random.Random(f"{given.seed} {verb}")
            row = fuzzed(verb, given.videos.absolute(), count, chance, Path(scratch), given.keep)
        print(json.dumps({"verb": verb, "seed": given.seed} | row), flush=True)
        lost |= bool(
            row["ended"] or row["good_files_that_lost_anything"] or row["files_nobody_speaks_of"]
        )
    sys.exit(lost)


if __name__ == "__main__":
    main()
