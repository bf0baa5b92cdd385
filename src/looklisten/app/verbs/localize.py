"""The verb `localize`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import Device, Network
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.system.files import check_writable


def run_localize(
    video: Positional[Path],
    /,
    checkpoint: Network = "runs/tiny",
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("localized"),
    method: Literal["correspondence", "similarity", "unit"] | None = None,
    units: tuple[int, int] | None = None,
    every_seconds: float = 1.0,
    video_every_seconds: float = 0.2,
    no_video: bool = False,
    device: Device = "auto",
) -> Output:
    """Write a video with heat maps of what sounds, over its frames and its spectrogram.

    The maps are also written as images and as arrays.

    Args:
        video: A video with frames and sound.
        out: Folder for overlay.mp4, sheet.png, NNN_frame.png, NNN_sound.png and maps.npz.
        method: correspondence (gradient of the answer "they correspond"), similarity (of each
            position and the sound) or unit (where one unit responds). By default similarity for
            networks with fusion similarity or dense, else correspondence.
        units: With unit: number of the vision unit and of the audio unit; by default those that
            respond most.
        every_seconds: Seconds between still images.
        video_every_seconds: Seconds between the maps of overlay.mp4; frames between two maps get a
            mixture.
        no_video: Do not write overlay.mp4, which takes most of the time. Maps are then as far apart
            as the still images.
    """
    from looklisten.media.isolation.parent import warm_up

    # The decoder's process starts while PyTorch is imported, which saves its start time.
    warm_up()
    from looklisten.drawing.overlay_video import overlay
    from looklisten.drawing.stills import localized, write_stills
    from looklisten.interop.loading import load_network
    from looklisten.system.devices import choose_device

    check_writable(out)
    model = load_network(checkpoint).to(choose_device(device).value)
    with ProgressBar("localize: seconds") as progress:
        moments, stills = localized(
            video,
            model,
            every_seconds,
            every_seconds if no_video else video_every_seconds,
            method,
            units,
            progress,
        )
    with ProgressBar("localize: images") as progress:
        files = write_stills(moments, stills, out, progress)
    if not no_video:
        with ProgressBar("localize: seconds of overlay.mp4") as progress:
            files["video"] = str(overlay(video, moments, out / "overlay.mp4", progress))
    mean_probability = sum(moment.probability for moment in moments) / len(moments)
    summary = {
        "moments": len(moments),
        "images": len(stills),
        "mean_probability": round(mean_probability, 4),
    }
    return Output(summary | files)
