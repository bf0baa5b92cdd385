"""Linear probe: what a linear classifier can read from frozen vectors, beside the same network
untrained.

Knows labels for measuring only; nothing here trains the network.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from looklisten.data.clips import Clip
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.shared_files import shared_files_of
from looklisten.evaluation.statistics import confidence_interval
from looklisten.evaluation.untrained import initial_seed, untrained_like
from looklisten.inference.moments import embed_clips
from looklisten.model.l3net import L3Net
from looklisten.system.progress import Progress, no_progress

QUICK_CLIPS = (600, 300)
"""Clips that a quick probe is fitted and measured on."""


@dataclass(frozen=True)
class Probe:
    """Accuracy of one side's vectors on held-out videos; one prediction a moment, the confidence_interval over
    videos.
    """

    accuracy: float
    untrained: float
    chance: float
    """The share of the most frequent class."""
    n: int
    n_videos: int
    ci95: tuple[float, float]
    classes: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def probe(
    model: L3Net,
    shards: Shards,
    per_clip: int = 5,
    seed: int | None = None,
    held_out_fraction: float = 0.1,
    progress: Progress = no_progress,
    files: str | Path | None = None,
) -> dict[str, Probe]:
    """`{"audio": …, "vision": …}`: logistic regression on z-scored pool4 vectors, fitted on the
    videos that are not held out.

    Every moment of a clip bears the clip's label. For vision, clips whose boxes show things of
    other labels are left out of fitting and measuring: their frames have no single right answer.
    The untrained rival has the initial weights of `seed`, and batch-norm statistics set from the
    training videos, which makes it as strong as it can be. By default that is the seed that the
    network's own weights began with, as its checkpoint says, else 0. Its accuracy moves by some
    points from one seed to another. Intervals are over videos, or over the files that videos were
    composed of (see `evaluate`).

    Raises ConfigError when fewer than two classes are labelled on either side of the split.
    """
    held_out = shards.held_out_mask(held_out_fraction)
    labelled = np.array([len(labels) > 0 for labels in shards.labels], dtype=bool)
    names = np.array([labels[0] if labels else "" for labels in shards.labels])
    known = set(names[labelled & ~held_out])
    test_clips = np.flatnonzero(labelled & held_out & np.isin(names, list(known)))
    train_clips = np.flatnonzero(labelled & ~held_out)
    if len(known) < 2 or not len(test_clips):
        raise ConfigError(
            f"a probe needs labelled clips of at least 2 classes, held-out ones too; {shards.path} has none or too few"
        )
    clips = np.concatenate([train_clips, test_clips])
    single = np.array([has_single_label(shards[int(clip)]) for clip in clips])
    files_of_videos = shared_files_of(shards, files)
    networks = {
        "trained": model.eval(),
        "untrained": untrained_like(model, shards.select(~held_out), initial_seed(model, seed)),
    }
    answers: dict[tuple[str, str], Answers] = {}
    total = len(networks) * len(clips)
    for turn, (kind, network) in enumerate(networks.items()):

        def followed(offset: int = turn * len(clips)) -> Iterator[Clip]:
            for number, clip in enumerate(clips):
                progress(offset + number + 1, total)
                yield shards[int(clip)]

        vectors = embed_clips(network, followed(), per_clip)
        owner = clips[vectors.clips]
        for side in ("audio", "vision"):
            usable = single[vectors.clips] if side == "vision" else np.ones(len(owner), dtype=bool)
            fit, test = (
                usable & (vectors.clips < len(train_clips)),
                usable & (vectors.clips >= len(train_clips)),
            )
            features: Float[np.ndarray, "moments features"] = getattr(vectors, side)
            classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=0.1))
            classifier.fit(features[fit], names[owner[fit]])
            truth = names[owner[test]]
            videos = shards.video_ids[owner[test]].tolist()
            groups = (
                files_of_videos.sound_groups(videos)
                if side == "audio"
                else files_of_videos.image_groups(videos)
            )
            answers[kind, side] = Answers(
                classifier.predict(features[test]) == truth, truth, np.array(videos), groups
            )
    return {
        side: _summary(answers["trained", side], answers["untrained", side])
        for side in ("audio", "vision")
    }


def can_probe(shards: Shards, held_out: NDArray[np.bool_]) -> bool:
    """Whether at least two classes are labelled among the training clips, and some clip of them is
    held out.
    """
    names = np.array([labels[0] if labels else "" for labels in shards.labels])
    known = set(names[~held_out]) - {""}
    return len(known) >= 2 and bool(known & set(names[held_out]))


def quick_probe(
    model: L3Net, shards: Shards, held_out: NDArray[np.bool_], seed: int = 0
) -> dict[str, float]:
    """`{"audio": accuracy, "vision": accuracy}` of a linear probe on the middles of a few hundred
    clips drawn by `seed`.

    For watching a run: some seconds' work, and as noisy as that. `can_probe` says whether it can be
    done.
    """
    names = np.array([labels[0] if labels else "" for labels in shards.labels])
    known = list(set(names[~held_out]) - {""})
    rng = np.random.default_rng(seed)
    chosen = []
    for allowed, count in ((~held_out, QUICK_CLIPS[0]), (held_out, QUICK_CLIPS[1])):
        usable = np.flatnonzero(allowed & np.isin(names, known))
        chosen.append(np.sort(rng.permutation(usable)[:count]))
    clips = np.concatenate(chosen)
    was_training = model.training
    vectors = embed_clips(model.eval(), (shards[int(clip)] for clip in clips), per_clip=1)
    model.train(was_training)
    fit = np.arange(len(clips)) < len(chosen[0])
    found = {}
    for side in ("audio", "vision"):
        features: Float[np.ndarray, "moments features"] = getattr(vectors, side)
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=0.1))
        classifier.fit(features[fit], names[clips[fit]])
        found[side] = float(classifier.score(features[~fit], names[clips[~fit]]))
    return found


@dataclass(frozen=True, eq=False)
class Answers:
    """Whether each held-out moment was named right, with its true name, its video and the file that
    its side was made of.
    """

    right: NDArray[np.bool_]
    names: NDArray[Any]
    videos: NDArray[Any]
    files: NDArray[Any]


def _summary(trained: Answers, untrained: Answers) -> Probe:
    _, counts = np.unique(trained.names, return_counts=True)
    return Probe(
        accuracy=float(trained.right.mean()),
        untrained=float(untrained.right.mean()),
        chance=float(counts.max() / counts.sum()),
        n=len(trained.right),
        n_videos=len(np.unique(trained.videos)),
        ci95=confidence_interval(trained.right, [trained.files]),
        classes=len(counts),
    )


def has_single_label(clip: Clip) -> bool:
    """Whether everything that the clip's boxes show is of its labels, so that its frames have one
    right answer.
    """
    return {box.label for box in clip.boxes} <= set(clip.labels)
