"""The verb `synth`."""

from pathlib import Path
from typing import Any

from tyro.conf import Positional

from looklisten.app.command_line import UsageError
from looklisten.app.output import Result
from looklisten.app.terminal import Bar
from looklisten.system.files import check_writable


def synth(
    out: Positional[Path],
    /,
    videos: int = 360,
    seed: int = 0,
    seconds: float = 10.0,
    side_pixels: int = 256,
    frames_per_second: int = 25,
    silent_share: float = 1 / 3,
    test_share: float = 0.25,
    wild_kinds: int = 0,
    pictures: Path | None = None,
    sounds: Path | None = None,
    same: tuple[str, ...] = (),
    speed_change: float = 0.25,
    workers: int | None = None,
) -> Result:
    """Make a world of videos with known truth: real MP4 files, labels.csv, boxes.csv, onsets.csv.
    Or compose one of your own files.

    Args:
        out: Folder to write.
        videos: How many videos.
        seed: The same seed and settings give the same files.
        seconds: Length of each video.
        side_pixels: Width and height.
        frames_per_second: Frame rate.
        silent_share: Share of videos in which a second object of another class stands by in
            silence.
        test_share: Share of videos of the split "test"; the others are "train".
        wild_kinds: Instead of the twelve classes: so many, each with a look and a voice drawn from
            its number.
        pictures: Instead of drawing: your own pictures, FOLDER/CLASS/FILE or a table with path and
            label.
        sounds: Instead of synthesizing: your own sounds, likewise; joined to the pictures by class.
        same: Classes that the sounds call otherwise than the pictures, such as drum_kit=drum
            (several: one after the other).
        speed_change: Own sounds are played faster or slower by up to this share, pitch and all.
        workers: Processes; by default one a core.
    """
    from looklisten.media.synth import World
    from looklisten.media.synth import synth as make

    check_writable(out)
    if (pictures is None) != (sounds is None):
        raise UsageError("--pictures and --sounds go together: a video is composed of one of each")
    if pictures and sounds:
        from looklisten.media.synth.collage import Collage

        pairs = [tuple(pair.split("=")) for pair in same]
        if wrong := [pair for pair in pairs if len(pair) != 2]:
            raise UsageError(f"--same takes PICTURES_NAME=SOUNDS_NAME, not {'='.join(wrong[0])}")
        names = tuple((picture, sound) for picture, sound in pairs)
        world: Any = Collage(
            str(pictures),
            str(sounds),
            videos,
            seed,
            seconds,
            side_pixels,
            frames_per_second,
            test_share,
            names,
            speed_change,
        )
    else:
        world = World(
            videos,
            seed,
            seconds,
            side_pixels,
            frames_per_second,
            silent_share,
            test_share,
            wild_kinds=wild_kinds,
        )
    with Bar("synth: videos") as bar:
        return make(out, world, workers, bar)
