"""The page of the demo: one HTML file that needs no other file.

Knows results and images, computes neither.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from looklisten.app.pages.page import data_url, write_page
from looklisten.config import Config
from looklisten.drawing.figures import (
    curves,
    frame_overlay,
    frame_picture,
    png,
    spectrogram_overlay,
)
from looklisten.inference.localization.localize import Localization
from looklisten.model.objectives import chance_loss


def write_report(
    path: Path,
    results: dict[str, Any],
    metrics: Sequence[dict[str, Any]],
    localizations: Sequence[Localization],
    config: Config,
    samples: Sequence[tuple[str, bytes]],
    best_units: Markup,
) -> None:
    """Write the page of a demo.

    `metrics`: the rows of `metrics.jsonl`, for the curves.
    `samples`: name and MP4 file of some videos.
    `best_units`: a filled template.
    """
    chance = chance_loss(config.train.objective, config.train.batch_size)
    loss_curves = data_url(curves(metrics, chance), "image/png")
    videos = [(name, data_url(video, "video/mp4")) for name, video in samples]
    write_page(
        path,
        "report.html.j2",
        results=results,
        config=config,
        curves=loss_curves,
        moments=[_moment_values(localization) for localization in localizations],
        best_units=best_units,
        samples=videos,
    )


def _moment_values(localization: Localization) -> dict[str, str]:
    """The values of the template for one moment with its maps."""
    clip = localization.moment.clip
    silent_labels = {box.label for box in clip.boxes if not box.sounding}
    return {
        "label": ", ".join(clip.labels),
        "silent": ", ".join(sorted(silent_labels)),
        "video": clip.video_id,
        "at": f"{localization.at_seconds:.1f}",
        "probability": f"{localization.probability:.0%}",
        "frame": data_url(png(frame_picture(localization)), "image/png"),
        "frame_map": data_url(frame_overlay(localization), "image/png"),
        "sound_map": data_url(spectrogram_overlay(localization), "image/png"),
    }
