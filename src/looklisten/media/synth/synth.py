"""The options of `synth` -> a folder of videos."""

import logging
from pathlib import Path
from typing import Any

from looklisten.media.synth.collage import read_collage
from looklisten.media.synth.folder import write_set
from looklisten.media.synth.options import CollageOptions, WorldOptions
from looklisten.media.synth.world import World
from looklisten.option_checks import check_at_least
from looklisten.system.progress import Progress, no_progress

_log = logging.getLogger("looklisten")


def synth(
    out: str | Path,
    options: WorldOptions | CollageOptions,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write synthetic videos and their tables under `out`. Videos that are there already stay.

    Of a world: `labels.csv` (path, label, split, background), `boxes.csv` (path, time in seconds,
    x0, y0, x1, y1 in 0..1, label, sounding), `onsets.csv` (path, time in seconds, label). Of a
    collage: `labels.csv` (path, label, split, image, sound), and `failures.jsonl` if some images or
    sounds cannot be read. Of both: `000000.mp4` … and `world.json` with the settings.

    Returns the numbers of videos and of those written now, hours, path, and `failed` if files
    could not be read. Raises ConfigError if `out` holds other settings, or if fewer than two
    classes have files.
    """
    check_at_least(1, workers=workers)
    if isinstance(options, CollageOptions):
        collage = read_collage(options, workers, progress)
        return write_set(Path(out), collage, collage.failures, workers, progress)
    world = World(options)
    if options.test_share and not world.has_test_videos():
        _log.warning(
            "no video is in the split test: test_share %g needs at least %d videos, "
            "because the classes take turns and a turn is in one split",
            options.test_share,
            len(world.classes) * world.first_test_turn() + 1,
        )
    return write_set(Path(out), world, [], workers, progress)
