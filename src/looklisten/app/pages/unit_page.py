"""The page of units: the moments that activate each unit most, with maps, sounds and classes.

A page of 1,024 units must open at once. So each moment's frame and sound are stored once, small and
compressed, for all units that it activates. A map is a few bytes that the browser colors and
enlarges. The browser draws only the units that are in view.
"""

import base64
import io
from collections.abc import Sequence
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

from looklisten.app.pages.page import data_url, fill_template, write_page
from looklisten.config import SIDES
from looklisten.drawing.figures import spectrogram_image
from looklisten.drawing.heatmap_colors import RgbImage, overlay_image
from looklisten.evaluation.units.naming import Unit, Units
from looklisten.inference.moments import Moment
from looklisten.inference.unit_activations import MomentAddress, UnitActivation
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.frames import fit_square, resize
from looklisten.model.l3net import L3Net
from looklisten.system.progress import Progress, no_progress

FRAME_PIXELS = 120
"""The side of a frame, and the width of a spectrogram, which is half as high."""
WEBP_QUALITY = 65
SOUND_BITS_PER_SECOND = 48_000
MAP_POSITIONS = 16
"""The most rows and columns of a stored map, each the maximum of those that it replaces."""
LEVELS = 256


def write_unit_page(
    path: Path, units: Units, model: L3Net, progress: Progress = no_progress
) -> dict[str, Any]:
    """Write all units as one HTML file that needs no other file, and return its path and size.

    `model`: the network of the units.
    """
    # Sounds are most of the bytes, and vision units do not show them.
    audio_moments = _addresses(units.of("audio"))
    addresses = sorted(_addresses(units.units))
    moments = []
    for done, address in enumerate(addresses, 1):
        moment = address.load(units.clips, model.config)
        moments.append(_moment_values(moment, model, with_sound=address in audio_moments))
        progress(done, len(addresses))
    number_of = {address: number for number, address in enumerate(addresses)}
    data = {
        "units": [_unit_values(unit, number_of) for unit in units.units],
        "moments": moments,
        "palette": _base64(palette_bytes()),
    }
    write_page(
        path,
        "units.html.j2",
        data=data,
        result=units.as_dict(),
        classes=sorted({unit.preferred for unit in units.units} - {""}),
        top=max([1, *(len(unit.strongest) for unit in units.units)]),
        shards=units.clips.path.name,
    )
    return {"page": str(path), "page_bytes": path.stat().st_size, "moments_shown": len(addresses)}


def _addresses(units: Sequence[Unit]) -> set[MomentAddress]:
    """All moments that activate some of the units most."""
    addresses: set[MomentAddress] = set()
    for unit in units:
        addresses.update(activation.address for activation in unit.strongest)
    return addresses


def best_units(units: Units, model: L3Net, count: int = 4) -> Markup:
    """The `count` most selective units of each side (`Units.best`), as HTML for another page."""
    sides = {}
    for side in SIDES:
        sides[side] = [_best_unit_values(unit, units, model) for unit in units.best(side, count)]
    return fill_template("best_units.html.j2", sides=sides)


def _best_unit_values(unit: Unit, units: Units, model: L3Net) -> dict[str, Any]:
    """The values of the template for a unit: images with their maps on top, and sounds of audio."""
    rows = []
    for activation in unit.strongest:
        moment = activation.address.load(units.clips, model.config)
        heat = scaled_map(activation, unit)
        frame = _frame(moment, model)
        row = {
            "label": ", ".join(moment.clip.labels),
            "title": f"{activation.video_id} at {activation.at_seconds:.2f} s",
            "sound": "",
        }
        if unit.side == "audio":
            spectrogram = overlay_image(_spectrogram(moment, model), heat)
            row["spectrogram"] = data_url(webp(spectrogram), "image/webp")
            row["sound"] = data_url(mp3(moment.waveform), "audio/mpeg")
        else:
            frame = overlay_image(frame, heat)
        row["frame"] = data_url(webp(frame), "image/webp")
        rows.append(row)
    return {"unit": unit, "rows": rows}


def _moment_values(moment: Moment, model: L3Net, with_sound: bool) -> dict[str, Any]:
    """A moment as the page stores it; its sound only where an audio unit shows it."""
    clip = moment.clip
    values = {
        "video": clip.video_id,
        "labels": list(clip.labels),
        "sound_seconds": round(clip.start_seconds + moment.start_seconds, 3),
        "frame_seconds": round(clip.start_seconds + moment.frame_seconds, 3),
        "frame": _base64(webp(_frame(moment, model))),
    }
    if with_sound:
        values["spectrogram"] = _base64(webp(_spectrogram(moment, model)))
        values["sound"] = _base64(mp3(moment.waveform))
    return values


def _unit_values(unit: Unit, number_of: dict[MomentAddress, int]) -> dict[str, Any]:
    """A unit as the page stores it, with the numbers of its moments and their maps."""
    strongest = []
    for activation in unit.strongest:
        # One byte a position; the browser looks up its color in the palette.
        levels = map_levels(scaled_map(activation, unit))
        strongest.append(
            [
                number_of[activation.address],
                round(activation.activation, 4),
                list(levels.shape),
                _base64(levels.tobytes()),
            ]
        )
    return {
        "side": unit.side,
        "number": unit.number,
        "class": unit.preferred,
        "precision": unit.average_precision,
        "purity": unit.purity,
        "strong": unit.strong,
        "strongest": strongest,
    }


def scaled_map(activation: UnitActivation, unit: Unit) -> Float[np.ndarray, "rows columns"]:
    """A map by the unit's highest activation, in 0..1, so that its moments can be compared.

    The first row is at the top; of sound, the highest frequencies.
    """
    values = activation.heat_map.values / np.float32(unit.activation or 1)
    return values[::-1] if unit.side == "audio" else values


def map_levels(values: Float[np.ndarray, "rows columns"]) -> NDArray[np.uint8]:
    """The map as whole numbers below `LEVELS`, with at most `MAP_POSITIONS` rows and columns."""
    size = [min(length, MAP_POSITIONS) for length in values.shape]
    batch = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None]
    # The maximum, as a mean would lose a narrow peak.
    pooled = functional.adaptive_max_pool2d(batch, size)[0].numpy()
    return np.asarray(np.rint(pooled.clip(0, 1) * (LEVELS - 1)), np.uint8)


def palette_bytes() -> bytes:
    """The color and opacity of each level, RGBA: over an image they look like `overlay_image`."""
    levels = np.linspace(0, 1, LEVELS, dtype=np.float32)[None]
    black = np.zeros((1, LEVELS, 3), np.float32)
    on_black = overlay_image(black, levels)[0]
    on_white = overlay_image(black + 1, levels)[0]
    # Drawn over black and over white, a color differs by what is transparent.
    opacity = 1 - (on_white - on_black).mean(1, keepdims=True)
    color = (on_black / opacity).clip(0, 1)
    rgba = np.concatenate([color, opacity], 1)
    return np.asarray(np.rint(rgba * 255), np.uint8).tobytes()


def _frame(moment: Moment, model: L3Net) -> RgbImage:
    """The square that the vision tower gets, small."""
    config = model.config
    square = resize(fit_square(moment.frame, config.crop_pixels, config.frame_fit), FRAME_PIXELS)
    return square.numpy().astype(np.float32) / np.float32(255)


@torch.inference_mode()
def _spectrogram(moment: Moment, model: L3Net) -> RgbImage:
    device = next(model.parameters()).device
    # A copy, as the waveform is a view of a file that nobody may write to.
    waveforms = torch.from_numpy(moment.waveform.copy())[None].to(device)
    values = model.front_end(waveforms)[0, 0].float().cpu().numpy()
    return spectrogram_image(values, FRAME_PIXELS // 2, FRAME_PIXELS)


def webp(image: RgbImage) -> bytes:
    """A small image in about two thirds of the bytes of a JPEG."""
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "WEBP", quality=WEBP_QUALITY)
    return buffer.getvalue()


def mp3(waveform: Int16[np.ndarray, " samples"]) -> bytes:
    """Sound at 48 kHz as a file that every browser plays, in about a sixteenth of the bytes."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        stream = container.add_stream(
            "libmp3lame", SAMPLE_RATE_HZ, layout="mono", options={"compression_level": "7"}
        )
        stream.bit_rate = SOUND_BITS_PER_SECOND
        samples = np.ascontiguousarray(waveform)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16p", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        container.mux(stream.encode(frame))
        # Without input, the encoder gives what it still holds.
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
