"""Linear probe of labeled shards: a trained network compared with the same network untrained.

Uses labels for measuring only; nothing here trains a network.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from looklisten.config import Side
from looklisten.data.clips import Clip
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.held_out import fraction_held_out, network_of, opened_shards
from looklisten.evaluation.linear_probe.options import ProbeOptions
from looklisten.evaluation.shared_files import SharedFiles, shared_files_of
from looklisten.evaluation.statistics import confidence_interval
from looklisten.evaluation.untrained import initial_seed, untrained_like
from looklisten.inference.moments import MomentVectors, embed_clips, embed_clips_with_each
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run
from looklisten.system.progress import Progress, no_progress

PROBED_SIDES: tuple[Side, ...] = ("audio", "vision")
QUICK_TRAINING_CLIPS = 600
QUICK_HELD_OUT_CLIPS = 300
"""How many clips a quick probe is fitted and measured on."""

EmbedClips = Callable[[Sequence[L3Net], Iterable[Clip], int], Sequence[MomentVectors]]
"""(networks, clips, moments of each clip) -> for each network the vectors of all moments."""


@dataclass(frozen=True)
class Probe:
    """How well the vectors of one side predict labels of held-out videos, moment by moment."""

    accuracy: float
    untrained: float
    """The accuracy of the untrained network."""
    chance: float
    """The share of the most frequent class."""
    n: int
    """The number of held-out moments."""
    n_videos: int
    ci95: tuple[float, float]
    """The interval of the accuracy, over videos or over the files that they are composed of."""
    classes: int

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)


def probe(
    network: L3Net | Run,
    shards: Shards | str | Path,
    per_clip: int = ProbeOptions.per_clip,
    seed: int | None = None,
    held_out_fraction: float | None = None,
    progress: Progress = no_progress,
    files: str | Path | None = None,
    embed: EmbedClips = embed_clips_with_each,
) -> dict[str, Probe]:
    """`{"audio": ..., "vision": ...}`: a linear classifier on pool4 vectors of each side.

    A logistic regression on z-scored vectors is fitted on the videos that are not held out. Every
    moment has the label of its clip. For vision, clips whose boxes show objects of other labels are
    left out, because their frames have no single correct answer.

    `network`: an opened run, or a network without its run.
    `shards`: a folder, or its shards.
    `held_out_fraction`: by default that of the run; a network without its run needs it.
    `seed`: of the untrained network's weights; by default that of the network's own initial
        weights, else 0. The untrained accuracy moves by some points from one seed to another. Its
        batch-norm statistics come from the training videos, which makes it as strong as it can be.
    `files`: the table of the files that videos were composed of (see `evaluate`).
    `embed`: computes the vectors.

    Raises ConfigError if fewer than two classes are labeled on either side of the split.
    """
    model = network_of(network)
    shards = opened_shards(shards)
    is_held_out = shards.held_out_mask(fraction_held_out(network, held_out_fraction))
    known = set(shards.names[~is_held_out]) - {""}
    training = shards.select(~is_held_out & (shards.names != ""))
    held_out = shards.select(is_held_out & np.isin(shards.names, list(known)))
    if len(known) < 2 or not len(held_out):
        raise ConfigError(
            f"a probe needs labeled clips of at least 2 classes, also among the held-out clips; "
            f"{shards.path} has none or too few"
        )
    # A frame that shows two classes has no single correct answer.
    has_one_label = np.array([has_single_label(clip) for clip in chain(training, held_out)])
    shared_files = shared_files_of(shards, files)
    untrained = untrained_like(model, shards.select(~is_held_out), initial_seed(model, seed))
    n_clips = len(training) + len(held_out)

    def clips() -> Iterator[Clip]:
        for number, clip in enumerate(chain(training, held_out), 1):
            progress(number, n_clips)
            yield clip

    # In one call, so that each frame is decoded once, and batches are filled across the border of
    # the two parts.
    vectors_of_networks = embed([model.eval(), untrained], clips(), per_clip)
    results: list[dict[Side, _HeldOutMoments]] = []
    for vectors in vectors_of_networks:
        by_side = {}
        for side in PROBED_SIDES:
            usable = np.ones(n_clips, dtype=bool) if side == "audio" else has_one_label
            by_side[side] = _classify(vectors, side, training, held_out, usable, shared_files)
        results.append(by_side)
    of_trained, of_untrained = results
    return {side: _summary(of_trained[side], of_untrained[side]) for side in PROBED_SIDES}


@dataclass(frozen=True, eq=False)
class _HeldOutMoments:
    """For each held-out moment of one side whether its class was predicted correctly."""

    is_correct: Bool[np.ndarray, " moments"]
    labels: NDArray[Any]
    videos: NDArray[Any]
    groups: NDArray[Any]
    """The file that the side of each moment was made of; moments of one file are dependent."""


def _classify(
    vectors: MomentVectors,
    side: Side,
    training: Shards,
    held_out: Shards,
    usable: Bool[np.ndarray, " clips"],
    shared_files: SharedFiles,
) -> _HeldOutMoments:
    """Fit on the moments of `training`, predict those of `held_out`, which follow them.

    `usable`: the clips, of both, whose moments are fitted and predicted.
    """
    labels = np.concatenate([training.names, held_out.names])[vectors.clips]
    videos = np.concatenate([training.video_ids, held_out.video_ids])[vectors.clips]
    is_training = vectors.clips < len(training)
    is_usable = usable[vectors.clips]
    is_fitted = is_usable & is_training
    is_tested = is_usable & ~is_training
    features = _features(vectors, side)
    classifier = _classifier().fit(features[is_fitted], labels[is_fitted])
    tested_videos = videos[is_tested].tolist()
    groups_of = shared_files.sound_groups if side == "audio" else shared_files.image_groups
    return _HeldOutMoments(
        is_correct=classifier.predict(features[is_tested]) == labels[is_tested],
        labels=labels[is_tested],
        videos=np.array(tested_videos),
        groups=groups_of(tested_videos),
    )


def _features(vectors: MomentVectors, side: Side) -> Float[np.ndarray, "moments features"]:
    return vectors.audio if side == "audio" else vectors.vision


def _classifier() -> Any:
    """The scikit-learn pipeline that is fitted."""
    # Imported here, because every training imports this module and few probe.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=0.1))


def _summary(trained: _HeldOutMoments, untrained: _HeldOutMoments) -> Probe:
    # Both networks answered about the same moments.
    _, class_sizes = np.unique(trained.labels, return_counts=True)
    chance = class_sizes.max() / class_sizes.sum()
    return Probe(
        accuracy=float(trained.is_correct.mean()),
        untrained=float(untrained.is_correct.mean()),
        chance=float(chance),
        n=len(trained.is_correct),
        n_videos=len(np.unique(trained.videos)),
        ci95=confidence_interval(trained.is_correct, [trained.groups]),
        classes=len(class_sizes),
    )


def has_single_label(clip: Clip) -> bool:
    """Whether all boxes of a clip have its labels, so that its frames have one correct answer."""
    return {box.label for box in clip.boxes} <= set(clip.labels)


def can_probe(shards: Shards, held_out: NDArray[np.bool_]) -> bool:
    """Whether two classes are labeled among the training clips, and one of them is held out."""
    known = set(shards.names[~held_out]) - {""}
    return len(known) >= 2 and bool(known & set(shards.names[held_out]))


def quick_probe(
    model: L3Net, shards: Shards, held_out: NDArray[np.bool_], seed: int = 0
) -> dict[str, float]:
    """The accuracies `{"audio": ..., "vision": ...}` of a linear probe on a few hundred clips.

    For watching a run: it takes some seconds and is noisy. `can_probe` tells if it is possible.

    `seed`: chooses the clips; the middle moment of each is classified.
    """
    known = list(set(shards.names[~held_out]) - {""})
    is_known = np.isin(shards.names, known)
    rng = np.random.default_rng(seed)
    training = rng.permutation(np.flatnonzero(~held_out & is_known))
    training = training[:QUICK_TRAINING_CLIPS]
    tested = rng.permutation(np.flatnonzero(held_out & is_known))
    tested = tested[:QUICK_HELD_OUT_CLIPS]
    # Sorted, because clips that are neighbors in a shard are read fastest.
    training.sort()
    tested.sort()
    clips = np.concatenate([training, tested])
    # It is called in the middle of a training, which must go on in its own mode.
    was_training = model.training
    chosen_clips = (shards[int(clip)] for clip in clips)
    vectors = embed_clips(model.eval(), chosen_clips, per_clip=1)
    model.train(was_training)
    labels = shards.names[clips]
    is_training = np.arange(len(clips)) < len(training)
    accuracies: dict[str, float] = {}
    for side in PROBED_SIDES:
        features = _features(vectors, side)
        classifier = _classifier().fit(features[is_training], labels[is_training])
        predicted = classifier.predict(features[~is_training])
        accuracies[side] = float(np.mean(predicted == labels[~is_training]))
    return accuracies
