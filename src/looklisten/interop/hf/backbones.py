"""Models of the Hub as backbones: `hf:NAME` for a vision tower or an audio tower.

Pictures: every model that transformers' AutoBackbone has, and others whose last layer is a map.
Sound: the Audio Spectrogram Transformer. Knows tensors and models, no Hub.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from looklisten.config import ModelConfig
from looklisten.errors import ConfigError, PublishedFileError
from looklisten.interop.hf.pictures import PictureInput, picture_input
from looklisten.interop.hf.source import HfSource, hf_source, transformers_for
from looklisten.media.front_ends import FRONT_ENDS
from looklisten.model.backbones.backbone import FixedBackbone, Layer, TowerOutput, pool
from looklisten.model.published_weights import PublishedWeights
from looklisten.system.published_files import PublishedFile

AST = "audio-spectrogram-transformer"
AST_FRONT_END = "kaldi128"
AST_TOKENS = 2
"""Tokens before those of positions: of the class and of distillation."""
POOLED = "pooled"
"""The named map of one position with the model's own vector of the whole input."""
# AutoBackbone puts a layer-norm that nobody trained behind ConvNeXt's maps: weights 1, biases 0.
WITHOUT_PUBLISHED_WEIGHTS = r"^hidden_states_norms\."

AutoClass = Literal["AutoBackbone", "AutoModel"]


class HfWeights(PublishedWeights):
    """The published weights of a model of the Hub, as the state of a tower."""

    def load(self, origin: str | Path | None = None) -> dict[str, Tensor]:
        """Raises PublishedFileError for an `origin`: the name of the backbone says it all."""
        if origin is not None:
            raise PublishedFileError(
                f"the weights of {self.file.title} come with its name; to take {origin}, "
                "name its folder as the backbone: hf:FOLDER"
            )
        return self.read(Path())


@dataclass(frozen=True)
class MapFacts:
    """What one run without values tells of a model."""

    features: int
    rows: int
    columns: int
    peak_values: int
    """Values of the largest result of a layer, for one input."""


class HfTower(FixedBackbone):
    """A model of the Hub as a tower. A subclass for each model says which one it is."""

    pooling = "mean"
    source: ClassVar[HfSource]
    auto_class: ClassVar[AutoClass]

    def __init__(self) -> None:
        super().__init__()
        # With random weights: the published ones come by `HfWeights`, others by a checkpoint.
        with transformers_for(self.source.name) as transformers:
            self.model = getattr(transformers, self.auto_class).from_config(self.source.config)


class HfPictureTower(HfTower):
    """Frames to the last map of the model; the vector is its mean over all positions."""

    sides = ("vision",)
    picture: ClassVar[PictureInput]

    def __init__(self) -> None:
        super().__init__()
        self.input = self.picture  # so that the key of the network knows it
        facts = _picture_facts(type(self), self.picture.crop_pixels)
        self.features = facts.features
        self.stride = self.picture.crop_pixels // facts.columns
        self.peak_values_per_pixel = facts.peak_values / self.picture.crop_pixels**2
        self.layers = {
            "mean": Layer(self.features, pooling="mean"),
            "maximum": Layer(self.features),
        }

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        picture = cls.picture
        own = {
            "resize_pixels": picture.resize_pixels,
            "crop_pixels": picture.crop_pixels,
            "frame_fit": picture.frame_fit,
            "frames_per_pair": 1,
        }
        differing = [name for name, value in own.items() if getattr(config, name) != value]
        if differing:
            settings = ", ".join(f"model.{name} is {getattr(config, name)}" for name in differing)
            changes = ", ".join(f"model.{name} to {json.dumps(own[name])}" for name in differing)
            raise ConfigError(f"{cls.source.name} has its own input, and {settings}; set {changes}")

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> TowerOutput:
        # Frames come in -1..1, as other towers take them.
        output = self.model(self.picture.normalized(x / 2 + 0.5))
        maps = output.feature_maps if self.auto_class == "AutoBackbone" else [output[0]]
        last_map = maps[-1]
        return TowerOutput(last_map, pool(last_map, self.pooling), pooling=self.pooling)

    def map_columns(self, columns: int) -> int:
        return _picture_facts(type(self), columns).columns


class HfSoundTower(HfTower):
    """Log-mel spectrograms of Kaldi to the last tokens of an Audio Spectrogram Transformer.

    As in the model's own feature extractor, shorter sound is filled up with zeros. The map has
    only the tokens that begin within the sound.
    """

    sides = ("audio",)
    front_end = AST_FRONT_END
    sound: ClassVar["SoundInput"]

    def __init__(self) -> None:
        super().__init__()
        self.input = self.sound  # so that the key of the network knows it
        config = self.source.config
        self.features = config.hidden_size
        self.stride = config.time_stride
        # The widest result is the middle of the two layers after each attention.
        tokens = config.num_mel_bins * config.max_length
        tokens //= config.frequency_stride * config.time_stride
        pixels_of_second = FRONT_ENDS[AST_FRONT_END].bands * 98
        self.peak_values_per_pixel = tokens * config.intermediate_size / pixels_of_second
        self.layers = {
            "mean": Layer(self.features, pooling="mean"),
            "maximum": Layer(self.features),
            POOLED: Layer(self.features, (1, 1), POOLED, "mean"),
        }

    def forward(self, x: Float[Tensor, "batch 1 bands columns"]) -> TowerOutput:
        config = self.source.config
        columns = x.shape[3]
        spectrograms = x[:, 0, :, : config.max_length]
        filled = functional.pad(spectrograms, (0, config.max_length - spectrograms.shape[2]))
        output = self.model(self.sound.normalized(filled.transpose(1, 2)))
        tokens = output.last_hidden_state[:, AST_TOKENS:].transpose(1, 2)
        rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        last_map = tokens.unflatten(2, (rows, -1))[..., : self.map_columns(columns)]
        named_maps = {POOLED: output.pooler_output[:, :, None, None]}
        return TowerOutput(last_map, pool(last_map, self.pooling), named_maps, self.pooling)

    def map_columns(self, columns: int) -> int:
        config = self.source.config
        columns = min(columns, config.max_length)
        return int(max((columns - config.patch_size) // config.time_stride + 1, 1))


@dataclass(frozen=True)
class SoundInput:
    """What the feature extractor of an Audio Spectrogram Transformer does after the logarithm."""

    mean: float
    deviation: float

    def normalized(
        self, spectrograms: Float[Tensor, "batch columns bands"]
    ) -> Float[Tensor, "batch columns bands"]:
        """Log-mel spectrograms as the model was trained on them."""
        return (spectrograms - self.mean) / (2 * self.deviation)


@cache
def hf_backbone(name: str) -> type[HfTower]:
    """The backbone `hf:NAME`; its weights are not read.

    Raises ConfigError without the extra, and for a model that cannot be a tower;
    PublishedFileError or CheckpointError for one that cannot be read.
    """
    # Cached, because a config asks for the class of its backbone again and again.
    source = hf_source(name)
    if source.model_type == AST:
        return _tower_class(source, HfSoundTower, "AutoModel", sound=_sound_input(source))
    with transformers_for(name) as transformers:
        mapping = transformers.models.auto.modeling_auto.MODEL_FOR_BACKBONE_MAPPING_NAMES
    auto_class: AutoClass = "AutoBackbone" if source.model_type in mapping else "AutoModel"
    # Models of text have no channels, and those of spectrograms have one.
    is_picture = getattr(source.config, "num_channels", None) == 3
    tower = None
    if is_picture:
        picture = picture_input(source)
        tower = _tower_class(source, HfPictureTower, auto_class, picture=picture)
    if tower is None or not _gives_map(tower):
        raise ConfigError(
            f"{name} is a {source.model_type}, which cannot be a tower; backbones are models of "
            "pictures with a map, such as convnextv2, resnet, dinov2 and mobilenet_v2, and of "
            f"sound the {AST}"
        )
    return tower


TowerT = TypeVar("TowerT", bound=HfTower)


def _tower_class(
    source: HfSource, base: type[TowerT], auto_class: AutoClass, **attributes: Any
) -> type[TowerT]:
    def read(_: Path) -> dict[str, Tensor]:
        model = source.load(auto_class, WITHOUT_PUBLISHED_WEIGHTS)
        return {f"model.{name}": value for name, value in model.state_dict().items()}

    file = PublishedFile(
        name="model.safetensors",
        title=source.name,
        address=f"https://huggingface.co/{source.name.removeprefix('hf:')}/",
        digest="",
        size_mb=0,
        license=source.license,
        cache_name="",
        mirror_variable="HF_ENDPOINT",
    )
    # Without a hash, so a checkpoint holds the weights of the tower: a name on the Hub may get
    # other weights.
    published = HfWeights(file, read, "", "the publisher of the model", "what its card names")
    attributes |= {"source": source, "auto_class": auto_class, "published": published}
    tower: type[TowerT] = type(base.__name__, (base,), {"__doc__": base.__doc__} | attributes)
    return tower


def _sound_input(source: HfSource) -> SoundInput:
    """The input of an Audio Spectrogram Transformer, from its feature extractor."""
    with transformers_for(source.name) as transformers:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(
            source.folder, trust_remote_code=False
        )
        settings = extractor.to_dict()
    front_end = FRONT_ENDS[AST_FRONT_END]
    own = (settings.get("sampling_rate"), settings.get("num_mel_bins"))
    if own != (front_end.sample_rate_hz, front_end.bands):
        raise ConfigError(
            f"{source.name} hears {own[0]} Hz in {own[1]} mel bands, and the front end "
            f"{AST_FRONT_END} has {front_end.sample_rate_hz} Hz and {front_end.bands}; "
            "choose another model"
        )
    if not settings.get("do_normalize", True):
        return SoundInput(0.0, 0.5)
    return SoundInput(float(settings["mean"]), float(settings["std"]))


class PeakValues:
    """Counts the values of the largest tensor that a layer of a model gives."""

    def __init__(self) -> None:
        self.values = 0

    def __call__(self, layer: Any, inputs: Any, output: Any) -> None:  # noqa: ARG002
        if isinstance(output, Tensor):
            self.values = max(self.values, output.numel())


def _gives_map(tower: type[HfPictureTower]) -> bool:
    try:
        return _picture_facts(tower, tower.picture.crop_pixels).features > 0
    except PublishedFileError:
        return False


@cache
def _picture_facts(tower: type[HfPictureTower], pixels: int) -> MapFacts:
    """What a model makes of a square. Raises PublishedFileError where it gives no map."""
    source = tower.source
    # The device "meta" has shapes and no memory, so nothing is computed.
    with transformers_for(source.name) as transformers, torch.device("meta"):
        model = getattr(transformers, tower.auto_class).from_config(source.config).eval()
        peak = PeakValues()
        for module in model.modules():
            module.register_forward_hook(peak)
        output = model(torch.zeros(1, 3, pixels, pixels))
        maps = output.feature_maps if tower.auto_class == "AutoBackbone" else [output[0]]
        _, features, rows, columns = maps[-1].shape
    return MapFacts(features, rows, columns, peak.values)
