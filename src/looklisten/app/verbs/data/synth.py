"""The verb `synth`: make videos whose labels, boxes and onsets are known."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import UsageError, WorkerCount
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.media.synth.options import CollageOptions, SynthOptions, WorldOptions
from looklisten.system.files import check_writable

_DEFAULTS = WorldOptions()


def run_synth(
    out: Positional[Path],
    /,
    images: Path | None = None,
    sounds: Path | None = None,
    same: tuple[str, ...] = (),
    speed_change: float = CollageOptions.speed_change,
    workers: WorkerCount = None,
    options: Annotated[WorldOptions, tyro.conf.arg(name="")] = _DEFAULTS,
) -> Output:
    """Make videos whose labels, boxes and onsets are known, or compose videos of your own files.

    It writes MP4 files, labels.csv, boxes.csv and onsets.csv.

    Args:
        out: Folder to write.
        images: Compose videos of your own images: FOLDER/CLASS/FILE, or a table with path and
            label. Needs --sounds.
        sounds: Your own sounds, in the same form; matched with the images by class.
        same: Classes with two names, such as drum_kit=drum: the name among the images, then the
            name among the sounds. Several are separated by spaces.
        speed_change: Play your sounds faster or slower by up to this share, which changes their
            pitch too.
        options: What the videos contain.
    """
    from looklisten.media.synth.synth import synth

    check_writable(out)
    if (images is None) != (sounds is None):
        raise UsageError("--images and --sounds go together: a video is composed of one of each")
    settings: WorldOptions | CollageOptions = options
    if images and sounds:
        # Composed videos have only the options that both kinds of videos share.
        shared = {field.name: getattr(options, field.name) for field in fields(SynthOptions)}
        settings = CollageOptions(
            images=str(images),
            sounds=str(sounds),
            same=tuple(_two_names(text) for text in same),
            speed_change=speed_change,
            **shared,
        )
    with ProgressBar("synth: videos") as progress:
        result = synth(out, settings, workers, progress)
    # Only composed videos have input files, which can fail.
    return Output.of_inputs(result, out) if "failed" in result else Output(result)


def _two_names(text: str) -> tuple[str, str]:
    """`drum_kit=drum` -> its two names."""
    names = text.split("=")
    if len(names) != 2:
        raise UsageError(f"--same takes IMAGES_NAME=SOUNDS_NAME, not {text}")
    return names[0], names[1]
