"""Audio-visual correspondence on held-out videos: how often the network's yes and no are right, with an interval."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from looklisten.data.pairs import PairBatch, PairStream, View
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.model.l3net import L3Net, correspondence_logit
from looklisten.runtime import Progress, silent

Z95 = 1.959964
"""Standard deviations that hold 95 % of a normal distribution."""
MAX_BATCH = 64

Answer = Callable[[Tensor, Tensor], Tensor]
"""What the fusion reads of frames and of sounds, row by row -> one number a pair, `[pairs]`, above 0 for yes."""
Negatives = Literal["any", "other-class"]
"""A frame's negative is the sound of any other video, or of one with another label, where labels are known."""


@dataclass(frozen=True)
class Correspondence:
    """AVC accuracy, chance 0.5. Pairs of one video are no independent witnesses, so the interval is taken over videos."""

    accuracy: float
    n_pairs: int
    n_videos: int
    ci95: tuple[float, float]
    positives_right: float
    negatives_right: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Scores:
    """What was answered, above 0 for yes: row i is a frame of `videos[i]`, with its own sound and with that of another video."""

    positives: Float[np.ndarray, " rows"]
    negatives: Float[np.ndarray, " rows"]
    videos: NDArray[Any]


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the mean of independent `values` that lie in 0..1, by the normal approximation, kept in 0..1."""
    mean = float(np.mean(values))
    half = Z95 * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.5
    return max(mean - half, 0.0), min(mean + half, 1.0)


def evaluate(
    model: L3Net,
    shards: Shards,
    mask: NDArray[np.bool_],
    pairs: int = 4000,
    seed: int = 0,
    progress: Progress = silent,
    answer: Answer | None = None,
    negatives: Negatives = "any",
) -> Correspondence:
    """AVC accuracy over at least `pairs` pairs of the clips that `mask` allows, half of them positive.

    Pairs are drawn as in training (frame inside the second; negatives re-pair the same frames and sounds, always of different
    videos) but for the augmentation: central crops, no jitter. The same `seed` gives the same pairs. The network's fusion
    answers, or else `answer`. Raises ConfigError when fewer than two videos are allowed, or all are of one class where negatives
    are to be of another.
    """
    scores = pair_scores(model, shards, mask, pairs, seed, progress, answer, negatives)
    yes, no = scores.positives > 0, scores.negatives <= 0
    right: dict[str, list[bool]] = {}
    for video, *answers in zip(scores.videos.tolist(), yes.tolist(), no.tolist(), strict=True):
        right.setdefault(video, []).extend(answers)
    return Correspondence(
        accuracy=float(np.mean(np.concatenate([yes, no]))),
        n_pairs=len(yes) + len(no),
        n_videos=len(right),
        ci95=interval(np.array([np.mean(answers) for answers in right.values()])),
        positives_right=float(np.mean(yes)),
        negatives_right=float(np.mean(no)),
    )


@torch.inference_mode()
def pair_scores(
    model: L3Net,
    shards: Shards,
    mask: NDArray[np.bool_],
    pairs: int = 4000,
    seed: int = 0,
    progress: Progress = silent,
    answer: Answer | None = None,
    negatives: Negatives = "any",
) -> Scores:
    """The answers to the pairs of `evaluate`, before anybody says whether they are right."""
    answer = answer or (lambda vision, audio: correspondence_logit(model.fusion(vision, audio)))
    yes: list[NDArray[np.float32]] = []
    no: list[NDArray[np.float32]] = []
    videos: list[NDArray[Any]] = []
    for index, (batch, vision, audio) in enumerate(looked_and_listened(model, shards, mask, math.ceil(pairs / 2), seed, progress)):
        rows = np.arange(len(batch.labels))
        others = np.roll(rows, -1)
        if negatives == "other-class":
            rows, others = of_other_classes(batch.labels, np.random.default_rng((seed, index, 2)))
        for found, sounds in ((yes, rows), (no, others)):
            found.append(answer(vision[rows], audio[sounds]).float().cpu().numpy())
        videos.append(np.array(batch.video_ids)[rows])
    scores = Scores(np.concatenate(yes), np.concatenate(no), np.concatenate(videos))
    if not len(scores.videos):
        raise ConfigError(f"negatives of other classes need held-out clips of at least 2 labels; {shards.path} has none or one")
    return scores


def looked_and_listened(
    model: L3Net, shards: Shards, mask: NDArray[np.bool_], rows: int, seed: int, progress: Progress = silent
) -> Iterator[tuple[PairBatch, Float[Tensor, "batch *places features"], Float[Tensor, "batch *moments features"]]]:
    """At least `rows` moments of the clips that `mask` allows, with what the fusion reads of their frames and of their sounds.

    The network is in evaluation mode meanwhile. Raises ConfigError when fewer than two videos are allowed.
    """
    videos = len(np.unique(shards.video_ids[mask]))
    if videos < 2:
        raise ConfigError(f"correspondence needs at least 2 held-out videos for a negative pair; {shards.path} has {videos}")
    device = next(model.parameters()).device
    view = View(model.config.resize_pixels, model.config.crop_pixels, random=False, frames=model.config.frames_per_pair)
    # An epoch drops what does not fill a batch, so the batch is one that leaves little over.
    size = max(range(2, min(videos, MAX_BATCH) + 1), key=lambda size: (videos // size * size, size))
    stream = PairStream(shards, mask, size, seed, view)
    steps = math.ceil(rows / size)
    was_training = model.training
    model.eval()
    for done, batch in enumerate(stream.batches(0, steps), 1):
        yield batch, *model.fusion.read(model.look(batch.frames.to(device)), model.listen(batch.waveforms.to(device)))
        progress(done, steps)
    model.train(was_training)


def of_other_classes(labels: Sequence[str], rng: np.random.Generator) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
    """Rows, and for each the one of another class whose sound is its negative; every sound is taken once.

    So negatives are still the very frames and sounds of the positives. Rows without a label are left out, and so are, where more
    than half are of one class, those of it that would find no partner.
    """
    shuffled = rng.permutation(len(labels))
    rows = shuffled[np.array(labels)[shuffled] != ""]
    names, of_row, counts = np.unique(np.array(labels)[rows], return_inverse=True, return_counts=True)
    largest = int(counts.argmax()) if len(counts) else 0
    partners = len(rows) - int(counts.max(initial=0))
    kept = (of_row != largest) | (np.cumsum(of_row == largest) <= partners)
    rows, of_row = rows[kept], of_row[kept]
    # In blocks of a class each, in an order of chance: whoever stands a largest block further on is of another class.
    rows = rows[np.argsort(rng.permutation(len(names))[of_row], kind="stable")]
    return rows, np.roll(rows, -int(np.bincount(of_row).max(initial=0)))
