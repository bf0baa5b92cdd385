"""Pictures of what was found: maps over frames and spectrograms, curves. Arrays in, PNG bytes out;
knows no page and no shell.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch.nn import functional

from looklisten.data.clips import Box
from looklisten.drawing.heatmap_colors import Picture, overlaid
from looklisten.evaluation.localization.evaluate import boxes_at
from looklisten.inference.localization.enlarge import enlarged
from looklisten.inference.localization.localize import Localization

SOUND = colormaps["gray"]
CLASSES = colormaps["tab20"]


def png(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    imsave(buffer, np.clip(picture, 0, 1), format="png")
    return buffer.getvalue()


def frame_picture(found: Localization, side_pixels: int = 256) -> Picture:
    """The frame of a moment at a shorter side of `side_pixels`."""
    frame = found.moment.frame.permute(2, 0, 1)[None].float() / 255
    height, width = frame.shape[2:]
    scale = side_pixels / min(height, width)
    size = (round(height * scale), round(width * scale))
    picture: Picture = (
        functional.interpolate(frame, size, mode="bilinear", antialias=True)[0]
        .permute(1, 2, 0)
        .numpy()
    )
    return np.clip(picture, 0, 1)


def spectrogram_picture(
    values: NDArray[np.float32], height: int = 128, width: int = 256
) -> Picture:
    """A log-spectrogram `[bands, columns]`, low frequencies at the bottom, contrast stretched over
    its own range.
    """
    low, high = np.percentile(values, [2, 99.8])
    flat = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return SOUND(enlarged(flat, height, width)[::-1])[..., :3].astype(np.float32)


def frame_overlay(found: Localization) -> bytes:
    """PNG of the frame with its map over it."""
    return png(overlaid(frame_picture(found), found.frame_map.values))


def spectrogram_overlay(found: Localization) -> bytes:
    """PNG of the spectrogram with its map over it."""
    return png(overlaid(spectrogram_picture(found.spectrogram), found.sound_map.values[::-1]))


def figure_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=72, facecolor="white")
    return buffer.getvalue()


def contact_sheet(found: Sequence[Localization], columns: int = 6) -> bytes:
    """PNG of several moments: the frame, the frame under its map, the spectrogram under its own;
    known boxes outlined.
    """
    columns = min(columns, len(found))
    rows = -(-len(found) // columns)
    height, width = frame_picture(found[0]).shape[:2]
    shape = min(height / width, 2.0)
    figure = Figure(figsize=(2.0 * columns, (4.0 * shape + 1.4) * rows), layout="constrained")
    axes = figure.subplots(
        3 * rows, columns, squeeze=False, height_ratios=[shape, shape, 0.5] * rows
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for place, one in enumerate(found):
        top, column = 3 * (place // columns), place % columns
        frame, sound = frame_picture(one), spectrogram_picture(one.spectrogram)
        pictures = (
            frame,
            overlaid(frame, one.frame_map.values),
            overlaid(sound, one.sound_map.values[::-1]),
        )
        for row, picture in enumerate(pictures):
            axes[top + row, column].imshow(picture)
        for box in boxes_at(one.moment.clip, one.moment.frame_seconds):
            axes[top + 1, column].add_patch(_outline(box, frame.shape[1], frame.shape[0]))
        name = "".join(f"{label} · " for label in one.moment.clip.labels)
        title = f"{name}{one.at_seconds:.1f} s\nbelongs: {one.probability:.0%}"
        axes[top, column].set_title(title, fontsize=9)
    return figure_png(figure)


def _outline(box: Box, width: int, height: int) -> Rectangle:
    corner, size = (
        (box.x0 * width, box.y0 * height),
        ((box.x1 - box.x0) * width, (box.y1 - box.y0) * height),
    )
    return Rectangle(
        corner,
        *size,
        fill=False,
        edgecolor="lime" if box.sounding else "white",
        linestyle="-" if box.sounding else ":",
        linewidth=1.2,
    )


def planes(sides: Sequence[tuple[str, NDArray[np.float32], NDArray[Any]]]) -> bytes:
    """PNG of items in a plane, colored by class; for each side its title, the places `[items, 2]`
    and the class of each item.
    """
    classes = sorted({str(label) for _, _, labels in sides for label in labels})
    figure = Figure(figsize=(7 * len(sides) + 2, 7), layout="constrained")
    for axis, (title, places, labels) in zip(
        figure.subplots(1, len(sides), squeeze=False)[0], sides, strict=True
    ):
        for number, label in enumerate(classes):
            x, y = places[labels == label].T
            marker = "o^sDvP*X"[number // 20 % 8]  # the colors are twenty
            axis.scatter(
                x, y, s=14, color=CLASSES(number % 20), marker=marker, linewidths=0, label=label
            )
        axis.set(title=title, xticks=[], yticks=[])
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure_png(figure)


def curves(metrics: Sequence[dict[str, Any]], chance: float) -> bytes:
    """PNG of a run's loss and accuracies by step; `chance` is the loss of who knows nothing."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis, names, title in (
        (left, ("loss",), f"loss (chance: {chance:.3g})"),
        (right, ("accuracy", "held_out_accuracy"), "correspondence accuracy (chance: 0.5)"),
    ):
        for name in names:
            points = [(row["step"], row[name]) for row in metrics if name in row]
            if points:
                axis.plot(
                    *zip(*points, strict=True),
                    label=name.replace("_", " "),
                    marker="o" if len(points) < 40 else "",
                    markersize=3,
                )
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend()
    left.axhline(chance, color="gray", linewidth=0.8)
    right.axhline(0.5, color="gray", linewidth=0.8)
    return figure_png(figure)
