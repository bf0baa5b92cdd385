"""Fusions: how the features of the two towers are compared, and the logits of an answer.

`model.fusion` of a config names one of them.
"""

from collections.abc import Mapping

from looklisten.config import ModelConfig, Side
from looklisten.model.backbones import Backbone
from looklisten.model.fusions.fusion import CORRESPOND, Fusion, correspondence_logit
from looklisten.model.fusions.linear import LinearFusion, VectorByGroups
from looklisten.model.fusions.positions import DenseFusion, SimilarityFusion
from looklisten.model.fusions.vectors import ConcatFusion, DistanceFusion

__all__ = [
    "CORRESPOND",
    "POSITION_FUSIONS",
    "VECTOR_FUSIONS",
    "Fusion",
    "build_fusion",
    "correspondence_logit",
]

VECTOR_FUSIONS = {"concat": ConcatFusion, "distance": DistanceFusion}
"""Fusions of one vector a side."""
POSITION_FUSIONS = {"similarity": SimilarityFusion, "dense": DenseFusion}
"""Fusions of every position of the frame."""


def build_fusion(config: ModelConfig, vision: Backbone, audio: Backbone) -> Fusion:
    """The fusion that `config` names, for these towers; its weights are not drawn yet."""
    features: Mapping[Side, int] = {"vision": vision.features, "audio": audio.features}
    if config.fusion == "linear":
        positions = vision.map_columns(config.crop_pixels) ** 2
        by_groups = None
        if config.class_groups:
            by_groups = VectorByGroups(
                config.class_groups, config.class_group_share, audio.classes, audio.class_scores
            )
        return LinearFusion(
            features,
            config.fusion_width,
            config.sharpness,
            positions,
            config.fusion_dropout,
            by_groups,
        )
    if config.fusion in POSITION_FUSIONS:
        # Those of a training crop. Divided by its own positions, a wider frame would have
        # a lower probability for the same object (LOG.md, 2026-11-27).
        positions = vision.map_columns(config.crop_pixels) ** 2
        arguments = (features, config.fusion_width, config.sharpness, positions)
        return POSITION_FUSIONS[config.fusion](*arguments)
    return VECTOR_FUSIONS[config.fusion](features, config.fusion_width)
