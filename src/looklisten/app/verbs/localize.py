"""The verb `localize`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.output import Result
from looklisten.app.terminal import Bar
from looklisten.system.files import check_writable


def localize(
    video: Positional[Path],
    /,
    checkpoint: str = "runs/tiny",
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("localized"),
    method: Literal["correspondence", "similarity", "unit"] | None = None,
    units: tuple[int, int] | None = None,
    every_seconds: float = 1.0,
    video_every_seconds: float = 0.2,
    no_video: bool = False,
    device: str = "auto",
) -> Result:
    """A video in which glows what sounds, over the picture and over the spectrogram; the maps as
    pictures and as arrays too.

    Args:
        video: A video with picture and sound.
        checkpoint: Folder of a run, of one checkpoint or of a published network, or a name on the
            Hugging Face Hub (org/name).
        out: Folder for overlay.mp4, sheet.png, NNN_frame.png, NNN_sound.png and maps.npz.
        method: correspondence (gradient of the network's yes), similarity (how alike each place and
            the sound are) or unit (where one unit fires). By default similarity of networks with
            fusion similarity or dense, correspondence of others.
        units: With unit: which vision and audio unit; by default those that fire most.
        every_seconds: Seconds between pictures.
        video_every_seconds: Seconds between the maps of overlay.mp4; in between they are mixed.
        no_video: Leave overlay.mp4 away, which takes most of the time; maps are then as far apart
            as pictures.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.media.isolation.parent import warm_up

    warm_up()  # beside loading PyTorch, so that nobody waits for it
    from looklisten.drawing.localization_folder import localize_video, write_stills
    from looklisten.drawing.overlay_video import overlay
    from looklisten.inference.localization.options import LocalizeFileOptions, LocalizeOptions
    from looklisten.model.networks import open_network

    check_writable(out)
    maps = LocalizeOptions(every_seconds, method, units)
    options = LocalizeFileOptions(maps, video_every_seconds, overlay=not no_video)
    model = open_network(checkpoint, device).l3net
    with Bar("localize: seconds") as bar:
        localized = localize_video(video, model, options, bar)
    with Bar("localize: images") as bar:
        written = write_stills(localized, out, bar)
    localizations = localized.localizations
    if options.overlay:
        with Bar("localize: seconds of overlay.mp4") as bar:
            written["overlay"] = str(overlay(video, localizations, out / "overlay.mp4", bar))
    mean_probability = sum(item.probability for item in localizations) / len(localizations)
    return {
        "moments": len(localizations),
        "stills": len(localized.still_frames),
        "mean_probability": round(mean_probability, 4),
    } | written
