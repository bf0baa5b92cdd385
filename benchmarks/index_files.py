"""Memory and time of `index` over very many files.

    python benchmarks/index_files.py [--files 10000] [--store arrow] [--network untrained:tiny]
        [--out DIR]

The files are videos of two seconds with 64 x 64 pixels. A few contents are encoded; each file is
one of them with a number in a box that players skip, so that no two have the same bytes. Prints for
each quarter of the files the resident memory of the process and of its decoder, in megabytes, and
the milliseconds per file, then the same of what follows the last file: merging the store and
fitting the scores. `anonymous` leaves out what is mapped from files, which the system may drop at
any time.
"""

import argparse
import json
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

import looklisten as ll

CONTENTS = 200
VIDEO_SECONDS = 2
FRAME_PIXELS = 64
FRAMES_PER_SECOND = 5
RATE_HZ = 16_000
QUARTERS = 4
SAMPLE_SECONDS = 0.5


def write_content(path: Path, number: int) -> None:
    """A video of a moving bright square and a tone; each number gives others."""
    generator = np.random.default_rng(number)
    color = generator.integers(60, 255, 3)
    hz = generator.uniform(200, 4_000)
    times = np.arange(VIDEO_SECONDS * RATE_HZ) / RATE_HZ
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=FRAMES_PER_SECOND)
        video.width = video.height = FRAME_PIXELS
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        for index in range(VIDEO_SECONDS * FRAMES_PER_SECOND):
            pixels = np.full((FRAME_PIXELS, FRAME_PIXELS, 3), number % 50, np.uint8)
            left = (5 * index + number) % (FRAME_PIXELS - 20)
            pixels[20:40, left : left + 20] = color
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(video.encode())
        sound = (0.3 * np.sin(2 * np.pi * hz * times)).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(sound, "fltp", "mono")
        frame.sample_rate = RATE_HZ
        container.mux(audio.encode(frame))
        container.mux(audio.encode())


def write_files(folder: Path, count: int) -> None:
    """Files whose bytes differ, in folders of at most a thousand."""
    contents = []
    for number in range(min(CONTENTS, count)):
        path = folder / "content.mp4"
        write_content(path, number)
        contents.append(path.read_bytes())
        path.unlink()
    for number in range(count):
        place = folder / f"{number // 1000:03d}"
        place.mkdir(exist_ok=True)
        # An MP4 box is its length, its kind, and its content.
        box = struct.pack(">I4sQ", 16, b"free", number)
        (place / f"{number:06d}.mp4").write_bytes(contents[number % len(contents)] + box)


@dataclass(frozen=True)
class Memory:
    """Of this process and of its children, such as the decoder."""

    resident_megabytes: float
    anonymous_megabytes: float


def memory_now() -> Memory:
    pids = [os.getpid()]
    for thread in Path("/proc/self/task").iterdir():
        pids += map(int, (thread / "children").read_text().split())
    kilobytes = {"VmRSS:": 0, "RssAnon:": 0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(tuple(kilobytes)):
                name, number, _ = line.split()
                kilobytes[name] += int(number)
    return Memory(*(number / 1000 for number in kilobytes.values()))


@dataclass
class Meter:
    """A `Progress` that samples the memory, in quarters of the files and in what follows."""

    samples: list[list[Memory]] = field(default_factory=lambda: [[] for _ in range(QUARTERS)])
    seconds: list[float] = field(default_factory=lambda: [0.0] * QUARTERS)
    done: int = 0
    last_seconds: float = field(default_factory=time.perf_counter)
    sampled_seconds: float = 0.0

    def __call__(self, done: int, total: int, /, **_: str) -> None:
        now = time.perf_counter()
        quarter = min(QUARTERS * self.done // total, QUARTERS - 1)
        if done > self.done:
            self.seconds[quarter] += now - self.last_seconds
            self.last_seconds = now
            self.done = done
        if now - self.sampled_seconds >= SAMPLE_SECONDS:
            self.samples[quarter].append(memory_now())
            self.sampled_seconds = now

    def rows(self, files: int) -> Iterator[dict[str, Any]]:
        for number, samples in enumerate(self.samples):
            yield {
                "quarter": number + 1,
                "resident": round(float(np.mean([each.resident_megabytes for each in samples])), 1),
                "highest": round(max(each.resident_megabytes for each in samples), 1),
                "anonymous": round(
                    float(np.mean([each.anonymous_megabytes for each in samples])), 1
                ),
                "milliseconds_per_file": round(1000 * QUARTERS * self.seconds[number] / files, 1),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--store", choices=["arrow", "lance"], default="arrow")
    parser.add_argument("--network", default="untrained:tiny")
    parser.add_argument("--out", type=Path, help="a folder that keeps the files and the index")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        media = folder / "media"
        if not media.exists():
            media.mkdir(parents=True)
            write_files(media, options.files)
        meter = Meter()
        result = ll.index(
            [media], folder / "index", options.network, device="cpu",
            store=options.store, progress=meter,
        )  # fmt: skip
        finished_seconds = time.perf_counter() - meter.last_seconds
        quarters = list(meter.rows(options.files))
        values = {
            "store": options.store,
            "files": result.indexed,
            "failed": result.failed,
            "moments": result.moments,
            "quarters": quarters,
            "last_by_second_quarter": round(quarters[-1]["resident"] / quarters[1]["resident"], 4),
            "after_the_last_file_seconds": round(finished_seconds, 1),
            "after_the_last_file": round(memory_now().resident_megabytes, 1),
        }
        print(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
