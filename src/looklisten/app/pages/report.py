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
    encode_png,
    frame_image,
    frame_overlay,
    spectrogram_overlay,
    training_curves,
)
from looklisten.inference.localization.records import Localization
from looklisten.inference.moments import Moment
from looklisten.model.objectives import chance_loss


def write_report(
    path: Path,
    results: dict[str, Any],
    metrics: Sequence[dict[str, Any]],
    found: Sequence[tuple[Moment, Localization]],
    config: Config,
    samples: Sequence[tuple[str, bytes]],
    best_units: Markup,
) -> None:
    """Write the page: what was done, the table, the curves, moments with their maps, the best
    units, sample videos (name, MP4 bytes).
    """
    moments = [
        {
            "label": ", ".join(moment.clip.labels),
            "silent": ", ".join(
                sorted({box.label for box in moment.clip.boxes if not box.sounding})
            ),
            "video": moment.clip.video_id,
            "at": f"{localization.at_seconds:.1f}",
            "probability": f"{localization.probability:.0%}",
            "frame": inline(encode_png(frame_image(moment.frame)), "image/png"),
            "frame_map": inline(encode_png(frame_overlay(moment.frame, localization)), "image/png"),
            "sound_map": inline(encode_png(spectrogram_overlay(localization)), "image/png"),
        }
        for moment, localization in found
    ]
    write_page(
        path,
        "report.html.j2",
        results=results,
        config=config,
        curves=inline(
            training_curves(metrics, chance_loss(config.train.objective, config.train.batch_size)),
            "image/png",
        ),
        moments=moments,
        best_units=best_units,
        samples=[(name, inline(video, "video/mp4")) for name, video in samples],
    )
