"""Fits the calibration of a network on pairs that training did not read.

Knows scores; `model/calibration.py` is the record that a checkpoint stores.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.all_pairs import COMPARED_PER_CLIP, score_matrix
from looklisten.evaluation.comparison import fusion_comparison
from looklisten.evaluation.held_out import network_of
from looklisten.evaluation.ranking import ScoreMatrix
from looklisten.model.calibration import Calibration
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run
from looklisten.system.progress import Progress, no_progress

FITTED_PAIRS = 200_000
"""Of more mismatched pairs a sample is taken, which gives the same numbers in less time."""


def calibrate(
    network: L3Net | Run,
    shards: Shards | str | Path,
    per_clip: int = COMPARED_PER_CLIP,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Calibration:
    """The temperature and the threshold that fit every frame with every sound of `shards`.

    The clips should be new to the network, such as its validation videos. Scores are computed
    without the network's present calibration, which it gets back afterwards. To use the new one,
    set `network.calibration`, or store it with `save_calibration`.

    `shards`: as for `evaluate`. Raises ConfigError for clips of fewer than two videos, and where
    matched pairs score no higher than mismatched ones.
    """
    model = network_of(network)
    former = model.calibration
    model.calibration = None
    try:
        comparison = fusion_comparison(model)
        matrix = score_matrix(network, shards, per_clip, seed, progress, comparison)
    finally:
        model.calibration = former
    return fit_calibration(matrix, seed)


def fit_calibration(matrix: ScoreMatrix, seed: int = 0) -> Calibration:
    """The calibration that fits the scores of one network; see `fit_pooled_calibration`."""
    return fit_pooled_calibration([matrix], seed)


def fit_pooled_calibration(matrices: Sequence[ScoreMatrix], seed: int = 0) -> Calibration:
    """Logistic regression of one number, the score, on whether a pair is matched (Platt 1999).

    Matched and mismatched pairs have the same weight, so a probability of 0.5 is where both are
    equally likely. `matrices`: of the folds of a cross-validation, each with its own videos.
    Raises ConfigError where matched pairs score no higher.
    """
    matched = np.concatenate([matrix.matched for matrix in matrices]).astype(np.float64)
    mismatched = np.concatenate([matrix.mismatched() for matrix in matrices]).astype(np.float64)
    if len(mismatched) > FITTED_PAIRS:
        mismatched = np.random.default_rng(seed).choice(mismatched, FITTED_PAIRS, replace=False)
    scores = np.concatenate([matched, mismatched])
    center, spread = float(scores.mean()), float(scores.std())
    if not spread or matched.mean() <= mismatched.mean():
        raise ConfigError(
            "matched pairs score no higher than mismatched ones on these videos, so there is "
            "nothing to calibrate; train the network first"
        )
    # Targets a little below 1 and above 0, as Platt's, keep the slope finite even where one
    # threshold separates all matched pairs from all mismatched ones.
    certain = (len(matched) + 1) / (len(matched) + 2)
    counts = [len(matched), len(mismatched)]
    targets = np.repeat([certain, 1 - certain], counts)
    weights = np.repeat([0.5 / len(matched), 0.5 / len(mismatched)], counts)
    slope, offset = _logistic_regression((scores - center) / spread, targets, weights)
    # slope * (score - center) / spread + offset, written as (score - threshold) / temperature.
    return Calibration(
        temperature=spread / slope,
        threshold=center - offset * spread / slope,
        videos=sum(len(np.unique(matrix.videos)) for matrix in matrices),
    )


def _logistic_regression(
    values: Float[np.ndarray, " pairs"],
    targets: Float[np.ndarray, " pairs"],
    weights: Float[np.ndarray, " pairs"],
) -> tuple[float, float]:
    """Slope and offset with the lowest weighted cross-entropy."""

    def loss_and_gradient(
        parameters: Float[np.ndarray, " 2"],
    ) -> tuple[float, Float[np.ndarray, " 2"]]:
        log_odds = parameters[0] * values + parameters[1]
        cross_entropy = np.logaddexp(0, log_odds) - targets * log_odds
        # The sigmoid, without overflow.
        probability = np.exp(-np.logaddexp(0, -log_odds))
        error = weights * (probability - targets)
        return float(weights @ cross_entropy), np.array([error @ values, error.sum()])

    slope, offset = minimize(loss_and_gradient, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    return float(slope), float(offset)
