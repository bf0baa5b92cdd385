"""The calibration of a fusion on frozen towers, when no footage is left that it was not trained on.

The training videos are parted into folds. For each, a fusion of the same kind is trained on the
other folds, and its scores on this one fit the calibration. The networks of the folds are then
thrown away.
"""

import hashlib

import numpy as np

from looklisten.config import Config
from looklisten.data.shards import Shards
from looklisten.evaluation.calibration import fit_pooled_calibration
from looklisten.model.calibration import Calibration
from looklisten.model.l3net import L3Net
from looklisten.system.progress import Progress, no_progress
from looklisten.training.frozen_towers.adapt import HeldOutMoments
from looklisten.training.frozen_towers.cache import FeatureCache
from looklisten.training.frozen_towers.fit import fit_fusion

FOLDS = 3


def cross_fitted_calibration(
    config: Config,
    network: L3Net,
    clips: Shards,
    features: FeatureCache,
    device: str = "auto",
    progress: Progress = no_progress,
) -> Calibration:
    """The calibration of what `fit_fusion` gives for the same arguments.

    Raises ConfigError for folds of fewer than two videos, and where the fusions learn nothing.
    """
    fold_of_clip = np.array([_fold_of(video) for video in clips.video_ids])
    matrices = []
    for fold in range(FOLDS):
        in_fold = fold_of_clip == fold
        learner = fit_fusion(config, network, clips.select(~in_fold), features, device)
        moments = HeldOutMoments.of(features, clips.select(in_fold))
        matrices.append(moments.scores(learner.network))
        progress(fold + 1, FOLDS)
    return fit_pooled_calibration(matrices)


def _fold_of(video: str) -> int:
    """By a hash of the name, so that the clips of a video stay together."""
    return int(hashlib.sha256(f"calibration {video}".encode()).hexdigest(), 16) % FOLDS
