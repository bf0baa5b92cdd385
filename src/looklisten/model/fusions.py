"""Fusions: how the features of the two towers are compared, and the logits of an answer.

A fusion has three steps. `features` takes what it compares from the towers' outputs. `project`
transforms each side by itself, once per row. `logits` answers for any two projections.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import ClassVar, Concatenate, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import ModelConfig, Side
from looklisten.model.backbones import Backbone, TowerOutput

CORRESPOND = 1
"""The index of the logit of "they correspond"."""
MIN_NORM = 1e-6
"""A shorter vector is divided by this instead of by its length.

So the gradient of a vector of zeros is bounded.
"""
MIN_SQUARED_DISTANCE = 1e-6
"""Smaller squared distances are raised to this, because the gradient of a square root is infinite
at zero.
"""

USUAL_POSITION_MOMENTUM = 0.1
"""How much of each training batch goes into the usual position, as in batch-norm."""

SelfT = TypeVar("SelfT")
Arguments = ParamSpec("Arguments")
ResultT = TypeVar("ResultT")


def in_float32(
    method: Callable[Concatenate[SelfT, Arguments], ResultT],
) -> Callable[Concatenate[SelfT, Arguments], ResultT]:
    """Make `method` compute in float32, its tensor arguments too, also under autocast.

    These computations are cheap. bfloat16 has only 8 significant bits, so different pairs could get
    equal logits.
    """

    @wraps(method)
    def float32_method(self: SelfT, *args: Arguments.args, **kwargs: Arguments.kwargs) -> ResultT:
        device_type = _autocast_device_type((*args, *kwargs.values()))
        if device_type is None:
            return method(self, *args, **kwargs)
        with torch.autocast(device_type, enabled=False):
            float_args = [_as_float32(value) for value in args]
            float_kwargs = {name: _as_float32(value) for name, value in kwargs.items()}
            return method(self, *float_args, **float_kwargs)  # type: ignore[arg-type]

    return float32_method  # type: ignore[return-value]


def _autocast_device_type(values: tuple[object, ...]) -> str | None:
    """The device type of the tensors, if autocast is on for it."""
    for value in values:
        # PyTorch has no autocast for the device "meta", on which nothing is computed.
        if isinstance(value, Tensor) and value.device.type != "meta":
            device_type = value.device.type
            return device_type if torch.is_autocast_enabled(device_type) else None
    return None


def _as_float32(value: object) -> object:
    return value.float() if isinstance(value, Tensor) else value


class Fusion(nn.Module):
    """The part of the network that compares the features of the two towers."""

    shares_space: ClassVar[bool] = False
    """Whether both sides become vectors of one space, so that a similarity has a meaning."""
    aligns_vectors: ClassVar[bool] = False
    """Whether a whole frame and a whole second of sound each have one vector in that space."""
    compares_positions: ClassVar[bool] = False
    """Whether the sound is compared with every position of the frame."""

    def features(
        self, vision: TowerOutput, audio: TowerOutput
    ) -> tuple[
        Float[Tensor, "n *positions vision_features"], Float[Tensor, "m *times audio_features"]
    ]:
        """The features that this fusion compares; they depend on no weight of the fusion."""
        return self.vision_features(vision), self.audio_features(audio)

    def vision_features(self, vision: TowerOutput) -> Float[Tensor, "n *positions features"]:
        """What is compared of a frame: by default one vector."""
        return vision.vector

    def audio_features(self, audio: TowerOutput) -> Float[Tensor, "m *times features"]:
        """What is compared of a second of sound: by default one vector."""
        return audio.vector

    def project(
        self, vision: Float[Tensor, "*n vision_features"], audio: Float[Tensor, "*m audio_features"]
    ) -> tuple[Float[Tensor, "*n width"], Float[Tensor, "*m width"]]:
        """What `logits` needs of the features, each side by itself."""
        raise NotImplementedError

    def logits(
        self, vision: Float[Tensor, "*#pairs width"], audio: Float[Tensor, "*#pairs width"]
    ) -> Float[Tensor, "*all 2"]:
        """Logits (does not, does correspond) of two projections, row by row."""
        raise NotImplementedError

    def all_pairs_logits(
        self,
        vision: Float[Tensor, "n *positions width"],
        audio: Float[Tensor, "m *times width"],
    ) -> Float[Tensor, "n m 2"]:
        """Logits of every row of `vision` with every row of `audio`."""
        return self.logits(vision[:, None], audio[None])

    def forward(
        self,
        vision: Float[Tensor, "n *positions vision_features"],
        audio: Float[Tensor, "n *times audio_features"],
    ) -> Float[Tensor, "n 2"]:
        """Logits (does not, does correspond) of the features of pairs, row by row."""
        return self.logits(*self.project(vision, audio))

    def initialize_answer(self) -> None:
        """Set the weights that have fixed initial values; by default there are none."""

    def fit_inputs(
        self,
        vision: Float[Tensor, "n *positions vision_features"],
        audio: Float[Tensor, "m *times audio_features"],
    ) -> None:
        """Take from features of frozen towers what it needs to know of them; by default nothing."""

    # What follows has a meaning only if `shares_space` is true.

    @property
    def aligned_width(self) -> int:
        """The length of the vectors that `aligned` gives."""
        raise NotImplementedError

    def aligned(
        self, features: Float[Tensor, "*n features"], side: Side
    ) -> Float[Tensor, "*n width"]:
        """Unit vectors of the shared space of one side, in float32."""
        raise NotImplementedError

    def aligned_frame(self, vision: TowerOutput) -> Float[Tensor, "n width"]:
        """The unit vectors of whole frames, if `aligns_vectors` is true."""
        return self.aligned(vision.vector, "vision")

    def similarities(
        self,
        vision: Float[Tensor, "n *positions width"],
        audio: Float[Tensor, "m *times width"],
    ) -> Float[Tensor, "n m"]:
        """The similarity of every row of `vision` with every row of `audio`."""
        raise NotImplementedError

    def part_similarities(
        self,
        vision: Float[Tensor, "n *positions width"],
        audio: Float[Tensor, "m *times width"],
    ) -> Sequence[Float[Tensor, "n m"]]:
        """The similarities that an objective trains one by one."""
        return (self.similarities(vision, audio),)

    def decided_similarities(
        self,
        parts: Sequence[Float[Tensor, "n m"]],
        vision: Float[Tensor, "n *positions width"],  # noqa: ARG002 (for fusions with fixed parts)
        audio: Float[Tensor, "m *times width"],  # noqa: ARG002
    ) -> Float[Tensor, "n m"]:
        """What `similarities` gives, without a gradient, where `parts` are known already."""
        return torch.stack(list(parts)).mean(0).detach()

    def similarity_logits(self, similarity: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs 2"]:
        """The logits of pairs, from their similarities."""
        raise NotImplementedError

    def with_whole_frame(
        self, similarities: Float[Tensor, "*sounds frame_vectors"]
    ) -> Float[Tensor, "*sounds"]:
        """The similarity of each sound with a frame, from those with all vectors of the frame."""
        raise NotImplementedError


class ConcatFusion(Fusion):
    """Both vectors side by side, fc1 and ReLU, fc2 to two logits (paper, figure 2)."""

    def __init__(self, features: Mapping[Side, int], width: int) -> None:
        super().__init__()
        self.side_features = [features["vision"], features["audio"]]
        self.fc1 = nn.Linear(sum(self.side_features), width)
        self.fc2 = nn.Linear(width, 2)

    def project(
        self, vision: Float[Tensor, "*n vision_features"], audio: Float[Tensor, "*m audio_features"]
    ) -> tuple[Float[Tensor, "*n width"], Float[Tensor, "*m width"]]:
        """What each side adds to fc1."""
        # A layer over (vision, audio) is a sum of one product for each side. So each product is
        # computed once per row, not once per pair.
        vision_weight, audio_weight = torch.split(self.fc1.weight, self.side_features, dim=1)
        vision_part = functional.linear(vision, vision_weight, self.fc1.bias)
        audio_part = functional.linear(audio, audio_weight)
        return vision_part, audio_part

    @in_float32
    def logits(
        self, vision: Float[Tensor, "*#pairs width"], audio: Float[Tensor, "*#pairs width"]
    ) -> Float[Tensor, "*all 2"]:
        return self.fc2(functional.relu(vision + audio))  # type: ignore[no-any-return]


class AlignedFusion(Fusion):
    """Base of the fusions that turn each side into unit vectors and compare only their similarity.

    The two sides meet in nothing but a similarity, so they learn one space.
    """

    shares_space = True
    initial_slope: ClassVar[float]
    initial_threshold: ClassVar[float]

    def __init__(self, features: Mapping[Side, int], width: int) -> None:
        super().__init__()
        self.width = width
        self.vision = nn.Sequential(
            nn.Linear(features["vision"], width), nn.ReLU(), nn.Linear(width, width)
        )
        self.audio = nn.Sequential(
            nn.Linear(features["audio"], width), nn.ReLU(), nn.Linear(width, width)
        )
        self.fc3 = nn.Linear(1, 2)

    @property
    def aligned_width(self) -> int:
        return self.width

    def initialize_answer(self) -> None:
        """Begin with "similar means yes"; both numbers are learned from there.

        From random values the network may learn vectors that are far apart where they correspond
        ("Objects that Sound", section 3.1).
        """
        slope = torch.tensor([-self.initial_slope, self.initial_slope])
        with torch.no_grad():
            self.fc3.weight.copy_(slope[:, None])
            self.fc3.bias.copy_(-slope * self.initial_threshold)

    def project(
        self, vision: Float[Tensor, "*n vision_features"], audio: Float[Tensor, "*m audio_features"]
    ) -> tuple[Float[Tensor, "*n width"], Float[Tensor, "*m width"]]:
        """Unit vectors of the shared space, in float32."""
        return self.aligned(vision, "vision"), self.aligned(audio, "audio")

    def aligned(
        self, features: Float[Tensor, "*n features"], side: Side
    ) -> Float[Tensor, "*n width"]:
        """Unit vectors of the shared space of one side, in float32."""
        layers = self.vision if side == "vision" else self.audio
        return functional.normalize(layers(features).float(), dim=-1, eps=MIN_NORM)


class DistanceFusion(AlignedFusion):
    """The distance of two unit vectors (AVE-Net, "Objects that Sound" 2018)."""

    aligns_vectors = True
    # The threshold is a distance of about that of unrelated vectors behind a ReLU.
    initial_slope, initial_threshold = -2.5, 1.2

    @in_float32
    def similarities(
        self, vision: Float[Tensor, "n width"], audio: Float[Tensor, "m width"]
    ) -> Float[Tensor, "n m"]:
        return vision @ audio.T

    @in_float32
    def similarity_logits(self, similarity: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs 2"]:
        # The squared distance of two unit vectors is 2 - 2 * similarity.
        distance = (2 - 2 * similarity[..., None]).clamp_min(MIN_SQUARED_DISTANCE).sqrt()
        return self.fc3(distance)  # type: ignore[no-any-return]

    @in_float32
    def logits(
        self, vision: Float[Tensor, "*#pairs width"], audio: Float[Tensor, "*#pairs width"]
    ) -> Float[Tensor, "*all 2"]:
        return self.similarity_logits((vision * audio).sum(-1))

    def with_whole_frame(
        self, similarities: Float[Tensor, "*sounds frame_vectors"]
    ) -> Float[Tensor, "*sounds"]:
        # A whole frame is one vector here.
        return similarities[..., 0]


class PositionFusion(AlignedFusion):
    """Base of the fusions that compare the sound with every position of the frame.

    Every position of the vision tower's map has a unit vector. A soft maximum over the positions
    decides (multiple instances, as in AVOL-Net, "Objects that Sound" 2018). There the vectors have
    no unit length; here they have, so that a similarity means the same for every sound.

    The soft maximum is log(sum over positions of exp(sharpness x similarity) / positions) /
    sharpness. `positions` is always the number of positions of a training frame. A wide frame has
    more positions. Those with low similarity then hardly change the result.
    """

    # Through a hard maximum only one position learns from a pair. With it nothing was learned in
    # the first 200 to 500 steps (LOG.md, 2026-11-24).

    compares_positions = True
    initial_slope, initial_threshold = 5.0, 0.5

    def __init__(
        self, features: Mapping[Side, int], width: int, sharpness: float, positions: int
    ) -> None:
        super().__init__(features, width)
        self.sharpness = sharpness
        self.positions = positions

    def vision_features(self, vision: TowerOutput) -> Float[Tensor, "n positions features"]:
        return vision.map.flatten(2).transpose(1, 2)

    def audio_features(self, audio: TowerOutput) -> Float[Tensor, "m times features"]:
        """The vectors of the sound that are compared with every position."""
        raise NotImplementedError

    @in_float32
    def similarities(
        self, vision: Float[Tensor, "n positions width"], audio: Float[Tensor, "m times width"]
    ) -> Float[Tensor, "n m"]:
        """The soft maximum over the positions for each time of the sound, averaged over times."""
        # Multiply the vectors by the sharpness, not the similarities: that tensor is much larger.
        scaled = torch.einsum("npw,mtw->npmt", self.sharpness * vision, audio)
        return self._soft_maximum(scaled, 1).mean(2)

    @in_float32
    def similarity_logits(self, similarity: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs 2"]:
        return self.fc3(similarity[..., None])  # type: ignore[no-any-return]

    @in_float32
    def logits(
        self, vision: Float[Tensor, "*n positions width"], audio: Float[Tensor, "*n times width"]
    ) -> Float[Tensor, "*n 2"]:
        scaled = self.sharpness * vision @ audio.transpose(-1, -2)
        return self.similarity_logits(self._soft_maximum(scaled, -2).mean(-1))

    @in_float32
    def all_pairs_logits(
        self, vision: Float[Tensor, "n positions width"], audio: Float[Tensor, "m times width"]
    ) -> Float[Tensor, "n m 2"]:
        return self.similarity_logits(self.similarities(vision, audio))

    def with_whole_frame(
        self, similarities: Float[Tensor, "*sounds frame_vectors"]
    ) -> Float[Tensor, "*sounds"]:
        """The soft maximum over the positions of the frame, as in training."""
        return self._soft_maximum(self.sharpness * similarities, -1)

    def _soft_maximum(
        self, scaled: Float[Tensor, "*volume"], dimension: int
    ) -> Float[Tensor, "*remaining"]:
        """The soft maximum of similarities that are already multiplied by `sharpness`."""
        # No similarity is above 1, so exp(scaled - sharpness) cannot overflow.
        evidence = (scaled - self.sharpness).exp_().sum(dimension).float()
        # + 1 adds the sharpness again that was subtracted: sharpness / sharpness.
        return (evidence / self.positions).log() / self.sharpness + 1


class SimilarityFusion(PositionFusion):
    """The whole second of sound with the most similar position (AVOL-Net, section 4 of "Objects
    that Sound").

    A whole frame has a vector too. It is the mean over its positions, and a position counts the
    more, the less similar it is to the usual position of the training frames: most positions show
    background. Nothing is trained for it.
    """

    aligns_vectors = True
    usual_position: Float[Tensor, " width"]
    """The mean vector of the positions of training frames; it follows training as the statistics of
    batch-norm do.
    """

    def __init__(
        self, features: Mapping[Side, int], width: int, sharpness: float, positions: int
    ) -> None:
        super().__init__(features, width, sharpness, positions)
        self.register_buffer("usual_position", torch.zeros(width))
        self.register_load_state_dict_pre_hook(_add_usual_position)  # type: ignore[no-untyped-call]

    def audio_features(self, audio: TowerOutput) -> Float[Tensor, "m times features"]:
        return audio.vector[:, None]

    def project(
        self, vision: Float[Tensor, "*n vision_features"], audio: Float[Tensor, "*m audio_features"]
    ) -> tuple[Float[Tensor, "*n width"], Float[Tensor, "*m width"]]:
        vision_vectors, audio_vectors = super().project(vision, audio)
        if self.training:
            mean = vision_vectors.detach().flatten(0, -2).mean(0)
            self.usual_position.lerp_(mean, USUAL_POSITION_MOMENTUM)
        return vision_vectors, audio_vectors

    @in_float32
    def aligned_frame(self, vision: TowerOutput) -> Float[Tensor, "n width"]:
        positions = self.aligned(self.vision_features(vision), "vision")
        usual = functional.normalize(self.usual_position, dim=-1, eps=MIN_NORM)
        distances = 1 - positions @ usual
        weighted = positions * distances.square()[..., None]
        return functional.normalize(weighted.mean(-2), dim=-1, eps=MIN_NORM)


def _add_usual_position(
    fusion: nn.Module, tensors: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Let checkpoints of older versions load; without it all positions count alike."""
    tensors.setdefault(f"{prefix}usual_position", fusion.get_buffer("usual_position"))


class DenseFusion(PositionFusion):
    """Each time of the sound with the most similar position, averaged over the second.

    It therefore localizes in the frame and in time (after DenseAV, Hamilton et al. 2024).
    """

    def audio_features(self, audio: TowerOutput) -> Float[Tensor, "m times features"]:
        return audio.map.amax(2).transpose(1, 2)


VECTOR_FUSIONS = {"concat": ConcatFusion, "distance": DistanceFusion}
"""Fusions of one vector a side."""
POSITION_FUSIONS = {"similarity": SimilarityFusion, "dense": DenseFusion}
"""Fusions of every position of the frame."""


def build_fusion(config: ModelConfig, vision: Backbone, audio: Backbone) -> Fusion:
    """The fusion that `config` names, for these towers; its weights are not drawn yet."""
    features: Mapping[Side, int] = {"vision": vision.features, "audio": audio.features}
    if config.fusion == "general":
        # Imported here, because that file imports the base of its fusion from this one.
        from looklisten.model.general_fusion import GeneralFusion

        positions = vision.map_columns(config.crop_pixels) ** 2
        return GeneralFusion(
            features,
            config.fusion_width,
            config.sharpness,
            positions,
            config.fusion_dropout,
            config.class_groups,
            config.class_group_share,
            audio.classes,
            audio.class_scores,
        )
    if config.fusion in POSITION_FUSIONS:
        # Those of a training crop. Divided by its own positions, a wider frame would have
        # a lower probability for the same object (LOG.md, 2026-11-27).
        positions = vision.map_columns(config.crop_pixels) ** 2
        arguments = (features, config.fusion_width, config.sharpness, positions)
        return POSITION_FUSIONS[config.fusion](*arguments)
    return VECTOR_FUSIONS[config.fusion](features, config.fusion_width)


def correspondence_logit(logits: Float[Tensor, "*pairs 2"]) -> Float[Tensor, "*pairs"]:
    """One number for each pair: the log-odds that frame and sound correspond."""
    return logits[..., CORRESPOND] - logits[..., 1 - CORRESPOND]
