"""Memory and time of `index` over very many files.

    python benchmarks/index_files.py [--files 10000] [--store arrow] [--network untrained:tiny]
        [--out DIR]

The files are videos of two seconds with 64 x 64 pixels. A few contents are encoded; each file is
one of them with a number in a box that players skip, so that no two have the same bytes. Prints
after each tenth of the files, in megabytes:

- `private`: memory of the process that is its own, not mapped from files,
- `resident`: all that is in memory, mapped files too, which the system may drop at any time,
- `peak`: the highest `resident` so far,
- `decoder`: `resident` of the process that decodes,

with the files a second and the times real time of that tenth. Then it prints the peak and the
seconds of what follows the last file: merging the store and fitting the scores.
"""

import argparse
import json
import struct
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

import looklisten as ll

CONTENTS = 200
VIDEO_SECONDS = 2
FRAME_PIXELS = 64
FRAMES_PER_SECOND = 5
RATE_HZ = 16_000
TENTHS = 10


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


def memory_of(process: int | str) -> dict[str, float]:
    """What the system says of the memory of a process, in megabytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if line.startswith(("Vm", "Rss")))
    return {name: int(text.split()[0]) / 1000 for name, text in fields.items()}


def decoder_megabytes() -> float:
    """The memory of the child processes."""
    total = 0.0
    for thread in Path("/proc/self/task").iterdir():
        for process in (thread / "children").read_text().split():
            total += memory_of(process)["VmRSS"]
    return total


@dataclass
class Meter:
    """A `Progress` that writes a row down after each tenth of the files."""

    rows: list[dict[str, float]] = field(default_factory=list)
    last_seconds: float = field(default_factory=time.perf_counter)

    def __call__(self, done: int, total: int, /, **_: str) -> None:
        if done * TENTHS < total * (len(self.rows) + 1):
            return
        now = time.perf_counter()
        files_before = self.rows[-1]["files"] if self.rows else 0
        files_a_second = (done - files_before) / (now - self.last_seconds)
        self.last_seconds = now
        memory = memory_of("self")
        values = {
            "files": done,
            "private": memory["RssAnon"],
            "resident": memory["VmRSS"],
            "peak": memory["VmHWM"],
            "decoder": decoder_megabytes(),
            "files_a_second": files_a_second,
            "times_real_time": files_a_second * VIDEO_SECONDS,
        }
        self.rows.append({name: round(value, 1) for name, value in values.items()})
        print(json.dumps(self.rows[-1]), flush=True)


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
        first, last = meter.rows[0], meter.rows[-1]
        values = {
            "store": options.store,
            "network": options.network,
            "files": result.indexed,
            "failed": result.failed,
            "moments": result.moments,
            "growth_bytes_a_file": round(
                1e6 * (last["private"] - first["private"]) / (last["files"] - first["files"])
            ),
            "after_the_last_file_seconds": round(time.perf_counter() - meter.last_seconds, 1),
            "peak": round(memory_of("self")["VmHWM"], 1),
        }
        print(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
