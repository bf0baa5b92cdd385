"""Audio-visual correspondence on held-out videos: how often the network's yes and no are right,
with an interval.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from looklisten.data.pairs import PairBatch, PairStream, View
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.composed import Witnesses, witnesses_of
from looklisten.evaluation.intervals import interval
from looklisten.model.fusions import correspondence_logit
from looklisten.model.l3net import L3Net
from looklisten.system.progress import Progress, no_progress

MAX_BATCH = 64

Answer = Callable[[Tensor, Tensor], Tensor]
"""What the fusion reads of frames and of sounds, row by row -> one number a pair, `[pairs]`, above
0 for yes.
"""
Negatives = Literal["any", "other-class"]
"""A frame's negative is the sound of any other video, or of one with another label, where labels
are known.
"""


@dataclass(frozen=True)
class Correspondence:
    """AVC accuracy, chance 0.5. Pairs of one video are no independent witnesses, so intervals are
    over videos.
    """

    accuracy: float
    n_pairs: int
    n_videos: int
    ci95: tuple[float, float]
    positives_right: float
    negatives_right: float
    other_class: float | None = None
    """The accuracy with negatives of other classes alone, of the same frames and sounds; None
    without labels of two classes. A sound of the same class may well belong to a frame, so a
    network that knows classes is wrong about such negatives.
    """
    other_class_ci95: tuple[float, float] | None = None
    interval_over: str = "videos"
    """What the intervals take for independent: videos, or the files that videos were composed of."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Scores:
    """What was answered, above 0 for yes: row i is a frame of `videos[i]`, with its own sound and
    with that of another video.
    """

    positives: Float[np.ndarray, " rows"]
    negatives: Float[np.ndarray, " rows"]
    videos: NDArray[Any]
    others: NDArray[Any] | None = None
    """The video that the sound of each negative is of."""

    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is right: those to positives, then those to negatives."""
        return np.concatenate([self.positives > 0, self.negatives <= 0])

    def interval(self, witnesses: Witnesses) -> tuple[float, float]:
        """Of the share of right answers. Answers about one picture, or about one sound, are no
        independent witnesses.
        """
        videos = self.videos.tolist()
        others = videos if self.others is None else self.others.tolist()
        pictures, sounds = (
            witnesses.of_pictures(videos + videos),
            witnesses.of_sounds(videos + others),
        )
        return interval(self.right(), [pictures, sounds])


def evaluate(
    model: L3Net,
    shards: Shards,
    mask: NDArray[np.bool_],
    pairs: int = 4000,
    seed: int = 0,
    progress: Progress = no_progress,
    answer: Answer | None = None,
    negatives: Negatives = "any",
    files: str | Path | None = None,
) -> Correspondence:
    """AVC accuracy over at least `pairs` pairs of the clips that `mask` allows, half of them
    positive.

    Pairs are drawn as in training (frame inside the second; negatives re-pair the same frames and
    sounds, always of different videos) but for the augmentation: central crops, no jitter. The same
    `seed` gives the same pairs. The network's fusion answers, or else `answer`. Where there are
    labels, the accuracy with negatives of other classes comes beside it.

    Intervals are over videos. Videos that `synth` composed share pictures and sounds, so theirs are
    over those files, which the labels.csv beside the videos names, or the table `files`. Raises
    ConfigError when fewer than two videos are allowed, or all are of one class where negatives are
    to be of another.
    """
    asked: tuple[Negatives, ...] = ("any", "other-class")
    found = _scores(model, shards, mask, pairs, seed, progress, answer, asked)
    scores, apart = _checked(found[negatives], shards), found["other-class"]
    witnesses = witnesses_of(shards, files)
    return Correspondence(
        accuracy=float(np.mean(scores.right())),
        n_pairs=len(scores.right()),
        n_videos=len(np.unique(scores.videos)),
        ci95=scores.interval(witnesses),
        positives_right=float(np.mean(scores.positives > 0)),
        negatives_right=float(np.mean(scores.negatives <= 0)),
        other_class=float(np.mean(apart.right())) if len(apart.videos) else None,
        other_class_ci95=apart.interval(witnesses) if len(apart.videos) else None,
        interval_over=witnesses.over,
    )


def pair_scores(
    model: L3Net,
    shards: Shards,
    mask: NDArray[np.bool_],
    pairs: int = 4000,
    seed: int = 0,
    progress: Progress = no_progress,
    answer: Answer | None = None,
    negatives: Negatives = "any",
) -> Scores:
    """The answers to the pairs of `evaluate`, before anybody says whether they are right."""
    return _checked(
        _scores(model, shards, mask, pairs, seed, progress, answer, (negatives,))[negatives], shards
    )


def _checked(scores: Scores, shards: Shards) -> Scores:
    if not len(scores.videos):
        raise ConfigError(
            f"negatives of other classes need held-out clips of at least 2 labels; {shards.path} has none or one"
        )
    return scores


@torch.inference_mode()
def _scores(
    model: L3Net,
    shards: Shards,
    mask: NDArray[np.bool_],
    pairs: int,
    seed: int,
    progress: Progress,
    answer: Answer | None,
    asked: Sequence[Negatives],
) -> dict[Negatives, Scores]:
    """The answers for each kind of negatives, from one pass over the videos; none where no row has
    a partner of that kind.
    """
    answer = answer or (lambda vision, audio: correspondence_logit(model.fusion(vision, audio)))
    parts: dict[Negatives, list[Scores]] = {kind: [] for kind in asked}
    for index, (batch, vision, audio) in enumerate(
        looked_and_listened(model, shards, mask, math.ceil(pairs / 2), seed, progress)
    ):
        videos = np.array(batch.video_ids)
        for kind in asked:
            rows = np.arange(len(batch.labels))
            others = np.roll(rows, -1)
            if kind == "other-class":
                rows, others = of_other_classes(
                    batch.labels, np.random.default_rng((seed, index, 2))
                )
            if len(rows):
                yes, no = (
                    answer(vision[rows], audio[sounds]).float().cpu().numpy()
                    for sounds in (rows, others)
                )
                parts[kind].append(Scores(yes, no, videos[rows], videos[others]))
    return {kind: _joined(some) for kind, some in parts.items()}


def _joined(parts: Sequence[Scores]) -> Scores:
    """The answers of batches as those of all; of no batch, none."""
    none = Scores(
        np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, np.str_), np.zeros(0, np.str_)
    )
    if not parts:
        return none
    names = [field.name for field in fields(Scores)]
    return Scores(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    )


def looked_and_listened(
    model: L3Net,
    shards: Shards,
    mask: NDArray[np.bool_],
    rows: int,
    seed: int,
    progress: Progress = no_progress,
) -> Iterator[
    tuple[
        PairBatch, Float[Tensor, "batch *places features"], Float[Tensor, "batch *moments features"]
    ]
]:
    """At least `rows` moments of the clips that `mask` allows, with what the fusion reads of their
    frames and of their sounds.

    The network is in evaluation mode meanwhile. Raises ConfigError when fewer than two videos are
    allowed.
    """
    videos = len(np.unique(shards.video_ids[mask]))
    if videos < 2:
        raise ConfigError(
            f"correspondence needs at least 2 held-out videos for a negative pair; {shards.path} has {videos}"
        )
    device = next(model.parameters()).device
    view = View(
        model.config.resize_pixels,
        model.config.crop_pixels,
        random=False,
        frames=model.config.frames_per_pair,
    )
    # An epoch drops what does not fill a batch, so the batch is one that leaves little over.
    size = max(range(2, min(videos, MAX_BATCH) + 1), key=lambda size: (videos // size * size, size))
    stream = PairStream(shards, mask, size, seed, view)
    steps = math.ceil(rows / size)
    was_training = model.training
    model.eval()
    for done, batch in enumerate(stream.batches(0, steps), 1):
        yield (
            batch,
            *model.fusion.read(
                model.look(batch.frames.to(device)), model.listen(batch.waveforms.to(device))
            ),
        )
        progress(done, steps)
    model.train(was_training)


def of_other_classes(
    labels: Sequence[str], rng: np.random.Generator
) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
    """Rows, and for each the one of another class whose sound is its negative; every sound is taken
    once.

    So negatives are still the very frames and sounds of the positives. Rows without a label are
    left out, and so are, where more than half are of one class, those of it that would find no
    partner.
    """
    shuffled = rng.permutation(len(labels))
    rows = shuffled[np.array(labels)[shuffled] != ""]
    names, of_row, counts = np.unique(
        np.array(labels)[rows], return_inverse=True, return_counts=True
    )
    largest = int(counts.argmax()) if len(counts) else 0
    partners = len(rows) - int(counts.max(initial=0))
    kept = (of_row != largest) | (np.cumsum(of_row == largest) <= partners)
    rows, of_row = rows[kept], of_row[kept]
    # In blocks of a class each, in an order of chance: whoever stands a largest block further on is
    # of another class.
    rows = rows[np.argsort(rng.permutation(len(names))[of_row], kind="stable")]
    return rows, np.roll(rows, -int(np.bincount(of_row).max(initial=0)))
