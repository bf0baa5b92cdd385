"""Images of results: frames and spectrograms with heat maps, scatter plots, training curves.

Arrays in, images or PNG bytes out. Knows no file and no page.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from looklisten.data.clips import Box
from looklisten.drawing.heatmap_colors import FloatArray, RgbImage, overlay_image
from looklisten.drawing.spectrogram_strip import CONTRAST_PERCENTILES, stretch_contrast
from looklisten.evaluation.localization.evaluate import boxes_at
from looklisten.inference.localization.enlarge import enlarge_map
from looklisten.inference.localization.records import Localization
from looklisten.inference.moments import Moment

FramePixels = UInt8[Tensor, "height width 3"]

GRAY_COLORS = colormaps["gray"]
CLASS_COLORS = colormaps["tab20"]
CLASS_MARKERS = "o^sDvP*X"

TALLEST_FRAME = 2.0
"""Height over width of the tallest frame on a contact sheet; taller ones get empty borders."""

MANY_POINTS = 40
"""A curve of more points has no markers."""


@dataclass(frozen=True, eq=False)
class SheetColumn:
    """One moment of a contact sheet."""

    frame: FramePixels
    localization: Localization
    labels: Sequence[str] = ()
    boxes: Sequence[Box] = ()

    @staticmethod
    def of(moment: Moment, localization: Localization) -> "SheetColumn":
        """A moment with the labels and the boxes of its clip."""
        boxes = boxes_at(moment.clip, moment.frame_seconds)
        return SheetColumn(moment.frame, localization, moment.clip.labels, boxes)


def encode_png(image: RgbImage) -> bytes:
    """PNG bytes of an image."""
    buffer = io.BytesIO()
    imsave(buffer, np.clip(image, 0, 1), format="png")
    return buffer.getvalue()


def frame_image(frame: FramePixels, shorter_side_pixels: int = 256) -> RgbImage:
    """A frame in another size."""
    pixels = frame.permute(2, 0, 1)[None].float() / 255
    height, width = pixels.shape[2:]
    scale = shorter_side_pixels / min(height, width)
    new_height = round(height * scale)
    new_width = round(width * scale)
    resized = functional.interpolate(
        pixels,
        (new_height, new_width),
        mode="bilinear",
        antialias=True,
    )
    image: RgbImage = resized[0].permute(1, 2, 0).numpy()
    return np.clip(image, 0, 1)


def spectrogram_image(values: FloatArray, height: int = 128, width: int = 256) -> RgbImage:
    """A log-spectrogram `[bands, columns]` in gray, low frequencies at the bottom."""
    low, high = np.percentile(values, CONTRAST_PERCENTILES)
    levels = stretch_contrast(values, low, high)
    upright = enlarge_map(levels, height, width)[::-1]
    gray: RgbImage = GRAY_COLORS(upright)[..., :3]
    return gray.astype(np.float32)


def frame_overlay(frame: FramePixels, localization: Localization) -> RgbImage:
    """A frame with its heat map in color over it."""
    return overlay_image(frame_image(frame), localization.frame_map.values)


def spectrogram_overlay(localization: Localization) -> RgbImage:
    """The spectrogram of a moment with its heat map in color over it."""
    # Rows of the map go from low to high frequencies, rows of an image go down.
    heat = localization.sound_map.values[::-1]
    return overlay_image(spectrogram_image(localization.spectrogram), heat)


def figure_png(figure: Figure) -> bytes:
    """PNG bytes of a Matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=72, facecolor="white")
    return buffer.getvalue()


def contact_sheet(moments: Sequence[SheetColumn], columns: int = 6) -> bytes:
    """PNG of several moments: the frame, the frame with its map, the spectrogram with its map.

    Boxes are outlined on the second frame.
    """
    columns = min(columns, len(moments))
    # A block is three rows of images with `columns` moments side by side.
    blocks = -(-len(moments) // columns)
    height, width = frame_image(moments[0].frame).shape[:2]
    frame_height = min(height / width, TALLEST_FRAME)
    figure = Figure(
        figsize=(2.0 * columns, (4.0 * frame_height + 1.4) * blocks), layout="constrained"
    )
    row_heights = [frame_height, frame_height, 0.5]
    axes = figure.subplots(3 * blocks, columns, squeeze=False, height_ratios=row_heights * blocks)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, moment in enumerate(moments):
        block, column = divmod(number, columns)
        _draw_moment(moment, axes[3 * block : 3 * block + 3, column])
    return figure_png(figure)


def _draw_moment(moment: SheetColumn, axes: Iterable[Axes]) -> None:
    localization = moment.localization
    plain_axis, heat_axis, sound_axis = axes
    frame = frame_image(moment.frame)
    plain_axis.imshow(frame)
    heat_axis.imshow(overlay_image(frame, localization.frame_map.values))
    sound_axis.imshow(spectrogram_overlay(localization))
    height, width = frame.shape[:2]
    for box in moment.boxes:
        heat_axis.add_patch(_box_outline(box, width, height))
    plain_axis.set_title(moment_title(moment), fontsize=9)


def moment_title(moment: SheetColumn) -> str:
    """Labels, time and the network's answer; to silence it has none that means anything."""
    localization = moment.localization
    labels = "".join(f"{label} · " for label in moment.labels)
    answer = "no sound"
    if not localization.is_silent:
        answer = f"corresponds: {localization.probability:.0%}"
    return f"{labels}{localization.at_seconds:.1f} s\n{answer}"


def _box_outline(box: Box, width: int, height: int) -> Rectangle:
    return Rectangle(
        (box.x0 * width, box.y0 * height),
        (box.x1 - box.x0) * width,
        (box.y1 - box.y0) * height,
        fill=False,
        edgecolor="lime" if box.sounding else "white",
        linestyle="-" if box.sounding else ":",
        linewidth=1.2,
    )


def class_scatter(sides: Sequence[tuple[str, FloatArray, NDArray[Any]]]) -> bytes:
    """PNG of items in a plane, colored by class.

    `sides`: for each plot its title, the coordinates `[items, 2]` and the class of each item.
    """
    classes = sorted({str(label) for _, _, labels in sides for label in labels})
    figure = Figure(figsize=(7 * len(sides) + 2, 7), layout="constrained")
    axes = figure.subplots(1, len(sides), squeeze=False)[0]
    for axis, (title, coordinates, labels) in zip(axes, sides, strict=True):
        for number, label in enumerate(classes):
            x, y = coordinates[labels == label].T
            # There are twenty colors; after twenty classes the marker changes.
            marker = CLASS_MARKERS[number // 20 % len(CLASS_MARKERS)]
            color = CLASS_COLORS(number % 20)
            axis.scatter(x, y, s=14, color=color, marker=marker, linewidths=0, label=label)
        axis.set(title=title, xticks=[], yticks=[])
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure_png(figure)


def training_curves(metrics: Sequence[dict[str, Any]], chance_loss: float) -> bytes:
    """PNG of the loss and the accuracies of a run by step; chance is a gray line."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    loss_axis, accuracy_axis = figure.subplots(1, 2)
    _plot_curves(loss_axis, metrics, ["loss"])
    _plot_curves(accuracy_axis, metrics, ["accuracy", "held_out_accuracy"])
    loss_axis.set(title=f"loss (chance: {chance_loss:.3g})", xlabel="step")
    loss_axis.axhline(chance_loss, color="gray", linewidth=0.8)
    accuracy_axis.set(title="correspondence accuracy (chance: 0.5)", xlabel="step")
    accuracy_axis.axhline(0.5, color="gray", linewidth=0.8)
    return figure_png(figure)


def _plot_curves(axis: Axes, metrics: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    for name in names:
        # Not every row has every metric: held-out accuracy is measured less often.
        rows = [row for row in metrics if name in row]
        if not rows:
            continue
        steps = [row["step"] for row in rows]
        values = [row[name] for row in rows]
        marker = "o" if len(rows) < MANY_POINTS else ""
        axis.plot(steps, values, label=name.replace("_", " "), marker=marker, markersize=3)
    axis.grid(alpha=0.3)
    axis.legend()
