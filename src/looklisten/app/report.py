"""The demo's page: one HTML file that needs nothing else. Knows results and pictures, computes neither."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from looklisten.app.pictures import curves, frame_overlay, frame_picture, png, spectrogram_overlay
from looklisten.config import Config
from looklisten.inference.localize import Localization
from looklisten.runtime import written_aside


def write_report(
    path: Path,
    results: dict[str, Any],
    metrics: Sequence[dict[str, Any]],
    found: Sequence[Localization],
    config: Config,
    samples: Sequence[tuple[str, bytes]],
) -> None:
    """Write the page: what was done, the table, the curves, moments with their maps, sample videos (name, MP4 bytes)."""
    pages = Environment(
        loader=PackageLoader("looklisten.app", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    moments = [
        {
            "label": ", ".join(one.moment.clip.labels),
            "silent": ", ".join(sorted({box.label for box in one.moment.clip.boxes if not box.sounding})),
            "video": one.moment.clip.video_id,
            "at": f"{one.at_seconds:.1f}",
            "probability": f"{one.probability:.0%}",
            "frame": _inline(png(frame_picture(one)), "image/png"),
            "frame_map": _inline(frame_overlay(one), "image/png"),
            "sound_map": _inline(spectrogram_overlay(one), "image/png"),
        }
        for one in found
    ]
    page = pages.get_template("report.html.j2").render(
        results=results,
        config=config,
        curves=_inline(curves(metrics), "image/png"),
        moments=moments,
        samples=[(name, _inline(video, "video/mp4")) for name, video in samples],
    )
    with written_aside(path) as scratch:
        scratch.write_text(page, encoding="utf-8")


def _inline(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
