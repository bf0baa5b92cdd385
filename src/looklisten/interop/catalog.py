"""Lists the networks, backbones and recipes that can be named, with size, license and origin.

Asks no server. Knows names and cards; computes only where it measures.
"""

import time
from dataclasses import dataclass
from typing import Literal

import torch

from looklisten.config import SIDES, Config, ModelConfig, Side, recipes
from looklisten.inference.towers import listen, look
from looklisten.interop.openl3.backbone import openl3_backbone
from looklisten.interop.openl3.layers import CHANNELS
from looklisten.interop.openl3.published import published_file
from looklisten.interop.openl3.variants import BLOB_IDS, variant_named
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.model.backbones import BACKBONES, build_tower
from looklisten.model.l3net import L3Net
from looklisten.model.networks import HF_PREFIX, OPENL3_PREFIX
from looklisten.model.shipped import SHIPPED, open_shipped
from looklisten.system.published_files import is_local

Use = Literal["network", "backbone", "network, backbone", "recipe"]

MEASURED_RUNS = 10


@dataclass(frozen=True)
class ModelCard:
    """What is known of one name."""

    name: str
    use: Use
    """network: a name for `ll.load`; backbone: for `model.vision_backbone` or
    `model.audio_backbone`; recipe: for `looklisten train --config`.
    """
    sides: str
    million_parameters: float
    """Of one tower; of a recipe, of both towers; 0 where only the model's card says it."""
    download_mb: float
    """0 where nothing is downloaded."""
    is_local: bool | None
    """Whether the file is here: in the cache, an installed package or the folder of the mirror
    variable. None where nothing is downloaded.
    """
    license: str
    trained_by: str
    trained_on: str
    """The data and the labels; empty where training begins from scratch."""
    milliseconds: float | None = None
    """The measured median time of one frame or one second of sound; None if not measured."""


def models(measure: bool = False) -> list[ModelCard]:
    """Cards of everything that can be named. With `measure`, backbones are timed on the CPU."""
    return [
        *_shipped(),
        *_backbones(measure),
        *_openl3_networks(),
        *_models_of_the_hub(),
        *_recipes(),
    ]


def _shipped() -> list[ModelCard]:
    """The networks of the package, with the published towers that they read."""
    cards = []
    for name in SHIPPED:
        config = open_shipped(name).config.model
        towers = []
        for side in SIDES:
            published = BACKBONES[config.backbone_of(side)].published
            if published is not None:
                towers.append(published)
        cards.append(
            ModelCard(
                name=name,
                use="network",
                sides="vision and audio",
                million_parameters=round(sum(_millions(config, side) for side in SIDES), 1),
                download_mb=round(sum(tower.file.size_mb for tower in towers), 1),
                is_local=all(is_local(tower.file) for tower in towers),
                license=", ".join(sorted({tower.file.license for tower in towers})),
                trained_by="looklisten, on towers of others: " + _tower_names(config),
                trained_on="towers: see their rows; fusion: 210 short real videos, without labels",
            )
        )
    return cards


def _tower_names(config: ModelConfig) -> str:
    """The backbones of both sides."""
    return ", ".join(config.backbone_of(side) for side in SIDES)


def _backbones(measure: bool) -> list[ModelCard]:
    cards = []
    for name, backbone in sorted(BACKBONES.items()):
        side = backbone.sides[0]
        config = _config_of(name, side)
        published = backbone.published
        cards.append(
            ModelCard(
                name=name,
                use="backbone",
                sides=" and ".join(backbone.sides),
                million_parameters=_millions(config, side),
                download_mb=published.file.size_mb if published else 0.0,
                is_local=is_local(published.file) if published else None,
                license=published.file.license if published else "",
                trained_by=published.trained_by if published else "",
                trained_on=published.trained_on if published else "",
                milliseconds=_milliseconds(config, side) if measure else None,
            )
        )
    return cards


def _config_of(backbone: str, side: Side) -> ModelConfig:
    """Settings with this backbone on one side."""
    settings = {f"{side}_backbone": backbone}
    if BACKBONES[backbone].front_end:
        settings["front_end"] = BACKBONES[backbone].front_end
    return ModelConfig.model_validate(settings)


def _millions(config: ModelConfig, side: Side) -> float:
    with torch.device("meta"):
        tower = build_tower(config, side)
    return round(sum(parameter.numel() for parameter in tower.parameters()) / 1e6, 1)


@torch.inference_mode()
def _milliseconds(config: ModelConfig, side: Side) -> float:
    """The median time of one input, after one that warms up."""
    network = L3Net(config).eval()
    frames = torch.zeros(1, 3, config.crop_pixels, config.crop_pixels, dtype=torch.uint8)
    sound = torch.zeros(1, WINDOW_SAMPLES)
    seconds = []
    for _ in range(1 + MEASURED_RUNS):
        began = time.perf_counter()
        look(network, frames) if side == "vision" else listen(network, sound)
        seconds.append(time.perf_counter() - began)
    return 1000 * sorted(seconds[1:])[MEASURED_RUNS // 2]


def _openl3_networks() -> list[ModelCard]:
    cards = []
    for stem in BLOB_IDS:
        network = variant_named(OPENL3_PREFIX + stem.removeprefix("openl3_").replace("_", "-"))
        file = published_file(network)
        weights = openl3_backbone(file.title).published
        assert weights is not None
        cards.append(
            ModelCard(
                name=file.title,
                use="network, backbone",
                sides=network.side,
                million_parameters=_openl3_millions(network.side),
                download_mb=file.size_mb,
                is_local=is_local(file),
                license=file.license,
                trained_by=weights.trained_by,
                trained_on=weights.trained_on,
            )
        )
    return cards


def _openl3_millions(side: Side) -> float:
    inputs = (1 if side == "audio" else 3, *CHANNELS)
    pairs = zip(inputs, CHANNELS, strict=False)
    # A filter has 3 x 3 weights for each input and a bias.
    return round(sum((9 * before + 1) * after for before, after in pairs) / 1e6, 1)


def _models_of_the_hub() -> list[ModelCard]:
    """One card for all models that transformers loads; only their own cards say more."""
    return [
        ModelCard(
            name=f"{HF_PREFIX}NAME",
            use="network, backbone",
            sides="vision or audio",
            million_parameters=0.0,
            download_mb=0.0,
            is_local=None,
            license="that of its model card",
            trained_by="its publisher on the Hugging Face Hub",
            trained_on="what its model card says",
        )
    ]


def _recipes() -> list[ModelCard]:
    cards = []
    for name in sorted(recipes()):
        config = Config.load(name).model
        cards.append(
            ModelCard(
                name=name,
                use="recipe",
                sides="vision and audio",
                million_parameters=round(sum(_millions(config, side) for side in SIDES), 1),
                download_mb=0.0,
                is_local=None,
                license="",
                trained_by="",
                trained_on="",
            )
        )
    return cards
