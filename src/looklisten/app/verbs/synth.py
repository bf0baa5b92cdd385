"""The verb `synth`."""

from pathlib import Path

from tyro.conf import Positional

from looklisten.app.command_line import UsageError, Workers
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.system.files import check_writable


def run_synth(
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
    workers: Workers = None,
) -> Output:
    """Make videos whose labels, boxes and onsets are known, or compose videos of your own files.

    It writes MP4 files, labels.csv, boxes.csv and onsets.csv.

    Args:
        out: Folder to write.
        videos: Number of videos.
        seed: The same seed and settings give the same files.
        seconds: Length of each video.
        side_pixels: Width and height.
        frames_per_second: Frame rate.
        silent_share: Share of videos with a second, silent object of another class.
        test_share: Share of videos of the split "test"; the others are "train".
        wild_kinds: Instead of the twelve classes: this many, each with a look and a voice drawn
            from its number.
        pictures: Instead of drawing: your own images, FOLDER/CLASS/FILE or a table with path and
            label.
        sounds: Instead of synthesizing: your own sounds, in the same form; joined to the images by
            class.
        same: Classes with different names for images and sounds, such as drum_kit=drum; several
            are separated by spaces.
        speed_change: Own sounds are played faster or slower by up to this share, which changes
            their pitch too.
    """
    from looklisten.media.synth import World, synth
    from looklisten.media.synth.collage import Collage

    check_writable(out)
    if (pictures is None) != (sounds is None):
        raise UsageError("--pictures and --sounds go together: a video is composed of one of each")
    settings: World | Collage
    if pictures and sounds:
        settings = Collage(
            str(pictures),
            str(sounds),
            videos,
            seed,
            seconds,
            side_pixels,
            frames_per_second,
            test_share,
            tuple(_name_pair(text) for text in same),
            speed_change,
        )
    else:
        settings = World(
            videos,
            seed,
            seconds,
            side_pixels,
            frames_per_second,
            silent_share,
            test_share,
            wild_kinds=wild_kinds,
        )
    with ProgressBar("synth: videos") as progress:
        return Output(synth(out, settings, workers, progress))


def _name_pair(text: str) -> tuple[str, str]:
    names = text.split("=")
    if len(names) != 2:
        raise UsageError(f"--same takes PICTURES_NAME=SOUNDS_NAME, not {text}")
    return names[0], names[1]
