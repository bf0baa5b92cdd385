"""What was decided: frozen, checked, readable. One `Config` makes a run; a recipe is a TOML file of
it.

Every field says its unit and why its default is what it is. "Untold" marks what the paper does not
say.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from looklisten.errors import ConfigError

Side = Literal["audio", "vision"]
"""One of the two inputs of the network."""


class Section(BaseModel):
    """A frozen table of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelConfig(Section):
    """The network: everything needed to build it again."""

    widths: tuple[PositiveInt, ...] = (64, 128, 256, 512)
    """Filters of each block of both towers (paper, figure 2)."""
    first_stride: PositiveInt = 1
    """Stride of conv1_1: 1 in the paper, 2 in its follow-up."""
    front_end: Literal["paper", "compact", "linear", "mel128", "mel256"] = "paper"
    """Waveform to log-spectrogram: the paper's 257 x 199; compact, 64 mel bands up to 8 kHz; or one
    of OpenL3's, in decibels below the loudest place of the second, with a batch-norm before the
    tower.
    """
    resize_pixels: PositiveInt = 256
    """The shorter side of a frame before it is cropped."""
    crop_pixels: PositiveInt = 224
    """The side of the square that the vision tower is trained on."""
    fusion: Literal["concat", "distance", "similarity", "dense"] = "concat"
    """How the sides meet: fully-connected layers over both (the paper); a distance of unit vectors
    (its follow-up, AVE-Net); the sound with the best place of the frame (similarity, AVOL-Net); or
    each moment of it with its best place (dense, after DenseAV).
    """
    fusion_width: PositiveInt = 128
    """Units of the layers of the fusion (paper, figure 2)."""
    sharpness: float = Field(default=10.0, gt=0)
    """Of the soft maximum over places, with fusion "similarity" and "dense": near 0 it is the mean,
    without end the maximum. A network means its answers by the value that it was trained with.
    """
    pools_keeping_time: int = Field(default=0, ge=0)
    """The last so many pools of the audio tower halve frequency and leave time, so that the moments
    of its map lie closer.
    """
    frames_per_pair: PositiveInt = 1
    """Neighbouring stored frames that the vision tower sees at once, as channels; 1 is the paper,
    more show motion.
    """
    window: Literal["hann", "hamming", "rectangular"] = "hann"
    """Of the Fourier transform. Untold; Hann is what the re-implementations use."""
    initialization: Literal["he-normal", "he-uniform", "xavier-uniform"] = "he-normal"
    """Of convolutions and fully-connected layers; biases begin at zero. Untold; He normal is what
    the re-implementations use.
    """

    @model_validator(mode="after")
    def _crop_fits(self) -> "ModelConfig":
        if self.crop_pixels > self.resize_pixels:
            raise ValueError(
                f"crop_pixels {self.crop_pixels} is larger than resize_pixels {self.resize_pixels}"
            )
        if self.crop_pixels < self.first_stride * 2 ** (len(self.widths) - 1):
            raise ValueError(
                f"crop_pixels {self.crop_pixels} leaves nothing after {len(self.widths)} blocks"
            )
        if self.pools_keeping_time >= len(self.widths):
            raise ValueError(
                f"pools_keeping_time {self.pools_keeping_time}: {len(self.widths)} blocks have {len(self.widths) - 1} pools"
            )
        return self


class AugmentConfig(Section):
    """What training changes at random. The ranges are untold; these are those of the
    re-implementation l3embedding.
    """

    flip: bool = True
    """Mirror half of the frames."""
    brightness: float = Field(default=32 / 255, ge=0, lt=1)
    """Added to all channels, uniform in ± this, frames in 0..1. Untold."""
    saturation: float = Field(default=0.5, ge=0, le=1)
    """Saturation is multiplied by 1 ± this. Untold."""
    gain: float = Field(default=0.1, ge=0, lt=1)
    """A sound is multiplied by 1 ± this, drawn for each second, the same over all of it (paper,
    section 3).
    """


class TrainConfig(Section):
    """How the network is trained."""

    objective: Literal["avc", "contrastive", "labels"] = "avc"
    """Yes or no of each pair (the paper), or which sound of the batch belongs to a frame and the
    reverse (symmetric InfoNCE), or, for comparison, the clip's label, by each tower for itself (the
    paper's supervised baselines).
    """
    classes: tuple[str, ...] = ()
    """With the objective "labels": the classes in the order of their scores. Empty: those of the
    training videos, filled in when the run begins.
    """
    vision_from: str = ""
    """A run or checkpoint whose vision tower this one begins with; empty: drawn at random."""
    audio_from: str = ""
    """The same of the audio tower."""
    freeze: Literal["none", "vision", "audio", "towers"] = "none"
    """Which towers stay as they begin, batch-norm's statistics too."""
    steps: PositiveInt = 234_375
    """Batches. The paper: 60 million pairs (section 4). Here 234,375 batches of 256 videos are 60
    million videos, so as many passes of each tower, and 120 million pairs, as each video gives a
    positive and a negative.
    """
    batch_size: int = Field(default=256, ge=2)
    """Videos in a batch, over all processes. Each gives one positive pair and one negative, so 256
    videos are 512 pairs. Rates count both: a pairs_per_second is two times a videos_per_second.
    """
    accumulate: PositiveInt = 1
    """Parts that a batch is computed in, one after the other, to save memory; pairs and batch-norm
    stay within a part.
    """
    learning_rate: float = Field(default=1e-4, gt=0)
    """Adam's; found by grid search in the paper, "1e-4 usually good"."""
    weight_decay: float = Field(default=1e-5, ge=0)
    """L2, added to the gradient of every parameter before Adam's averages (not AdamW): convolutions
    and fully-connected layers, and also batch-norm's gains and biases, the temperature and the
    threshold. Of TensorFlow's and Keras's layers only kernels have it.
    """
    warmup_steps: int = Field(default=0, ge=0)
    """The rate climbs linearly over the first so many steps."""
    schedule: Literal["constant", "cosine", "stairs"] = "constant"
    """The rate after the warm-up: constant (the paper names no decay), a cosine to zero at the last
    step, or stairs.
    """
    stair_factor: float = Field(default=0.94, gt=0, le=1)
    """With stairs, the rate is multiplied by this ..."""
    stair_epochs: PositiveInt = 16
    """... after every so many epochs (AVE-Net's schedule, "Objects that Sound" 2018)."""
    negatives: Literal["roll", "all", "same-video"] = "roll"
    """One re-pairing of the batch's frames with its sounds; or every other pair, weighted to
    balance; or, for a share of the rows, the sound of the same video at least 2 s away, which asks
    for concurrency (future work in the paper, section 6).
    """
    gather_negatives: bool = True
    """Pairs are made over the rows of all processes rather than of each alone, so that their number
    changes no pair.
    """
    same_video_share: float = Field(default=0.5, gt=0, le=1)
    """With same-video negatives: the share of a batch's rows that have one ..."""
    same_video_steps: int = Field(default=0, ge=0)
    """... which it climbs to linearly over the first so many steps, from easy to hard."""
    batch_norm: Literal["local", "sync"] = "local"
    """Statistics over the rows of one process (the paper's, as far as is known), or over those of
    all. With local statistics a roll pairs the rows of each process among themselves.
    """
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Draws the initial weights, the order of videos, the pairs and the augmentation."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the towers; auto takes bfloat16 where the device multiplies it. A resumed run
    keeps what auto took first.
    """
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether torch.compile makes the towers' kernels; auto: on NVIDIA GPUs, for runs long enough
    to earn its minute back. On a CPU it measured slower (benchmarks/RESULTS.md). A resumed run
    keeps what auto took first.
    """
    deterministic: bool = False
    """Ask CUDA for kernels that give the same bits each time, which are slower. A CPU needs no
    asking.
    """
    held_out_fraction: float = Field(default=0.1, gt=0, lt=1)
    """The share of videos kept from training when the shards name no split (at least 2 videos)."""
    validation_fraction: float = Field(default=0.0, ge=0, lt=1)
    """The share of the other videos that is kept from training too, to choose thresholds on (0, or
    at least 2 videos).
    """
    evaluate_every: PositiveInt = 1000
    """Steps between AVC accuracies on held-out videos."""
    probe_every: int = Field(default=1000, ge=0)
    """Steps between quick linear probes on held-out labels, where there are labels; 0: none."""
    checkpoint_every: PositiveInt = 1000
    """Steps between checkpoints."""
    checkpoint_minutes: float = Field(default=15.0, gt=0)
    """The longest time between checkpoints."""
    keep_checkpoints: PositiveInt = 3
    """Older ones are removed, but for the best by held-out AVC."""
    log_every: PositiveInt = 10
    """Steps between lines of metrics.jsonl; also between looks at the device's numbers, which wait
    for it.
    """

    @model_validator(mode="after")
    def _parts_fit(self) -> "TrainConfig":
        if self.batch_size % self.accumulate or self.batch_size // self.accumulate < 2:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be computed in {self.accumulate} equal parts of at least 2 videos"
            )
        if self.objective == "contrastive" and self.negatives == "roll":
            raise ValueError(
                'the objective "contrastive" compares with every other row: set negatives to "all" or "same-video"'
            )
        if self.negatives == "same-video" and not self.gather_negatives:
            raise ValueError(
                "same-video negatives lie in any process: set gather_negatives to true"
            )
        if self.negatives == "same-video" and (self.batch_size // self.accumulate) % 2:
            raise ValueError(
                f"couples of one video need parts of an even number of rows, not {self.batch_size // self.accumulate}"
            )
        return self


class Config(Section):
    """A run: network, augmentation, training."""

    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _has_one_space(self) -> "Config":
        if self.train.objective == "labels" and self.model.fusion in ("similarity", "dense"):
            raise ValueError(
                f'the objective "labels" is asked of whole frames, and fusion "{self.model.fusion}" of places: set "concat"'
            )
        if self.train.objective == "contrastive" and self.model.fusion == "concat":
            raise ValueError(
                'the objective "contrastive" needs one space for both sides: set model.fusion to "distance"'
            )
        return self

    def changed(self, section: str, **values: Any) -> "Config":
        """The same settings but for these of one section; raises ConfigError like `of`."""
        whole = self.model_dump()
        whole[section] |= values
        return Config.of(whole, "the settings")

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str) -> "Config":
        """Checked settings; raises ConfigError, one sentence that names `source`, the key and the
        nearest right one.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: {_explain(error, cls)}") from None

    @classmethod
    def load(cls, recipe: str | Path) -> "Config":
        """A recipe by its name (`tiny`, `baselines/direct`) or a TOML file by its path."""
        path, known = Path(recipe), recipes()
        name = str(recipe).removesuffix(".toml")
        if name in known and not path.is_file():
            text = known[name]
        elif path.suffix == ".toml":
            try:
                text = path.read_text(encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"the recipe {path} cannot be read: {error.strerror}") from None
        else:
            raise ConfigError(
                f"there is no recipe {recipe!r}; the recipes are {', '.join(sorted(known))}, or give a path ending in .toml"
            )
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"the recipe {recipe} is not TOML: {error}") from None
        return cls.of(values, f"the recipe {recipe}")

    def toml(self) -> str:
        """The resolved settings as a recipe."""
        return tomlkit.dumps(self.model_dump(mode="json"))


def recipes() -> dict[str, str]:
    """The recipes that come with the package: name -> TOML text; those in a folder bear its name,
    as in `baselines/direct`.
    """
    return dict(_recipes_in(resources.files("looklisten") / "recipes"))


def _recipes_in(folder: Traversable, above: str = "") -> Iterator[tuple[str, str]]:
    for file in folder.iterdir():
        if file.is_dir():
            yield from _recipes_in(file, f"{above}{file.name}/")
        elif file.name.endswith(".toml"):
            yield above + file.name.removesuffix(".toml"), file.read_text(encoding="utf-8")


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
    hint = (
        f"did you mean {'.'.join([*parents, near[0]])}?"
        if near
        else f"known here: {', '.join(section.model_fields)}"
    )
    return f"there is no setting {where}; {hint}"
