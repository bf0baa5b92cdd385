"""The settings of a run: frozen, checked, readable. A recipe is a TOML file of one `Config`.

Every field says its unit and why its default is what it is. "Not stated" marks what the paper does
not say. Knows no network: the rules of a backbone or an objective are in `model.config_checks`.
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

from looklisten.errors import ConfigError, OptionError

Side = Literal["audio", "vision"]
"""One of the two inputs of the network."""
SIDES: tuple[Side, Side] = ("vision", "audio")
"""In the order of the network's inputs."""


class Section(BaseModel):
    """A frozen table of settings that refuses unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class ModelConfig(Section):
    """The network: everything needed to build it again."""

    backbone: str = "vgg"
    """The architecture of both towers: vgg, the paper's; resnet, its blocks with shortcuts; or one
    that a program registered.
    """
    vision_backbone: str = ""
    """That of the vision tower, such as efficientnet-lite0, or a network of others (openl3:NAME,
    hf:NAME); empty: `backbone`.
    """
    audio_backbone: str = ""
    """That of the audio tower, such as yamnet, or a network of others; empty: `backbone`."""
    widths: tuple[PositiveInt, ...] = (64, 128, 256, 512)
    """Filters of each block of both towers (paper, figure 2)."""
    first_stride: PositiveInt = 1
    """Stride of conv1_1: 1 in the paper, 2 in its follow-up."""
    front_end: str = "paper"
    """From waveform to log-spectrogram: the paper's 257 x 199; compact, 64 mel bands up to 8 kHz;
    one of OpenL3's (linear, mel128, mel256), in decibels below the loudest point of the second,
    with a batch-norm before the tower; yamnet, 64 mel bands from 125 to 7,500 Hz, with which that
    backbone was trained; kaldi128, that of hf: models of sound; or one that a program registered.
    """
    resize_pixels: PositiveInt = 256
    """The shorter side of a frame before it is cropped."""
    crop_pixels: PositiveInt = 224
    """The side of the square that the vision tower is trained on."""
    frame_fit: Literal["crop", "squeeze"] = "crop"
    """How a frame becomes that square where nothing is random: its center, or all of it, squeezed.
    """
    fusion: Literal["concat", "distance", "similarity", "dense", "linear"] = "concat"
    """How the sides are compared: concat, fully-connected layers over both (the paper); distance of
    unit vectors (its follow-up, AVE-Net); similarity of the sound with the best position of the
    frame (AVOL-Net); dense, each time of the sound with its best position (after DenseAV); or
    linear, linear layers on towers that learned before, for positions and the whole frame.
    """
    fusion_width: PositiveInt = 128
    """Units of the layers of the fusion (paper, figure 2)."""
    fusion_dropout: float = Field(default=0.0, ge=0, lt=1)
    """With fusion "linear": the share of the features that is left out at random in training."""
    class_groups: int = Field(default=0, ge=0)
    """With fusion "linear" and published towers: so many groups of classes that are often seen and
    heard together. The package has 146 of them, and 0 is without.
    """
    class_group_share: float = Field(default=0.5, ge=0, lt=1)
    """The share of the similarity that the groups give; the rest is learned."""
    sharpness: float = Field(default=10.0, gt=0)
    """Of the soft maximum over positions, with fusion "similarity" and "dense". Near 0 it is the
    mean; large values approach the maximum. A network needs the value that it was trained with.
    """
    pools_keeping_time: int = Field(default=0, ge=0)
    """The last so many pools of the audio tower halve frequency only, so that the positions of its
    map lie closer in time.
    """
    frames_per_pair: PositiveInt = 1
    """Neighboring stored frames that the vision tower gets together, as channels; 1 is the paper,
    more show motion.
    """
    window: Literal["hann", "hamming", "rectangular"] = "hann"
    """Of the Fourier transform. Not stated; re-implementations use Hann."""
    initialization: Literal["he-normal", "he-uniform", "xavier-uniform"] = "he-normal"
    """Of convolutions and fully-connected layers; biases begin at zero. Not stated;
    re-implementations use He normal.
    """

    def backbone_of(self, side: Side) -> str:
        """The name of the backbone of one side."""
        of_side = self.vision_backbone if side == "vision" else self.audio_backbone
        return of_side or self.backbone

    @model_validator(mode="after")
    def _check_crop(self) -> "ModelConfig":
        if self.crop_pixels > self.resize_pixels:
            raise ValueError(
                f"crop_pixels {self.crop_pixels} is larger than resize_pixels {self.resize_pixels}"
            )
        return self


class AugmentConfig(Section):
    """Random changes of frames and sounds in training.

    The ranges are not stated; these are those of the re-implementation l3embedding.
    """

    flip: bool = True
    """Mirror half of the frames."""
    brightness: float = Field(default=32 / 255, ge=0, lt=1)
    """Added to all channels, uniform in ± this, frames in 0..1. Not stated."""
    saturation: float = Field(default=0.5, ge=0, le=1)
    """Saturation is multiplied by 1 ± this. Not stated."""
    gain: float = Field(default=0.1, ge=0, lt=1)
    """A sound is multiplied by 1 ± this, one factor for each second (paper, section 3)."""


class TrainConfig(Section):
    """How the network is trained."""

    objective: str = "avc"
    """What training minimizes: avc, yes or no for each pair (the paper); contrastive, which sound
    of the batch belongs to a frame and the reverse (symmetric InfoNCE); labels, the clip's label
    from each tower alone (the paper's supervised baselines, for comparison).
    """
    classes: tuple[str, ...] = ()
    """With the objective "labels": the classes in the order of their scores. Empty: those of the
    training videos, filled in when the run begins.
    """
    vision_from: str = ""
    """What the vision tower begins with: a run or checkpoint, a file with the published weights of
    its backbone, or `scratch`, random weights. Empty: the published weights of a backbone that has
    some, random weights of others.
    """
    audio_from: str = ""
    """The same of the audio tower."""
    freeze: Literal["none", "vision", "audio", "towers"] = "none"
    """Which towers stay as they begin, with the statistics of their batch-norm. With both, the
    features of some frames and seconds of sound are computed once and kept beside the shards.
    """
    cached_frames_per_second: float = Field(default=1.0, ge=0, le=100)
    """With frozen towers: frames of a clip whose features are kept, cropped at the center and
    without random changes, with two windows of sound for each. 0: the towers run at every step, on
    frames with random changes.
    """
    steps: PositiveInt = 234_375
    """Batches. The paper: 60 million pairs (section 4). Here 234,375 batches of 256 videos are 60
    million videos, so as many runs of each tower. They are 120 million pairs, since each video
    gives a positive and a negative.
    """
    batch_size: int = Field(default=256, ge=2)
    """Videos in a batch, over all processes. Each gives one positive pair and one negative, so 256
    videos are 512 pairs. Rates count both: pairs_per_second is two times videos_per_second.
    """
    accumulate: PositiveInt = 1
    """Parts that a batch is computed in, one after the other, to save memory. Pairs and batch-norm
    stay within a part.
    """
    optimizer: Literal["adam", "muon"] = "adam"
    """adam (the paper), or muon, which learns more in a step: the filters of convolutions change in
    all directions alike (Jordan et al. 2024), everything else by Adam.
    """
    filter_step: float = Field(default=0.02, gt=0, lt=1)
    """With muon: the share of their norm by which a step changes the filters of a convolution. It
    follows the same schedule as the learning rate. With a tower_learning_rate, that of the towers
    is smaller or larger by the same factor.
    """
    learning_rate: float = Field(default=1e-4, gt=0)
    """Adam's; the paper chose it by grid search, "1e-4 usually good"."""
    tower_learning_rate: float = Field(default=0.0, ge=0)
    """That of both towers, where it differs, as for towers that learned before; 0: the same."""
    weight_decay: float = Field(default=1e-5, ge=0)
    """L2, added to the gradient of every parameter before Adam's averages (not AdamW); not to that
    of filters which Muon changes, since their norm stays. It covers
    convolutions, fully-connected layers, batch-norm's gains and biases, temperature and threshold.
    In TensorFlow's and Keras's layers only kernels have it.
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
    """One re-pairing of the batch's frames with its sounds (roll); every other pair, weighted to
    balance (all); or, for a share of the rows, the sound of the same video at least 2 s away, so
    that the network must learn what happens at one time (future work in the paper, section 6).
    """
    gather_negatives: bool = True
    """Form pairs over the rows of all processes rather than of each alone, so that the number of
    processes changes no pair.
    """
    same_video_share: float = Field(default=0.5, gt=0, le=1)
    """With same-video negatives: the share of a batch's rows that have one ..."""
    same_video_steps: int = Field(default=0, ge=0)
    """... which it climbs to linearly over the first so many steps, from easy to hard."""
    empty_sound_share: float = Field(default=0.0, ge=0, le=0.5)
    """The share of the rows, without same-video rows, whose sound is replaced by one that belongs
    to no frame: silence, white, pink or brown noise, hum. So the network learns to answer no when
    nothing is heard (after SLAVC, Mo and Morgado 2022, and SSL-SaN).
    """
    batch_norm: Literal["local", "sync"] = "local"
    """Statistics over the rows of one process (the paper's, as far as is known), or over those of
    all. With local statistics a roll pairs only rows of the same process.
    """
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the initial weights, the order of videos, the pairs and the augmentation."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the towers; auto takes bfloat16 where the device multiplies it. A resumed run
    keeps what auto took first.
    """
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether torch.compile makes the towers' kernels; auto: on NVIDIA GPUs, for runs long enough
    to win back the minute that it takes. On a CPU it measured slower (benchmarks/RESULTS.md). A
    resumed run keeps what auto took first.
    """
    deterministic: bool = False
    """Ask CUDA for kernels that give the same bits each time, which are slower. On a CPU they
    always do.
    """
    held_out_fraction: float = Field(default=0.1, gt=0, lt=1)
    """The share of videos held out from training when the shards name no split (at least 2)."""
    validation_fraction: float = Field(default=0.0, ge=0, lt=1)
    """The share of the other videos that is also not trained on, to choose thresholds with (0, or
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
    """Older ones are removed, except the best by held-out AVC."""
    log_every: PositiveInt = 10
    """Steps between lines of metrics.jsonl. Reading the numbers waits for the device."""

    @model_validator(mode="after")
    def _check_parts(self) -> "TrainConfig":
        # A part of one video would have no negative.
        rows_per_part, remainder = divmod(self.batch_size, self.accumulate)
        if remainder or rows_per_part < 2:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be computed in {self.accumulate} equal parts "
                f"of at least 2 videos"
            )
        tower_share = self.filter_step * self.tower_learning_rate / self.learning_rate
        if self.optimizer == "muon" and tower_share >= 1:
            raise ValueError(
                f"with tower_learning_rate {self.tower_learning_rate:g} and learning_rate "
                f"{self.learning_rate:g}, the filter_step of the towers is {tower_share:g} and not "
                f"below 1"
            )
        if self.negatives != "same-video":
            return self
        if not self.gather_negatives:
            raise ValueError(
                "same-video negatives can be in any process: set gather_negatives to true"
            )
        if rows_per_part % 2:
            raise ValueError(
                f"same-video negatives need parts of an even number of rows, not {rows_per_part}"
            )
        return self


class Config(Section):
    """A run: network, augmentation, training."""

    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()

    def changed(self, section: str, **values: Any) -> "Config":
        """The same settings with other values in one section; raises OptionError, like `of`."""
        # Through `of`, because Pydantic's own copies are not checked.
        settings = self.model_dump()
        settings[section] |= values
        try:
            return Config.of(settings, "the settings")
        except ConfigError as error:
            # The values come from a caller or from options, not from a file.
            raise OptionError(str(error)) from None

    def differences(self, later: "Config") -> dict[str, str]:
        """In words, what differs in `later`, by the name of the setting, such as train.steps."""
        sentences = {}
        for section in type(self).model_fields:
            settings, later_settings = getattr(self, section), getattr(later, section)
            for key in type(settings).model_fields:
                value, later_value = getattr(settings, key), getattr(later_settings, key)
                if value != later_value:
                    name = f"{section}.{key}"
                    sentences[name] = f"{name} was {value} and is {later_value}"
        return sentences

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str) -> "Config":
        """The checked settings of a table.

        Raises ConfigError, one sentence with `source`, the wrong key and the nearest right one.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: {_explain(error, cls)}") from None

    @classmethod
    def load(cls, recipe: str | Path) -> "Config":
        """A recipe by its name (`tiny`, `baselines/direct`) or a TOML file by its path."""
        text = _read_recipe(recipe)
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"the recipe {recipe} is not TOML: {error}") from None
        return cls.of(values, f"the recipe {recipe}")

    def toml(self) -> str:
        """All settings, defaults too, as a recipe."""
        # mode="json" makes lists of tuples, which TOML does not have.
        return tomlkit.dumps(self.model_dump(mode="json"))


def recipes() -> dict[str, str]:
    """The recipes that come with the package: name -> TOML text.

    A recipe in a folder has the folder in its name, as in `baselines/direct`.
    """
    # Not from paths: the package may be in a zip file.
    return dict(_recipes_in(resources.files("looklisten") / "recipes"))


def _recipes_in(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, str]]:
    for file in folder.iterdir():
        if file.is_dir():
            yield from _recipes_in(file, f"{prefix}{file.name}/")
        elif file.name.endswith(".toml"):
            yield prefix + file.name.removesuffix(".toml"), file.read_text(encoding="utf-8")


def _read_recipe(recipe: str | Path) -> str:
    """The text of a recipe of the package, or of a file."""
    path = Path(recipe)
    own_recipes = recipes()
    name = str(recipe).removesuffix(".toml")
    # A file of the user wins over a recipe of the same name.
    if name in own_recipes and not path.is_file():
        return own_recipes[name]
    if path.suffix != ".toml":
        raise OptionError(
            f"there is no recipe {recipe!r}; the recipes are {', '.join(sorted(own_recipes))}, "
            f"or give a path ending in .toml"
        )
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the recipe {path} cannot be read: {error.strerror}") from None


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a table of settings, in one sentence."""
    first = error.errors()[0]
    # Pydantic names no key where a rule of the whole table fails.
    *parents, key = map(str, first["loc"]) if first["loc"] else ("recipe",)
    setting = ".".join([*parents, key])
    if first["type"] != "extra_forbidden":
        return f"{setting}: {first['msg'].removeprefix('Value error, ')}"
    section = model
    for parent in parents:
        section = section.model_fields[parent].annotation  # type: ignore[assignment]
    # 0.5 finds a wrong letter or a missing word, and few wrong hints.
    similar = difflib.get_close_matches(key, section.model_fields, 1, 0.5)
    if similar:
        hint = f"did you mean {'.'.join([*parents, similar[0]])}?"
    else:
        hint = f"the settings here are {', '.join(section.model_fields)}"
    return f"there is no setting {setting}; {hint}"
