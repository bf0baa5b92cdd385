"""What was decided: frozen, checked, readable. One `Config` makes a run; a recipe is a TOML file of it.

Every field says its unit and why its default is what it is. "Untold" marks what the paper does not say.
"""

import difflib
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from looklisten.errors import ConfigError


class Section(BaseModel):
    """A frozen table of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelConfig(Section):
    """The network: everything needed to build it again."""

    widths: tuple[PositiveInt, ...] = (64, 128, 256, 512)
    """Filters of each block of both towers (paper, figure 2)."""
    first_stride: PositiveInt = 1
    """Stride of conv1_1: 1 in the paper, 2 in its follow-up."""
    front_end: Literal["paper", "compact"] = "paper"
    """Waveform to log-spectrogram: the paper's 257 x 199, or 64 mel bands up to 8 kHz."""
    resize_pixels: PositiveInt = 256
    """The shorter side of a frame before it is cropped."""
    crop_pixels: PositiveInt = 224
    """The side of the square that the vision tower is trained on."""
    fusion: Literal["concat", "distance"] = "concat"
    """How the sides meet: fully-connected layers over both (the paper), or a distance of unit vectors (its follow-up, AVE-Net)."""
    fusion_width: PositiveInt = 128
    """Units of the layers of the fusion (paper, figure 2)."""

    @model_validator(mode="after")
    def _crop_fits(self) -> "ModelConfig":
        if self.crop_pixels > self.resize_pixels:
            raise ValueError(f"crop_pixels {self.crop_pixels} is larger than resize_pixels {self.resize_pixels}")
        if self.crop_pixels < self.first_stride * 2 ** (len(self.widths) - 1):
            raise ValueError(f"crop_pixels {self.crop_pixels} leaves nothing after {len(self.widths)} blocks")
        return self


class AugmentConfig(Section):
    """What training changes at random. The ranges are untold; these are those of the re-implementation l3embedding."""

    flip: bool = True
    """Mirror half of the frames."""
    brightness: float = Field(default=32 / 255, ge=0, lt=1)
    """Added to all channels, uniform in ± this, frames in 0..1. Untold."""
    saturation: float = Field(default=0.5, ge=0, le=1)
    """Saturation is multiplied by 1 ± this. Untold."""
    gain: float = Field(default=0.1, ge=0, lt=1)
    """A sound is multiplied by 1 ± this, the same over its whole second (paper, section 3)."""


class TrainConfig(Section):
    """How the network is trained."""

    steps: PositiveInt = 234_375
    """Batches: 60 million pairs at batch 256 (paper, section 4)."""
    batch_size: int = Field(default=256, ge=2)
    """Videos in a batch; each gives one positive pair and one negative."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Adam's; found by grid search in the paper, "1e-4 usually good"."""
    weight_decay: float = Field(default=1e-5, ge=0)
    """L2, added to the gradient as Adam's authors had it."""
    warmup_steps: int = Field(default=0, ge=0)
    """The rate climbs linearly over the first so many steps."""
    schedule: Literal["constant", "cosine"] = "constant"
    """The rate after the warm-up: constant (the paper names no decay) or a cosine to zero at the last step."""
    negatives: Literal["roll", "all"] = "roll"
    """Negatives of a batch: one re-pairing of the frames with the sounds, or every other pair, weighted to balance."""
    seed: int = Field(default=0, ge=0)
    """Draws the initial weights, the order of videos, the pairs and the augmentation."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the towers; auto takes bfloat16 where the device multiplies it."""
    held_out_fraction: float = Field(default=0.1, gt=0, lt=1)
    """The share of videos kept from training when the shards name no split (at least 2 videos)."""
    evaluate_every: PositiveInt = 1000
    """Steps between AVC accuracies on held-out videos."""
    checkpoint_every: PositiveInt = 1000
    """Steps between checkpoints."""
    keep_checkpoints: PositiveInt = 3
    """Older ones are removed."""
    log_every: PositiveInt = 10
    """Steps between lines of metrics.jsonl; also between looks at the device's numbers, which wait for it."""


class Config(Section):
    """A run: network, augmentation, training."""

    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str) -> "Config":
        """Checked settings; raises ConfigError, one sentence that names `source`, the key and the nearest right one."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: {_explain(error, cls)}") from None

    @classmethod
    def load(cls, recipe: str | Path) -> "Config":
        """A recipe by its name (`tiny`, `l3`) or a TOML file by its path."""
        path = Path(recipe)
        if path.suffix == ".toml":
            try:
                text = path.read_text(encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"the recipe {path} cannot be read: {error.strerror}") from None
        else:
            known = recipes()
            if str(recipe) not in known:
                raise ConfigError(
                    f"there is no recipe {recipe!r}; the recipes are {', '.join(sorted(known))}, or give a path ending in .toml"
                )
            text = known[str(recipe)]
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"the recipe {recipe} is not TOML: {error}") from None
        return cls.of(values, f"the recipe {recipe}")

    def toml(self) -> str:
        """The resolved settings as a recipe."""
        return tomlkit.dumps(self.model_dump(mode="json"))


def recipes() -> dict[str, str]:
    """The recipes that come with the package: name -> TOML text."""
    folder = resources.files("looklisten") / "recipes"
    return {Path(file.name).stem: file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".toml")}


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    first = error.errors()[0]
    *parents, key = map(str, first["loc"]) if first["loc"] else ("recipe",)
    where = ".".join([*parents, key])
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg'].removeprefix('Value error, ')}"
    section = model
    for parent in parents:
        section = section.model_fields[parent].annotation  # type: ignore[assignment]
    near = difflib.get_close_matches(key, section.model_fields, 1, 0.5)
    hint = f"did you mean {'.'.join([*parents, near[0]])}?" if near else f"known here: {', '.join(section.model_fields)}"
    return f"there is no setting {where}; {hint}"
