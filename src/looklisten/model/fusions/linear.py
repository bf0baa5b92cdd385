"""The fusion `linear`: positions, whole frames and seconds of sound in one space.

It is for towers that were trained before. Knows tensors only.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import Side
from looklisten.model.backbones import TowerOutput
from looklisten.model.fusions.fusion import MIN_NORM, in_float32
from looklisten.model.fusions.positions import PositionFusion

MIN_SCORE = 1e-3
"""Added to the score of a class before its logarithm, which is then at least ln(MIN_SCORE)."""
ABSENT_PRESENCE = -3.0
"""How present a group without classes is; others have mean 0 (LOG.md, 2026-11-28)."""
MAP_CONTRAST = 3.0
"""The factor by which a heat map enlarges how far a position is below the best one.

Positions of one frame are much alike. With a factor of 1, half of a frame is nearly as bright as
its best position, so people cannot find it. Chosen by eye on four real clips.
"""

MAP_NEIGHBORS = 3
"""The side of the square of positions that a position of a heat map is the mean of."""
MAP_ACTIVATION_WEIGHT = 0.05
"""How much more similar a position is in a heat map for each mean length of features.

Positions on objects have longer features than floor, wall and sky. The sound alone often prefers
the ground beside the object (LOG.md, 2026-11-28).
"""

ScoresOfClasses = Callable[[Float[Tensor, "*n features"]], Float[Tensor, "*n classes"]]
"""From the vector of a published tower to the scores of its classes, from 0 to 1."""


class Standardized(nn.Module):
    """Gives features mean 0 and a deviation of about 1 over the rows of `fit`; before, nothing.

    Of a feature that hardly varies the deviation stays near 0.
    """

    mean: Float[Tensor, " features"]
    scale: Float[Tensor, " features"]

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    @torch.no_grad()
    def fit(self, rows: Float[Tensor, "rows features"]) -> None:
        """Take mean and deviation from `rows`."""
        # Without the added tenth, a feature that hardly varies would become large.
        deviation = rows.std(0)
        self.mean.copy_(rows.mean(0))
        self.scale.copy_(1 / (deviation + 0.1 * deviation.mean()).clamp_min(MIN_NORM))

    def forward(self, features: Float[Tensor, "*n features"]) -> Float[Tensor, "*n features"]:
        return (features - self.mean) * self.scale


class FeatureDropout(nn.Module):
    """Leaves out features at random in training, the same ones in all rows of a frame."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, rows: Float[Tensor, "*n rows features"]) -> Float[Tensor, "*n rows features"]:
        if not self.training or not self.share:
            return rows
        # One random number for each feature of a frame: one for each of its rows as well would cost
        # time.
        by_feature = functional.dropout1d(rows.transpose(1, 2), self.share)
        return by_feature.transpose(1, 2)


class GroupPresence(nn.Module):
    """How present each group of classes is in the inputs of a fusion. Nothing of it is trained.

    A group that no picture shows counts as absent from every frame. So silence and noise, which are
    such groups, are less similar to every frame.
    """

    weight: Float[Tensor, "groups inputs"]
    offset: Float[Tensor, " groups"]

    def __init__(self, inputs: int, groups: int) -> None:
        super().__init__()
        # Buffers, so that no objective trains what is known beforehand.
        self.register_buffer("weight", torch.zeros(groups, inputs))
        self.register_buffer("offset", torch.zeros(groups))
        self.standardized = Standardized(groups)
        self.register_load_state_dict_pre_hook(_add_offset)  # type: ignore[no-untyped-call]

    def set_weight(self, weight: Float[Tensor, "groups inputs"]) -> None:
        """Set how inputs give each group; a row of zeros is of a group without classes."""
        self.weight.copy_(weight)
        has_no_classes = (weight == 0).all(1)
        self.offset.copy_(ABSENT_PRESENCE * has_no_classes)

    def fit(self, rows: Float[Tensor, "rows inputs"]) -> None:
        """Take from `rows` how present each group usually is."""
        self.standardized.fit(rows @ self.weight.T)

    def forward(self, inputs: Float[Tensor, "*n inputs"]) -> Float[Tensor, "*n groups"]:
        presence: Tensor = self.standardized(functional.linear(inputs, self.weight))
        return presence + self.offset


def _add_offset(presence: nn.Module, tensors: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Let checkpoints of older versions load: all of their groups have classes on both sides."""
    tensors.setdefault(f"{prefix}offset", torch.zeros_like(presence.get_buffer("offset")))


@dataclass(frozen=True, eq=False)
class VectorByGroups:
    """The part of the vectors that says how present each group of classes is."""

    groups: int
    """Number of groups."""
    share: float
    """The share of this part in a similarity."""
    audio_classes: int
    """Number of classes that the audio tower knows."""
    audio_scores: ScoresOfClasses


class LinearFusion(PositionFusion):
    """The second of sound with the best position of the frame, and with the whole frame.

    One linear layer for each side gives unit vectors of positions, whole frames and seconds, all in
    one space. So one network scores pairs, draws maps, searches and embeds. The last row of a
    frame's features is the vector of its tower, the others are the positions of its map.

    With `by_groups`, a vector has two parts. The first is learned. The second says how present each
    group of classes is (`model/class_groups.py`). Training compares the learned parts alone. With
    the groups in the loss, the learned parts would learn the groups' errors on the training videos,
    and those differ on other videos (LOG.md).
    """

    aligns_vectors = True
    shows_answer = True

    def __init__(
        self,
        features: Mapping[Side, int],
        width: int,
        sharpness: float,
        positions: int,
        dropout: float = 0.0,
        by_groups: VectorByGroups | None = None,
    ) -> None:
        super().__init__(features, width, sharpness, positions)
        self.width = width
        self._by_groups = by_groups
        self.groups = by_groups.groups if by_groups else 0
        self.group_share = by_groups.share if by_groups else 0.0
        # The scores of the classes of a sound say more than its vector does (LOG.md).
        audio_classes = by_groups.audio_classes if by_groups else 0
        inputs = {"vision": features["vision"], "audio": features["audio"] + audio_classes}
        # No hidden layer: it would have more weights to fit to few videos. Not measured.
        self.vision = _linear_side(inputs["vision"], width, dropout)
        self.audio = _linear_side(inputs["audio"], width, dropout)
        if by_groups:
            self.vision_groups = GroupPresence(inputs["vision"], self.groups)
            self.audio_groups = GroupPresence(audio_classes, self.groups)

    @property
    def aligned_width(self) -> int:
        return self.width + self.groups

    def set_groups(self, side: Side, weight: Float[Tensor, "groups group_inputs"]) -> None:
        """Set how the features of a frame, or the scores of a sound's classes, give each group."""
        self._groups_of(side).set_weight(weight)

    def fit_inputs(
        self,
        vision: Float[Tensor, "n rows vision_features"],
        audio: Float[Tensor, "m 1 audio_features"],
    ) -> None:
        """Standardize the inputs of each side by those of some frames and seconds."""
        sides: Mapping[Side, tuple[nn.Sequential, Tensor]] = {
            "vision": (self.vision, vision),
            "audio": (self.audio, audio),
        }
        for side, (layers, features) in sides.items():
            inputs = self._inputs(features, side)
            standardized = layers[0]
            assert isinstance(standardized, Standardized)
            standardized.fit(inputs.flatten(0, 1))
            if self.groups:
                # By the last row, the whole frame, because single positions vary more.
                self._groups_of(side).fit(self._group_inputs(inputs, side)[:, -1])

    def vision_features(self, vision: TowerOutput) -> Float[Tensor, "n rows features"]:
        return torch.cat([super().vision_features(vision), vision.vector[:, None]], 1)

    def audio_features(self, audio: TowerOutput) -> Float[Tensor, "m 1 features"]:
        return audio.vector[:, None]

    def aligned(
        self, features: Float[Tensor, "*n features"], side: Side
    ) -> Float[Tensor, "*n width"]:
        """Unit vectors of the shared space of one side, in float32."""
        layers = self.vision if side == "vision" else self.audio
        inputs = self._inputs(features, side)
        learned = _unit(layers(inputs))
        if not self.groups:
            return learned
        by_groups = _unit(self._groups_of(side)(self._group_inputs(inputs, side)))
        parts = [
            learned * math.sqrt(1 - self.group_share),
            by_groups * math.sqrt(self.group_share),
        ]
        return torch.cat(parts, dim=-1)

    def _inputs(
        self, features: Float[Tensor, "*n features"], side: Side
    ) -> Float[Tensor, "*n inputs"]:
        """The features of one side; with groups, also the log-scores of the classes of a sound."""
        if side == "vision" or self._by_groups is None:
            return features
        scores = self._by_groups.audio_scores(features)
        return torch.cat([features, (scores + MIN_SCORE).log()], dim=-1)

    def _group_inputs(
        self, inputs: Float[Tensor, "*n inputs"], side: Side
    ) -> Float[Tensor, "*n group_inputs"]:
        """What groups are computed from: features of a frame, scores of the classes of a sound."""
        if side == "vision" or self._by_groups is None:
            return inputs
        return inputs[..., -self._by_groups.audio_classes :]

    def _groups_of(self, side: Side) -> GroupPresence:
        return self.vision_groups if side == "vision" else self.audio_groups

    @in_float32
    def part_similarities(
        self, vision: Float[Tensor, "n rows width"], audio: Float[Tensor, "m 1 width"]
    ) -> Sequence[Float[Tensor, "n m"]]:
        """The similarity of every frame with every sound, by the learned parts of their vectors.

        Once by the best position, once by the whole frame.
        """
        # `aligned` made the learned part shorter to join the groups. Here its length is 1 again.
        scale = 1 / math.sqrt(1 - self.group_share)
        vision, audio = vision[..., : self.width] * scale, audio[..., : self.width] * scale
        return self._by_position_and_whole(vision, audio)

    @in_float32
    def similarities(
        self, vision: Float[Tensor, "n rows width"], audio: Float[Tensor, "m 1 width"]
    ) -> Float[Tensor, "n m"]:
        by_position, as_whole = self._by_position_and_whole(vision, audio)
        return (by_position + as_whole) / 2

    def _by_position_and_whole(
        self, vision: Float[Tensor, "n rows width"], audio: Float[Tensor, "m 1 width"]
    ) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
        by_position = super().similarities(vision[:, :-1], audio)
        return by_position, vision[:, -1] @ audio[:, 0].T

    def decided_similarities(
        self,
        parts: Sequence[Float[Tensor, "n m"]],
        vision: Float[Tensor, "n rows width"],
        audio: Float[Tensor, "m 1 width"],
    ) -> Float[Tensor, "n m"]:
        # The parts lack the groups.
        if self.groups:
            return self.similarities(vision.detach(), audio.detach())
        return super().decided_similarities(parts, vision, audio)

    @in_float32
    def logits(
        self, vision: Float[Tensor, "*n rows width"], audio: Float[Tensor, "*n 1 width"]
    ) -> Float[Tensor, "*n 2"]:
        similarity = (vision @ audio.transpose(-1, -2))[..., 0]
        return self.similarity_logits(self.whole_frame_similarity(similarity))

    def whole_frame_similarity(
        self, similarities: Float[Tensor, "*sounds frame_vectors"]
    ) -> Float[Tensor, "*sounds"]:
        by_position = super().whole_frame_similarity(similarities[..., :-1])
        return (by_position + similarities[..., -1]) / 2

    def map_positions(self, vision: TowerOutput) -> Float[Tensor, "n positions features"]:
        """Each position as the mean of itself and its neighbors."""
        smoothed = functional.avg_pool2d(
            vision.map, MAP_NEIGHBORS, 1, MAP_NEIGHBORS // 2, count_include_pad=False
        )
        return smoothed.flatten(2).transpose(1, 2)

    def shown_similarities(
        self,
        similarities: Float[Tensor, "n positions"],
        answers: Float[Tensor, " n"],
        vision: TowerOutput,
    ) -> Float[Tensor, "n positions"]:
        """The best position gets the answer of the pair, and the others less.

        Positions with long features count as more similar (`MAP_ACTIVATION_WEIGHT`). How far the
        others are below the best one is multiplied by `MAP_CONTRAST`.

        The answer comes from the best position and the whole frame together. The whole frame is
        mostly more similar to the sound than any position. So a map of the similarities of
        positions alone would be darker than the probability of the pair.
        """
        activation = vision.map.float().norm(dim=1).flatten(1)
        activation = activation / activation.mean(1, keepdim=True).clamp_min(MIN_NORM)
        similarities = similarities + MAP_ACTIVATION_WEIGHT * activation
        best = similarities.amax(-1, keepdim=True)
        return MAP_CONTRAST * (similarities - best) + answers[..., None]


def _linear_side(features: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        Standardized(features), FeatureDropout(dropout), nn.Linear(features, width)
    )


def _unit(vectors: Float[Tensor, "*n width"]) -> Float[Tensor, "*n width"]:
    return functional.normalize(vectors.float(), dim=-1, eps=MIN_NORM)
