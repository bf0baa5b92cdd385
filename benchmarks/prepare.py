"""What `prepare` costs beside the ffmpeg program doing the same, how it scales to two workers, and
how much memory it takes.

    python benchmarks/prepare.py [--video REAL_CLIP] [--repeats 5] [--sources 2000]

Needs the ffmpeg program. Processor seconds, not wall time, so that other work on the machine
matters less; the two sides take turns, and the median of the ratios is reported. ffmpeg makes JPEG
files (5 a second, area scaling, shorter side 256) and a 48 kHz mono WAV; looklisten makes the clips
and writes them into shards. The real clip is looped and scaled to each resolution, with H.264 as
libx264 makes it by default; without one, a test pattern with noise is used.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from looklisten.data.cutting import cut
from looklisten.data.options import PrepareOptions
from looklisten.data.prepare import prepare
from looklisten.data.shard_files import write_shards
from looklisten.data.sources import Source
from looklisten.media.isolation.limits import WorkerLimits

HEIGHTS = (144, 360, 720, 1080)


def make_videos(folder: Path, clip: Path | None, seconds: int) -> dict[int, Path]:
    source = (
        ["-stream_loop", "-1", "-i", str(clip)]
        if clip
        else ["-f", "lavfi", "-i", "testsrc2=s=1920x1080:r=30,noise=alls=12:allf=t"]
    )
    sound = [] if clip else ["-f", "lavfi", "-i", "anoisesrc=a=0.1:r=44100"]
    videos = {}
    for height in HEIGHTS:
        videos[height] = folder / f"{height}.mp4"
        options = [
            "-t",
            str(seconds),
            "-vf",
            f"scale=-2:{height}",
            "-c:v",
            "libx264",
            "-pix_fmt",
            "yuv420p",
            "-c:a",
            "aac",
            "-ac",
            "2",
        ]
        subprocess.run(
            ["ffmpeg", "-v", "error", "-y", *source, *sound, *options, str(videos[height])],
            check=True,
        )
    return videos


def spent(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def ours(video: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        before = spent(resource.RUSAGE_SELF)
        write_shards(cut(video, Source(video.name), PrepareOptions()), Path(folder), "clips", 2**28)
        return spent(resource.RUSAGE_SELF) - before


def theirs(video: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "ffmpeg",
            "-v",
            "error",
            "-threads",
            "1",
            "-filter_threads",
            "1",
            "-i",
            str(video),
        ]
        pictures = [
            "-vf",
            "fps=5,scale='if(gt(iw,ih),-2,min(256,iw))':'if(gt(iw,ih),min(256,ih),-2)':flags=area",
            "-q:v",
            "3",
            "-threads",
            "1",
        ]
        before = spent(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [
                *command,
                *pictures,
                f"{folder}/%06d.jpg",
                "-vn",
                "-ac",
                "1",
                "-ar",
                "48000",
                "-threads",
                "1",
                f"{folder}/a.wav",
            ],
            check=True,
        )
        return spent(resource.RUSAGE_CHILDREN) - before


def against_ffmpeg(videos: dict[int, Path], seconds: int, repeats: int) -> list[dict[str, float]]:
    rows = []
    for height, video in videos.items():
        ours(video)  # what is read once (libraries, the file) is read
        pairs = [(ours(video), theirs(video)) for _ in range(repeats)]
        mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = sorted(a / b for a, b in pairs)
        rows.append(
            {
                "height": height,
                "ratio": round(statistics.median(ratios), 3),
                "lowest": round(ratios[0], 3),
                "highest": round(ratios[-1], 3),
                "x_realtime_a_core": round(seconds / mine, 1),
                "ffmpeg_x_realtime_a_core": round(seconds / other, 1),
            }
        )
        say(rows[-1])
    return rows


def two_workers(videos: dict[int, Path], repeats: int) -> dict[str, float]:
    """Wall time of eight 360p and 720p videos with one worker against two."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = []
        for number in range(4):
            for height in (360, 720):
                inputs.append(Path(folder) / f"{height}-{number}.mp4")
                inputs[-1].symlink_to(videos[height])

        def wall(workers: int) -> float:
            began = time.perf_counter()
            prepare(inputs, Path(folder) / "out", workers=workers)
            seconds = time.perf_counter() - began
            shutil.rmtree(Path(folder) / "out")
            return seconds

        ratios = sorted(wall(1) / wall(2) for _ in range(repeats))
    return {
        "ratio": round(statistics.median(ratios), 2),
        "lowest": round(ratios[0], 2),
        "highest": round(ratios[-1], 2),
    }


class Memory:
    """Watches the worker processes of this program: resident megabytes over time, and the most any
    had.
    """

    def __init__(self) -> None:
        self.samples: list[float] = []
        self.peak, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            for status in Path("/proc").glob("[0-9]*/status"):
                try:
                    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
                    if (
                        int(fields["PPid"]) != os.getpid()
                        or b"looklisten.data.workers.child"
                        not in (status.parent / "cmdline").read_bytes()
                    ):
                        continue
                    self.peak = max(self.peak, int(fields["VmHWM"].split()[0]) / 1024)
                    self.samples.append(int(fields["VmRSS"].split()[0]) / 1024)
                except (OSError, KeyError):
                    continue

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def memory(videos: dict[int, Path], sources: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        with Memory() as one:
            prepare([videos[1080]], Path(folder) / "one", workers=1)
        short = []
        for height in (144, 360):
            short.append(Path(folder) / f"short-{height}.mp4")
            subprocess.run(
                [
                    "ffmpeg",
                    "-v",
                    "error",
                    "-i",
                    str(videos[height]),
                    "-t",
                    "3",
                    "-c",
                    "copy",
                    str(short[-1]),
                ],
                check=True,
            )
        many = Path(folder) / "many"
        many.mkdir()
        for number in range(sources):
            (many / f"{number:06d}.mp4").symlink_to(short[number % 2])
        with Memory() as flat:
            prepare(
                [many],
                Path(folder) / "flat",
                workers=1,
                limits=WorkerLimits(sources_per_worker=10 * sources),
            )
        quarter = len(flat.samples) // 4
        second, last = (
            statistics.mean(flat.samples[i * quarter : (i + 1) * quarter]) for i in (1, 3)
        )
    return {
        "peak_megabytes_1080p": round(one.peak),
        "sources": sources,
        "second_quarter_megabytes": round(second, 1),
        "last_quarter_megabytes": round(last, 1),
        "last_over_second": round(last / second, 3),
    }


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video", type=Path)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sources", type=int, default=2000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = make_videos(Path(folder), given.video, given.seconds)
        against_ffmpeg(videos, given.seconds, given.repeats)
        say({"two_workers_against_one": two_workers(videos, given.repeats)})
        say({"memory": memory(videos, given.sources)})


if __name__ == "__main__":
    main()
