"""The demo's page: one HTML file that needs nothing else. Knows results and pictures, computes
neither.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from looklisten.app.pages.page import inline, write_page
from looklisten.config import Config
from looklisten.drawing.figures import (
    curves,
    frame_overlay,
    frame_picture,
    png,
    spectrogram_overlay,
)
from looklisten.inference.localization.localize import Localization
from looklisten.model.objectives import find_objective


def write_report(
    path: Path,
    results: dict[str, Any],
    metrics: Sequence[dict[str, Any]],
    found: Sequence[Localization],
    config: Config,
    samples: Sequence[tuple[str, bytes]],
    best_units: Markup,
) -> None:
    """Write the page: what was done, the table, the curves, moments with their maps, the best
    units, sample videos (name, MP4 bytes).
    """
    moments = [
        {
            "label": ", ".join(one.moment.clip.labels),
            "silent": ", ".join(
                sorted({box.label for box in one.moment.clip.boxes if not box.sounding})
            ),
            "video": one.moment.clip.video_id,
            "at": f"{one.at_seconds:.1f}",
            "probability": f"{one.probability:.0%}",
            "frame": inline(png(frame_picture(one)), "image/png"),
            "frame_map": inline(frame_overlay(one), "image/png"),
            "sound_map": inline(spectrogram_overlay(one), "image/png"),
        }
        for one in found
    ]
    write_page(
        path,
        "report.html.j2",
        results=results,
        config=config,
        curves=inline(
            curves(metrics, find_objective(config.train.objective).chance_loss(config.train)),
            "image/png",
        ),
        moments=moments,
        best_units=best_units,
        samples=[(name, inline(video, "video/mp4")) for name, video in samples],
    )
