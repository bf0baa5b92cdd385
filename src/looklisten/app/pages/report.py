"""The page of the demo: one HTML file that needs no other file.

Knows results and images, computes neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from looklisten.app.pages.page import data_url, write_page
from looklisten.config import Config
from looklisten.data.clips import Clip
from looklisten.drawing.figures import (
    encode_png,
    frame_image,
    frame_overlay,
    spectrogram_image,
    spectrogram_overlay,
    training_curves,
)
from looklisten.inference.localization.records import Localization
from looklisten.inference.moments import Moment
from looklisten.model.backbones import feature_counts
from looklisten.model.objectives import find_objective


@dataclass(frozen=True, eq=False)
class FramesOfSound:
    """One second of sound, and the frames that it found, the most similar first."""

    clip: Clip
    """The clip that the sound is of."""
    sound: Localization
    frames: Sequence[tuple[Moment, float]]
    """With their similarities."""


def write_report(
    path: Path,
    results: dict[str, Any],
    metrics: Sequence[dict[str, Any]],
    localizations: Sequence[tuple[Moment, Localization]],
    searches: Sequence[FramesOfSound],
    config: Config,
    samples: Sequence[tuple[str, bytes]],
    best_units: Markup,
) -> None:
    """Write the page of a demo.

    `metrics`: the rows of `metrics.jsonl`, for the curves.
    `samples`: name and MP4 file of some videos.
    `best_units`: a filled template.
    """
    chance = find_objective(config.train.objective).chance_loss(config.train)
    counts = feature_counts(config.model)
    loss_curves = data_url(training_curves(metrics, chance), "image/png")
    videos = []
    for name, video in samples:
        videos.append((name, data_url(video, "video/mp4")))
    write_page(
        path,
        "report.html.j2",
        results=results,
        config=config,
        unit_counts=" and ".join(dict.fromkeys(map(str, counts.values()))),
        curves=loss_curves,
        moments=[_moment_values(moment, localization) for moment, localization in localizations],
        searches=[_search_values(search) for search in searches],
        best_units=best_units,
        samples=videos,
    )


def _moment_values(moment: Moment, localization: Localization) -> dict[str, str]:
    """The values of the template for one moment with its maps."""
    clip = moment.clip
    # A label has a box for each frame, and is named once.
    silent_labels = {box.label for box in clip.boxes if not box.sounding}
    return {
        "label": ", ".join(clip.labels),
        "silent": ", ".join(sorted(silent_labels)),
        "video": clip.video_id,
        "at": f"{localization.at_seconds:.1f}",
        "probability": f"{localization.probability:.0%}",
        "frame": data_url(encode_png(frame_image(moment.frame)), "image/png"),
        "frame_map": data_url(encode_png(frame_overlay(moment.frame, localization)), "image/png"),
        "sound_map": data_url(encode_png(spectrogram_overlay(localization)), "image/png"),
    }


def _search_values(search: FramesOfSound) -> dict[str, Any]:
    """The values of the template for one sound with the frames that it found."""
    hits = []
    for moment, similarity in search.frames:
        hits.append(
            {
                "label": ", ".join(moment.clip.labels),
                "is_own": moment.clip.video_id == search.clip.video_id,
                "similarity": f"{similarity:.2f}",
                "frame": data_url(encode_png(frame_image(moment.frame)), "image/png"),
            }
        )
    sound = encode_png(spectrogram_image(search.sound.spectrogram))
    return {
        "label": ", ".join(search.clip.labels),
        "sound": data_url(sound, "image/png"),
        "hits": hits,
    }
