"""The verb `localize`: a video with heat maps of what sounds."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from looklisten.app.command_line import DEFAULT_NETWORK, DeviceName, NetworkName
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.inference.localization.options import LocalizeFileOptions
from looklisten.system.files import check_writable

_DEFAULTS = LocalizeFileOptions()


def run_localize(
    video: Positional[Path],
    /,
    checkpoint: NetworkName = DEFAULT_NETWORK,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("localized"),
    device: DeviceName = "auto",
    # The options are nested records. OmitArgPrefixes gives --every-seconds, not
    # --maps.every-seconds.
    options: Annotated[OmitArgPrefixes[LocalizeFileOptions], tyro.conf.arg(name="")] = _DEFAULTS,
) -> Output:
    """Write a video with heat maps of what sounds, over its frames and its spectrogram.

    The maps are also written as images and as arrays.

    Args:
        video: A video with frames and sound.
        out: Folder for overlay.mp4, sheet.png, NNN_frame.png, NNN_sound.png and maps.npz.
    """
    from looklisten.media.isolation.parent import warm_up

    # The decoder's process starts while PyTorch is imported, which saves its start time.
    warm_up()
    from looklisten.drawing.localization_folder import localize_video, write_stills
    from looklisten.drawing.overlay_video import overlay
    from looklisten.model.networks import open_network

    check_writable(out)
    model = open_network(checkpoint, device).l3net
    with ProgressBar("localize: seconds") as progress:
        localized = localize_video(video, model, options, progress)
    with ProgressBar("localize: images") as progress:
        files = write_stills(localized, out, progress)
    localizations = localized.localizations
    if options.overlay:
        with ProgressBar("localize: seconds of overlay.mp4") as progress:
            path = out / "overlay.mp4"
            files["overlay"] = str(
                overlay(video, localizations, path, progress, localized.video_info)
            )
    # In silence there is nothing that could correspond, whatever the network answers.
    probabilities = [item.probability for item in localizations if not item.is_silent]
    mean_probability = None
    if probabilities:
        mean_probability = round(sum(probabilities) / len(probabilities), 4)
    summary = {
        "moments": len(localizations),
        "silent_moments": len(localizations) - len(probabilities),
        "stills": len(localized.still_frames),
        "mean_probability": mean_probability,
    }
    return Output(summary | files)
