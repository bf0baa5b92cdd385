"""The verb `demo`."""

from pathlib import Path

from tyro.conf import Positional

from looklisten.app.output import Result
from looklisten.system.files import check_writable


def demo(
    out: Positional[Path] = Path("demo"),
    /,
    videos: int = 3000,
    seconds: float = 3.0,
    steps: int | None = None,
    seed: int = 0,
    fresh: bool = False,
    workers: int | None = None,
) -> Result:
    """The whole job on videos it makes itself, ending in report.html and results.json. Run again it
    resumes.

    Args:
        out: Folder for everything.
        videos: How many videos to make.
        seconds: Length of each.
        steps: Training steps; by default those of the recipe tiny.
        seed: Draws the world and the training.
        fresh: Start over: remove what an earlier demo left in the folder.
        workers: Processes; by default one a core.
    """
    from looklisten.app.demo import Plan, run

    check_writable(out)
    return run(Plan(out, videos, seconds, steps, seed), fresh=fresh, workers=workers)
