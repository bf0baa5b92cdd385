"""Seconds of video that `looklisten localize` makes in a second of work, from file to overlay.mp4,
network and all.

    python benchmarks/localize.py [VIDEO...] [--config NAME...] [--checkpoint RUN] [--every 0.2]
    [--repeats 3] [--threads 2] [--json]

Without videos it makes one: 10 s of 640 x 360 at 25 frames a second, textures that move and tones
that come and go. A network's weights do not change its speed, so recipes are measured with random
ones. Ratios are medians over the turns: in wall time, and what `--threads` cores with nothing else
to do would give by processor time. Beside other work PyTorch's threads wait for each other busily,
which counts; there `--threads 1` tells more. The parts are processor seconds a second of video.
"""

import argparse
import json
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

import looklisten as ll
from looklisten.media.redraw import measure_video

RATE_HZ = 48_000


def write_video(
    path: Path,
    seconds: float = 10.0,
    width: int = 640,
    height: int = 360,
    frames_per_second: int = 25,
) -> Path:
    rng = np.random.default_rng(0)
    texture = np.repeat(
        np.repeat(rng.integers(0, 256, (height // 8, width // 4, 3), np.uint8), 8, 0), 8, 1
    )
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    wave = sum(
        0.1 * np.sin(2 * np.pi * hz * t) * np.clip(np.sin(2 * np.pi * 0.4 * t + hz), 0, 1)
        for hz in (220, 660, 1500, 4100)
    )
    with av.open(str(path), "w") as container:
        video, audio = (
            container.add_stream("libx264", frames_per_second),
            container.add_stream("aac", RATE_HZ, layout="mono"),
        )
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for number in range(round(seconds * frames_per_second)):
            left = 2 * number % width
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(texture[:height, left : left + width]), "rgb24"
            )
            frame.pts, frame.time_base = number, Fraction(1, frames_per_second)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, len(wave), 1024):
            block = av.AudioFrame.from_ndarray(
                wave[None, start : start + 1024].astype(np.float32), "fltp", "mono"
            )
            block.sample_rate, block.pts, block.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path


def measured(
    video: Path, model: ll.L3Net, every_seconds: float, out: Path
) -> tuple[float, float, float, float]:
    """Wall and processor seconds of finding the maps and of drawing the film."""
    clocks = [(time.perf_counter(), time.process_time())]
    found = ll.localize(video, model, every_seconds=every_seconds)
    clocks.append((time.perf_counter(), time.process_time()))
    ll.overlay(video, found, out)
    clocks.append((time.perf_counter(), time.process_time()))
    (w0, c0), (w1, c1), (w2, c2) = clocks
    return w1 - w0, c1 - c0, w2 - w1, c2 - c1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--config", nargs="+", default=["tiny", "contrastive"])
    parser.add_argument("--checkpoint")
    parser.add_argument("--every", type=float, default=0.2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.checkpoint:
        models = {options.checkpoint: ll.load(options.checkpoint)}
    else:
        models = {name: ll.L3Net(ll.Config.load(name).model).eval() for name in options.config}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        videos = options.videos or [write_video(Path(scratch) / "made_360p.mp4")]
        for video in videos:
            seen = measure_video(video)
            for name, model in models.items():
                turns = [
                    measured(video, model, options.every, Path(scratch) / "overlay.mp4")
                    for _ in range(options.repeats + 1)
                ][1:]
                seconds = seen.duration_seconds
                rows.append(
                    {
                        "video": video.name,
                        "size": f"{seen.width} x {seen.height}",
                        "seconds": round(seconds, 2),
                        "network": name,
                        "times_real_time": statistics.median(
                            seconds / (turn[0] + turn[2]) for turn in turns
                        ),
                        "of_free_cores": statistics.median(
                            options.threads * seconds / (turn[1] + turn[3]) for turn in turns
                        ),
                        "maps_cpu": statistics.median(turn[1] / seconds for turn in turns),
                        "film_cpu": statistics.median(turn[3] / seconds for turn in turns),
                    }
                )
                print(json.dumps(rows[-1]) if options.json else row_of(rows[-1]), flush=True)


def row_of(row: dict[str, object]) -> str:
    return (
        "| "
        + " | ".join(
            f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()
        )
        + " |"
    )


if __name__ == "__main__":
    main()
