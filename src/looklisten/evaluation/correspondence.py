"""Audio-visual correspondence on held-out videos: how often the network is right, with an interval.

Knows shards and networks, no training.
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

from looklisten.data.pairs import FrameTransform, PairBatch, PairStream
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.held_out import clips_to_evaluate, network_of
from looklisten.evaluation.shared_files import SharedFiles, shared_files_of
from looklisten.evaluation.statistics import confidence_interval
from looklisten.inference.towers import listen, look
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run
from looklisten.option_checks import check_at_least
from looklisten.system.progress import Progress, no_progress

# The size decides which pairs a seed gives, so it is no option.
MAX_BATCH = 64

DEFAULT_PAIRS = 4000
PAIRS_PER_FRAME = 2
"""By default there are at most so many pairs for each stored frame, in the mean."""

PairScorer = Callable[[Tensor, Tensor], Tensor]
"""Inputs of the fusion from frames and from sounds, row by row -> a score for each pair, `[pairs]`.

A score above 0 says "yes, they correspond".
"""
Negatives = Literal["any", "other-class"]
"""A frame's negative is the sound of any other video, or of one with another label."""


@dataclass(frozen=True)
class CorrespondenceResult:
    """Accuracy of audio-visual correspondence; chance is 0.5.

    Pairs of one video are not independent, so intervals are over videos.
    """

    accuracy: float
    n_pairs: int
    n_videos: int
    ci95: tuple[float, float]
    positives_right: float
    negatives_right: float
    other_class: float | None = None
    """The accuracy with the same frames and sounds, where negatives are of other classes.

    A sound of the same class may well belong to a frame, so a network that knows classes is wrong
    about such negatives. None without labels of two classes.
    """
    other_class_ci95: tuple[float, float] | None = None
    interval_over: str = "videos"
    """What the intervals take as independent: videos, or the files that videos were composed of."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class PairScores:
    """Scores of pairs: row i is a frame of `videos[i]`, with its own sound and with another one."""

    positives: Float[np.ndarray, " rows"]
    negatives: Float[np.ndarray, " rows"]
    videos: NDArray[Any]
    negative_videos: NDArray[Any] | None = None
    """The video that the sound of each negative is of."""

    def right(self) -> NDArray[np.bool_]:
        """Whether each decision is right: those on positives, then those on negatives."""
        return np.concatenate([self.positives > 0, self.negatives <= 0])

    def confidence_interval(self, files: SharedFiles) -> tuple[float, float]:
        """The interval of the share of right decisions.

        Decisions on videos that share an image file or a sound file are not independent.
        """
        # Each frame and each sound is in two decisions: one positive and one negative.
        frame_videos = self.videos.tolist()
        sound_videos = frame_videos
        if self.negative_videos is not None:
            sound_videos = self.negative_videos.tolist()
        groups = files.groups(frame_videos + frame_videos, frame_videos + sound_videos)
        return confidence_interval(self.right(), groups)


def evaluate(
    network: L3Net | Run,
    shards: Shards | str | Path,
    pairs: int | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
    scorer: PairScorer | None = None,
    negatives: Negatives = "any",
    files: str | Path | None = None,
) -> CorrespondenceResult:
    """The accuracy of audio-visual correspondence on at least `pairs` pairs, half of them positive.

    By default they are 4,000, or two for each stored frame where there are fewer frames.

    Pairs are drawn as in training: the frame lies inside the second of sound, and negatives pair
    the same frames and sounds anew, always of different videos. Frames have a center crop and no
    color jitter. The same `seed` gives the same pairs. Where there are labels, the accuracy with
    negatives of other classes is measured too.

    Intervals are over videos. Videos that `synth` composed share image files and sound files, so
    their intervals are over those files. The labels.csv next to the videos names them.

    `network`: an opened run, or a plain network.
    `shards`: a folder or its shards, for the held-out videos of the run; or a selection of clips
        (`Shards.select`), which is taken as it is.
    `scorer`: scores the pairs; by default the network's fusion does.
    `files`: another table of the files that videos were composed of.

    Raises ConfigError for clips of fewer than two videos, and for clips of one class where
    negatives are to be of another.
    """
    check_at_least(1, pairs=pairs)
    check_at_least(0, seed=seed)
    model = network_of(network)
    clips = clips_to_evaluate(network, shards)
    if pairs is None:
        pairs = default_pairs(clips)
    # One pass over the videos gives both figures, of the same frames and sounds.
    kinds: tuple[Negatives, ...] = ("any", "other-class")
    scores_of_kind = _scores(model, clips, pairs, seed, progress, scorer, kinds)
    scores = _checked(scores_of_kind[negatives], clips)
    other_class = scores_of_kind["other-class"]
    has_classes = len(other_class.videos) > 0
    shared_files = shared_files_of(clips, files)
    return CorrespondenceResult(
        accuracy=float(np.mean(scores.right())),
        n_pairs=len(scores.right()),
        n_videos=len(np.unique(scores.videos)),
        ci95=scores.confidence_interval(shared_files),
        positives_right=float(np.mean(scores.positives > 0)),
        negatives_right=float(np.mean(scores.negatives <= 0)),
        other_class=float(np.mean(other_class.right())) if has_classes else None,
        other_class_ci95=other_class.confidence_interval(shared_files) if has_classes else None,
        interval_over=shared_files.interval_over,
    )


def default_pairs(clips: Shards) -> int:
    """`DEFAULT_PAIRS`, or two for each stored frame of `clips` if that is less."""
    frames = 0
    for clip in range(len(clips)):
        frames += len(clips.frame_seconds(clip))
        if frames * PAIRS_PER_FRAME >= DEFAULT_PAIRS:
            return DEFAULT_PAIRS
    return frames * PAIRS_PER_FRAME


def score_pairs(
    model: L3Net,
    clips: Shards,
    pairs: int = DEFAULT_PAIRS,
    seed: int = 0,
    progress: Progress = no_progress,
    scorer: PairScorer | None = None,
    negatives: Negatives = "any",
) -> PairScores:
    """The scores of the pairs of `evaluate`."""
    scores_of_kind = _scores(model, clips, pairs, seed, progress, scorer, (negatives,))
    return _checked(scores_of_kind[negatives], clips)


def _checked(scores: PairScores, clips: Shards) -> PairScores:
    if not len(scores.videos):
        raise ConfigError(
            "negatives of other classes need held-out clips of at least 2 labels; "
            f"{clips.path} has none or one"
        )
    return scores


@torch.inference_mode()
def _scores(
    model: L3Net,
    clips: Shards,
    pairs: int,
    seed: int,
    progress: Progress,
    scorer: PairScorer | None,
    kinds: Sequence[Negatives],
) -> dict[Negatives, PairScores]:
    """The scores for each kind of negatives, from one pass over the videos.

    A kind for which no row has a partner has empty scores.
    """
    if scorer is None:
        scorer = fusion_scorer(model)
    parts: dict[Negatives, list[PairScores]] = {kind: [] for kind in kinds}
    batches = fusion_inputs(model, clips, math.ceil(pairs / 2), seed, progress)
    for index, (batch, vision, audio) in enumerate(batches):
        videos = np.array(batch.video_ids)
        for kind in kinds:
            rows = np.arange(len(batch.labels))
            # All rows of a batch are of different videos.
            partners = np.roll(rows, -1)
            if kind == "other-class":
                # By the batch's own number, so that the other kind of negatives changes nothing.
                rng = np.random.default_rng((seed, index, 2))
                rows, partners = pair_with_other_classes(batch.labels, rng)
            if not len(rows):
                continue
            positives = scorer(vision[rows], audio[rows]).float().cpu().numpy()
            negatives = scorer(vision[rows], audio[partners]).float().cpu().numpy()
            parts[kind].append(PairScores(positives, negatives, videos[rows], videos[partners]))
    return {kind: _concatenate(scores) for kind, scores in parts.items()}


def fusion_scorer(model: L3Net) -> PairScorer:
    """Scores pairs by the log-odds of the network's own fusion."""
    return lambda vision, audio: model.log_odds(model.fusion(vision, audio))


def _concatenate(parts: Sequence[PairScores]) -> PairScores:
    if not parts:
        no_scores = np.zeros(0, np.float32)
        no_videos = np.zeros(0, np.str_)
        return PairScores(no_scores, no_scores, no_videos, no_videos)
    columns = {}
    for field in fields(PairScores):
        column = [getattr(part, field.name) for part in parts]
        columns[field.name] = np.concatenate(column)
    return PairScores(**columns)


def fusion_inputs(
    model: L3Net, clips: Shards, rows: int, seed: int, progress: Progress = no_progress
) -> Iterator[
    tuple[
        PairBatch,
        Float[Tensor, "batch *places vision_features"],
        Float[Tensor, "batch *moments audio_features"],
    ]
]:
    """Batches of at least `rows` moments in all, with what the fusion reads: of frames, of sounds.

    The network is in evaluation mode meanwhile. Raises ConfigError for clips of fewer than two
    videos.
    """
    videos = len(np.unique(clips.video_ids))
    if videos < 2:
        raise ConfigError(
            "correspondence needs at least 2 held-out videos for a negative pair; "
            f"{clips.path} has {videos}"
        )
    device = next(model.parameters()).device
    transform = FrameTransform(
        model.config.resize_pixels,
        model.config.crop_pixels,
        random=False,
        frames=model.config.frames_per_pair,
        fit=model.config.frame_fit,
    )
    stream = PairStream(clips, batch_size_for(videos), seed, transform)
    steps = math.ceil(rows / stream.batch_size)
    # Training measures its network between two steps.
    was_training = model.training
    model.eval()
    for step, batch in enumerate(stream.batches(0, steps), 1):
        vision = look(model, batch.frames.to(device))
        audio = listen(model, batch.waveforms.to(device))
        yield (batch, *model.fusion.features(vision, audio))
        progress(step, steps)
    model.train(was_training)


def batch_size_for(videos: int) -> int:
    """The size that leaves out the fewest videos: an epoch drops what does not fill a batch."""
    sizes = range(2, min(videos, MAX_BATCH) + 1)
    return max(sizes, key=lambda size: (videos // size * size, size))


def pair_with_other_classes(
    labels: Sequence[str], rng: np.random.Generator
) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
    """Rows, and for each its partner: a row of another class whose sound makes the negative.

    Each sound is taken once, so negatives have the very frames and sounds of the positives. Rows
    without a label are left out. Where more than half are of one class, the rows of it that find no
    partner are left out too.
    """
    shuffled = rng.permutation(len(labels))
    rows = shuffled[np.array(labels)[shuffled] != ""]
    classes, class_of_row, counts = np.unique(
        np.array(labels)[rows], return_inverse=True, return_counts=True
    )
    largest = int(counts.argmax()) if len(counts) else 0
    partners = len(rows) - int(counts.max(initial=0))
    # Rows of the largest class have as many partners as there are rows of other classes.
    in_largest = class_of_row == largest
    has_partner = ~in_largest | (np.cumsum(in_largest) <= partners)
    rows = rows[has_partner]
    class_of_row = class_of_row[has_partner]
    # Sorted by class, with the classes in random order, a row that lies as far on as the largest
    # class has rows is of another class.
    class_order = rng.permutation(len(classes))
    rows = rows[np.argsort(class_order[class_of_row], kind="stable")]
    return rows, np.roll(rows, -int(np.bincount(class_of_row).max(initial=0)))
