"""How a model of the Hub wants its pictures: size, cut, mean and deviation. Knows tensors."""

import json
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from looklisten.errors import PublishedFileError
from looklisten.interop.hf.source import HfSource, transformers_for
from looklisten.media.frames import FrameFit

WARPED_FROM_PIXELS = 384
"""ConvNeXt's input is not cropped from this size on."""

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class PictureInput:
    """What the image processor of a model does, for squares of one size."""

    resize_pixels: int
    """The shorter side that a picture is resized to."""
    crop_pixels: int
    """The side of the square that it then becomes."""
    frame_fit: FrameFit
    """How it becomes that square."""
    scale: float
    """Values in 0..1 are multiplied by it."""
    mean: Channels
    """It is subtracted then ..."""
    deviation: Channels
    """... and this divided by."""

    def normalized(
        self, frames: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Frames in 0..1 as the model was trained on them."""
        mean = torch.tensor(self.mean, device=frames.device)[:, None, None]
        deviation = torch.tensor(self.deviation, device=frames.device)[:, None, None]
        return (frames * self.scale - mean) / deviation


def picture_input(source: HfSource) -> PictureInput:
    """The input of a model, from its `preprocessor_config.json`.

    Raises PublishedFileError where there is none, or one for other pictures than squares.
    """
    with transformers_for(source.name) as transformers:
        processor = transformers.AutoImageProcessor.from_pretrained(
            source.folder, trust_remote_code=False
        )
        settings: dict[str, Any] = processor.to_dict()
        return _input_of(settings, source.name)


def video_picture_input(source: HfSource) -> PictureInput:
    """The input of a model of videos for a single frame.

    Raises PublishedFileError as `picture_input` does.
    """
    # Processors of videos need torchvision, so the settings are read as they are on disk.
    with transformers_for(source.name):
        of_all = source.folder / "processor_config.json"
        settings = json.loads(of_all.read_text()) if of_all.is_file() else {}
        if "video_processor" not in settings:
            of_videos = source.folder / "video_preprocessor_config.json"
            settings = {"video_processor": json.loads(of_videos.read_text())}
        return _input_of(settings["video_processor"], source.name)


def _input_of(settings: dict[str, Any], name: str) -> PictureInput:
    resize, crop, fit = _sizes(settings, name)
    scale = 255 * settings["rescale_factor"] if settings.get("do_rescale", True) else 255.0
    is_normalized = settings.get("do_normalize", True)
    mean = settings["image_mean"] if is_normalized else (0.0,) * 3
    deviation = settings["image_std"] if is_normalized else (1.0,) * 3
    return PictureInput(resize, crop, fit, scale, _channels(mean), _channels(deviation))


def _channels(values: Any) -> Channels:
    """One value for each channel; a single number is that of all."""
    red, green, blue = [values] * 3 if isinstance(values, float) else values
    return float(red), float(green), float(blue)


def _sizes(settings: dict[str, Any], name: str) -> tuple[int, int, FrameFit]:
    """Shorter side, side of the square, and how the one becomes the other."""
    size = settings.get("size") or {}
    edge = size.get("shortest_edge")
    # ConvNeXt's processor says the crop, and its share of the resized picture.
    if edge and settings.get("crop_pct"):
        if edge >= WARPED_FROM_PIXELS:
            return edge, edge, "squeeze"
        return int(edge / settings["crop_pct"]), edge, "crop"
    # A size of the crop means nothing where nothing is cropped.
    square = settings.get("crop_size") if settings.get("do_center_crop") else None
    if square and square.get("height") == square.get("width"):
        return edge or size.get("height") or square["height"], square["height"], "crop"
    if edge:
        return edge, edge, "crop"
    if size.get("height") and size.get("height") == size.get("width"):
        return size["height"], size["height"], "squeeze"
    raise PublishedFileError(
        f"{name} takes pictures of the size {size}, and looklisten gives squares; "
        "choose another model"
    )
