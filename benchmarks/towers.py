"""How many seconds of video the towers of a network see and hear in a second of one core's work.

    python benchmarks/towers.py [--network start] [--seconds 30] [--repeats 5]

One frame and one second of sound for each second of video: the towers alone, and with decoding of
a video of 640 x 360 and of 1280 x 720 at 25 frames a second, which is made here. One thread and
processor time, so that other work on the machine matters little; the median of the turns. Decoding
runs in this process, as the decoder's own process does it.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from localize import write_video

import looklisten as ll
from looklisten.data.cutting import cut
from looklisten.data.options import PrepareOptions
from looklisten.data.sources import Source
from looklisten.inference.moments import Moment, look_and_listen, moments

SIZES = ((640, 360), (1280, 720))
BATCH_MOMENTS = 10
ONE_A_SECOND = PrepareOptions(frames_per_second=1.0)


def decoded_moments(path: Path, network: ll.L3Net, seconds: int) -> list[list[Moment]]:
    """A moment a second of a video, in batches; one batch for each clip."""
    clips = cut(path, Source(path=str(path), video_id="video"), ONE_A_SECOND)
    return [list(moments(clip, network.config, min(BATCH_MOMENTS, seconds))) for clip in clips]


@torch.inference_mode()
def run_towers(network: ll.L3Net, batches: list[list[Moment]]) -> None:
    for batch in batches:
        look_and_listen(network, batch)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="start")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = ll.load(arguments.network).eval()
    with tempfile.TemporaryDirectory() as scratch:
        videos = {}
        for width, height in SIZES:
            path = Path(scratch) / f"{height}.mp4"
            videos[height] = write_video(path, arguments.seconds, width, height)
        batches = decoded_moments(videos[360], network, arguments.seconds)
        count = sum(map(len, batches))
        times: dict[str, list[float]] = {}
        for _ in range(arguments.repeats):
            began = time.process_time()
            run_towers(network, batches)
            seconds = time.process_time() - began
            times.setdefault("towers alone", []).append(seconds)
            for height, path in videos.items():
                began = time.process_time()
                run_towers(network, decoded_moments(path, network, arguments.seconds))
                seconds = time.process_time() - began
                times.setdefault(f"with decoding, {height}p", []).append(seconds)
    print(f"{arguments.network}, {count} moments, {arguments.repeats} turns, one thread")
    for name, values in times.items():
        ratios = [count / value for value in values]
        reach = f"{min(ratios):.1f} to {max(ratios):.1f}"
        print(f"| {name} | {statistics.median(ratios):.1f} | {reach} |")


if __name__ == "__main__":
    main()
