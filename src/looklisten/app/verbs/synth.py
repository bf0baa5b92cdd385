"""The verb `synth`."""

from pathlib import Path

from tyro.conf import Positional

from looklisten.app.command_line import UsageError
from looklisten.app.output import Result
from looklisten.app.terminal import Bar
from looklisten.media.synth.options import CollageOptions, WorldOptions
from looklisten.system.files import check_writable


def synth(
    out: Positional[Path],
    /,
    videos: int = WorldOptions.videos,
    seed: int = WorldOptions.seed,
    seconds: float = WorldOptions.seconds,
    side_pixels: int = WorldOptions.side_pixels,
    frames_per_second: int = WorldOptions.frames_per_second,
    silent_share: float = WorldOptions.silent_share,
    test_share: float = WorldOptions.test_share,
    random_classes: int = WorldOptions.random_classes,
    images: Path | None = None,
    sounds: Path | None = None,
    same: tuple[str, ...] = (),
    speed_change: float = CollageOptions.speed_change,
    workers: int | None = None,
) -> Result:
    """Make videos with known truth: MP4 files, labels.csv, boxes.csv, onsets.csv. Or compose videos
    of your own images and sounds.

    Args:
        out: Folder to write.
        videos: Number of videos.
        seed: The same seed and options give the same files.
        seconds: Length of each video.
        side_pixels: Width and height.
        frames_per_second: Frame rate.
        silent_share: Share of the videos with a second, silent object of another class.
        test_share: Share of the videos in the split "test"; the others are in "train".
        random_classes: Use this many randomly generated classes instead of the twelve fixed ones.
        images: Compose videos of your own images: FOLDER/CLASS/FILE, or a table with path and
            label. Needs --sounds.
        sounds: Your own sounds, in the same form; matched with the images by class.
        same: Classes with two names, such as drum_kit=drum: the name among the images, then the
            name among the sounds.
        speed_change: Play your sounds faster or slower by up to this share, which changes their
            pitch too.
        workers: Number of processes; by default one for each core.
    """
    from looklisten.media.synth.synth import synth as run

    check_writable(out)
    if (images is None) != (sounds is None):
        raise UsageError("--images and --sounds go together: a video is composed of one of each")
    options: WorldOptions | CollageOptions
    if images and sounds:
        options = CollageOptions(
            images=str(images),
            sounds=str(sounds),
            videos=videos,
            seed=seed,
            seconds=seconds,
            side_pixels=side_pixels,
            frames_per_second=frames_per_second,
            test_share=test_share,
            same=tuple(_two_names(pair) for pair in same),
            speed_change=speed_change,
        )
    else:
        options = WorldOptions(
            videos=videos,
            seed=seed,
            seconds=seconds,
            side_pixels=side_pixels,
            frames_per_second=frames_per_second,
            silent_share=silent_share,
            test_share=test_share,
            random_classes=random_classes,
        )
    with Bar("synth: videos") as bar:
        return run(out, options, workers, bar)


def _two_names(pair: str) -> tuple[str, str]:
    """`drum_kit=drum` -> its two names."""
    image_name, equals, sound_name = pair.partition("=")
    if not equals or "=" in sound_name:
        raise UsageError(f"--same takes IMAGES_NAME=SOUNDS_NAME, not {pair}")
    return image_name, sound_name
