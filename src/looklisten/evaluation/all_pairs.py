"""Every frame with every sound of other videos: how well a network tells its own sound from them.

Knows shards and networks, no training.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.comparison import (
    ComparedMoments,
    PairComparison,
    compare_in_blocks,
    fusion_comparison,
    project_moments,
)
from looklisten.evaluation.held_out import clips_to_evaluate, network_of
from looklisten.evaluation.other_sounds import SoundRow, matrix_rows, other_sound_rows
from looklisten.evaluation.ranking import Ranking, ScoreMatrix, rank
from looklisten.evaluation.shared_files import NO_SHARED_FILES, SharedFiles, shared_files_of
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run
from looklisten.system.progress import Progress, no_progress

COMPARED_PER_CLIP = 10
"""Moments of each clip, or fewer where they would overlap by more than three quarters."""
MAX_MOMENTS = 3000
"""More moments than this are sampled, so that time and memory are bounded."""

_log = logging.getLogger("looklisten")


@dataclass(frozen=True, eq=False)
class AllPairs:
    """The figures of every frame with every sound of other videos; chance is 0.5."""

    ranking: Ranking
    sounds: tuple[SoundRow, ...]
    moments: int
    clips: int
    videos: int
    notes: tuple[str, ...]
    """What was left out."""

    def as_dict(self) -> dict[str, Any]:
        ranking = self.ranking
        return {
            "one_of_two": ranking.one_of_two.value,
            "one_of_two_ci95": ranking.one_of_two.ci95(),
            "auc": ranking.auc.value,
            "auc_ci95": ranking.auc.ci95(),
            "accuracy": ranking.accuracy.value,
            "accuracy_ci95": ranking.accuracy.ci95(),
            "moments": self.moments,
            "clips": self.clips,
            "videos": self.videos,
            "sounds": [vars(row) for row in self.sounds],
            "notes": list(self.notes),
        }


def all_pairs(
    network: L3Net | Run,
    shards: Shards | str | Path,
    per_clip: int = COMPARED_PER_CLIP,
    seed: int = 0,
    progress: Progress = no_progress,
    comparison: PairComparison | None = None,
    files: str | Path | None = None,
) -> AllPairs:
    """Compare every frame with every sound of other videos, with mixtures, noise and silence.

    Up to `per_clip` seconds of each clip are taken, evenly spread, each with the frame nearest to
    its middle. Of more than 3,000 moments a sample is taken, which the notes tell. Intervals are
    over videos, or over the files that videos were composed of, as those of `evaluate`.

    `network`: an opened run, or a plain network.
    `shards`: a folder or its shards, for the held-out videos of the run; or a selection of clips
        (`Shards.select`), which is taken as it is.
    `seed`: draws the noise, the sounds that are mixed in, and the sample.
    `comparison`: scores the pairs; by default the network's fusion does.
    `files`: another table of the files that videos were composed of.

    Raises ConfigError for clips of fewer than two videos.
    """
    model = network_of(network)
    clips = clips_to_evaluate(network, shards)
    shared_files = shared_files_of(clips, files)
    clips, per_clip, notes = sampled(clips, per_clip, seed)
    for note in notes:
        _log.warning("%s", note)
    # Training measures its network between two steps.
    was_training = model.training
    model.eval()
    comparison = comparison or fusion_comparison(model)
    moments = project_moments(model, comparison, clips, per_clip, progress)
    matrix = _matrix(comparison, moments, shared_files)
    ranking = rank(matrix)
    rows = list(matrix_rows(matrix, ranking))
    rows += other_sound_rows(model, comparison, clips, moments, matrix.matched, seed, shared_files)
    model.train(was_training)
    return AllPairs(
        ranking=ranking,
        sounds=tuple(rows),
        moments=len(matrix.videos),
        clips=len(clips),
        videos=len(np.unique(matrix.videos)),
        notes=notes,
    )


def score_matrix(
    network: L3Net | Run,
    shards: Shards | str | Path,
    per_clip: int = COMPARED_PER_CLIP,
    seed: int = 0,
    progress: Progress = no_progress,
    comparison: PairComparison | None = None,
) -> ScoreMatrix:
    """The scores of every frame with every sound; takes and raises what `all_pairs` does."""
    model = network_of(network)
    clips = clips_to_evaluate(network, shards)
    clips, per_clip, _ = sampled(clips, per_clip, seed)
    was_training = model.training
    model.eval()
    comparison = comparison or fusion_comparison(model)
    matrix = _matrix(comparison, project_moments(model, comparison, clips, per_clip, progress))
    model.train(was_training)
    return matrix


def _matrix(
    comparison: PairComparison, moments: ComparedMoments, files: SharedFiles = NO_SHARED_FILES
) -> ScoreMatrix:
    scores = compare_in_blocks(comparison, moments.vision, moments.audio)
    videos = moments.videos.tolist()
    return ScoreMatrix(scores, moments.videos, files.groups(videos, videos))


def sampled(
    clips: Shards, per_clip: int, seed: int, max_moments: int = MAX_MOMENTS
) -> tuple[Shards, int, tuple[str, ...]]:
    """Clips and moments of each, at most `max_moments` in all, and what there is to say of it.

    Raises ConfigError for clips of fewer than two videos.
    """
    videos = len(np.unique(clips.video_ids))
    if videos < 2:
        raise ConfigError(
            "correspondence needs at least 2 held-out videos for a mismatched pair; "
            f"{clips.path} has {videos}"
        )
    if len(clips) * per_clip <= max_moments:
        return clips, per_clip, ()
    fewer = max(max_moments // len(clips), 1)
    note = f"{fewer} instead of {per_clip} moments of each clip are compared"
    chosen = clips
    if len(clips) > max_moments:
        mask = np.zeros(len(clips), dtype=bool)
        mask[np.random.default_rng(seed).permutation(len(clips))[:max_moments]] = True
        chosen = clips.select(mask)
        note = f"one moment of each of {max_moments:,} clips out of {len(clips):,} is compared"
    return chosen, fewer, (f"{note}, because all pairs of more than {max_moments:,} take long",)
