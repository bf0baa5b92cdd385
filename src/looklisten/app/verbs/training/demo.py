"""The verb `demo`: everything once, on videos that it makes."""

from pathlib import Path

from tyro.conf import Positional

from looklisten.app.command_line import WorkerCount
from looklisten.app.output import Output
from looklisten.system.files import check_writable


def run_demo(
    out: Positional[Path] = Path("demo"),
    /,
    videos: int = 3000,
    seconds: float = 3.0,
    steps: int = 700,
    seed: int = 0,
    fresh: bool = False,
    workers: WorkerCount = None,
) -> Output:
    """Make videos, train on them and measure, up to report.html; run it again to resume.

    Args:
        out: Folder for everything.
        videos: Number of videos to make.
        seconds: Length of each video.
        steps: Training steps of the recipe general.
        seed: Seed of the videos and of the training.
        fresh: Remove what an earlier demo left in the folder, and start over.
    """
    from looklisten.app.demo import DemoOptions, demo

    check_writable(out)
    return Output(demo(DemoOptions(out, videos, seconds, steps, seed), fresh, workers))
