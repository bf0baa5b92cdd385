"""The gallery of units: one page of what fires each of them most, with maps, sounds and classes.
Knows no label but as a word.

A page of 1,024 units must open at once. So each moment's picture and sound are stored once, small
and compressed, whoever shows them; a map is a few bytes that the browser colors and enlarges; and
the browser draws the units that are in view, no others.
"""

import base64
import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from jaxtyping import Float, Int16
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from looklisten.app.pages.page import fragment, inline, write_page
from looklisten.data.shards import Shards
from looklisten.drawing.figures import spectrogram_image
from looklisten.drawing.heatmap_colors import RgbImage, overlay_image
from looklisten.evaluation.units.naming import Unit, Units
from looklisten.inference.moments import Moment
from looklisten.inference.unit_activations import SIDES, MomentAddress, UnitActivation
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.frames import crop, resize
from looklisten.model.l3net import L3Net
from looklisten.system.progress import Progress, no_progress

PICTURE_PIXELS = 120
"""The side of a frame, and the width of a spectrogram, which is half as high."""
PICTURE_QUALITY = 65
SOUND_BITS_PER_SECOND = 48_000
MAP_PLACES = 16
"""A map is stored with at most so many rows and columns, each the maximum of those it stands for."""
LEVELS = 256


def write_unit_page(
    path: Path, found: Units, model: L3Net, progress: Progress = no_progress
) -> dict[str, Any]:
    """Write all units as one HTML file that needs nothing else, and return where it is and its
    size.

    `model` is the network that `found` was made with.
    """
    heard = {firing.address for unit in found.of("audio") for firing in unit.strongest}
    order = sorted({firing.address for unit in found.units for firing in unit.strongest})
    moments = []
    for done, place in enumerate(order, 1):
        moments.append(_shown(place, model, found.clips, place in heard))
        progress(done, len(order))
    number = {place: index for index, place in enumerate(order)}
    units = [_told(unit, number) for unit in found.units]
    data = {"units": units, "moments": moments, "palette": _text(_palette())}
    most = max((len(unit.strongest) for unit in found.units), default=1)
    classes = sorted({unit.preferred for unit in found.units} - {""})
    write_page(
        path,
        "units.html.j2",
        data=data,
        found=found.as_dict(),
        classes=classes,
        top=max(most, 1),
        shards=found.clips.path.name,
    )
    return {"page": str(path), "page_bytes": path.stat().st_size, "moments_shown": len(order)}


def best_units(found: Units, model: L3Net, count: int = 4) -> Markup:
    """The `count` most selective units of each side (`Units.best`) as a piece of HTML that a page
    may take in as it is.
    """
    sides = {
        side: [_drawn(unit, model, found.clips) for unit in found.best(side, count)]
        for side in SIDES
    }
    return fragment("best_units.html.j2", sides=sides)


def _drawn(unit: Unit, model: L3Net, shards: Shards) -> dict[str, Any]:
    """A unit with its pictures under their maps, and of audio its sounds."""
    rows = []
    for firing in unit.strongest:
        moment, heat = firing.address.load(shards, model.config), _scaled(firing, unit)
        frame = _frame(moment, model)
        row = {
            "label": ", ".join(moment.clip.labels),
            "what": f"{firing.video_id} at {firing.at_seconds:.2f} s",
            "sound": "",
        }
        if unit.side == "audio":
            row["spectrogram"] = inline(
                webp(overlay_image(_spectrogram(moment, model), heat)), "image/webp"
            )
            row["sound"] = inline(mp3(moment.waveform), "audio/mpeg")
        else:
            frame = overlay_image(frame, heat)
        rows.append(row | {"frame": inline(webp(frame), "image/webp")})
    return {"unit": unit, "rows": rows}


def _shown(place: MomentAddress, model: L3Net, shards: Shards, heard: bool) -> dict[str, Any]:
    """A moment as the page keeps it; with its second of sound where an audio unit fires in it."""
    moment = place.load(shards, model.config)
    shown = {
        "video": moment.clip.video_id,
        "labels": list(moment.clip.labels),
        "start": round(moment.clip.start_seconds + moment.start_seconds, 3),
        "at": round(moment.clip.start_seconds + moment.frame_seconds, 3),
        "frame": _text(webp(_frame(moment, model))),
    }
    if heard:
        shown |= {
            "spectrogram": _text(webp(_spectrogram(moment, model))),
            "sound": _text(mp3(moment.waveform)),
        }
    return shown


def _told(unit: Unit, number: dict[MomentAddress, int]) -> dict[str, Any]:
    return {
        "side": unit.side,
        "number": unit.number,
        "class": unit.preferred,
        "precision": unit.average_precision,
        "purity": unit.purity,
        "strong": unit.strong,
        "firings": [
            [
                number[firing.address],
                round(firing.activation, 4),
                list(values.shape),
                _text(values.tobytes()),
            ]
            for firing in unit.strongest
            for values in [_levels(_scaled(firing, unit))]
        ],
    }


def _scaled(firing: UnitActivation, unit: Unit) -> Float[np.ndarray, "rows columns"]:
    """A map in 0..1 of the unit's strongest activation, so that its moments compare; of sound high
    frequencies above.
    """
    values = firing.heat_map.values / np.float32(unit.activation or 1)
    return values[::-1] if unit.side == "audio" else values


def _levels(values: Float[np.ndarray, "rows columns"]) -> NDArray[np.uint8]:
    """At most `MAP_PLACES` rows and columns of whole numbers below `LEVELS`."""
    size = [min(length, MAP_PLACES) for length in values.shape]
    pooled = functional.adaptive_max_pool2d(
        torch.from_numpy(np.ascontiguousarray(values, np.float32))[None], size
    )[0].numpy()
    return np.asarray(np.rint(pooled.clip(0, 1) * (LEVELS - 1)), np.uint8)


def _palette() -> bytes:
    """For each level of a map the color and opacity, RGBA, that laid over a picture give what
    `overlay_image` gives.
    """
    levels = np.linspace(0, 1, LEVELS, dtype=np.float32)[None]
    black, white = (
        overlay_image(np.full((1, LEVELS, 3), ground, np.float32), levels)[0] for ground in (0, 1)
    )
    opacity = 1 - (white - black).mean(1, keepdims=True)
    colors = np.concatenate([(black / opacity).clip(0, 1), opacity], 1)
    return np.asarray(np.rint(colors * 255), np.uint8).tobytes()


def _frame(moment: Moment, model: L3Net) -> RgbImage:
    """The central square that the vision tower saw, small."""
    square = resize(crop(moment.frame, model.config.crop_pixels, 0.5, 0.5), PICTURE_PIXELS)
    return square.numpy().astype(np.float32) / np.float32(255)


@torch.inference_mode()
def _spectrogram(moment: Moment, model: L3Net) -> RgbImage:
    device = next(model.parameters()).device
    values = (
        model.front_end(torch.from_numpy(moment.waveform.copy())[None].to(device))[0, 0]
        .float()
        .cpu()
        .numpy()
    )
    return spectrogram_image(values, PICTURE_PIXELS // 2, PICTURE_PIXELS)


def webp(picture: RgbImage) -> bytes:
    """A small picture in about two thirds of the bytes that a JPEG takes."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)).save(
        buffer, "WEBP", quality=PICTURE_QUALITY
    )
    return buffer.getvalue()


def mp3(waveform: Int16[np.ndarray, " samples"]) -> bytes:
    """Sound at 48 kHz as a file that every browser plays, in about a sixteenth of the bytes."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        stream = container.add_stream(
            "libmp3lame", SAMPLE_RATE_HZ, layout="mono", options={"compression_level": "7"}
        )
        stream.bit_rate = SOUND_BITS_PER_SECOND
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(waveform)[None], format="s16p", layout="mono"
        )
        frame.sample_rate = SAMPLE_RATE_HZ
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
