"""How well the sounds of held-out clips find frames, and frames sounds. Knows shards and networks.

`retrieval` computes the figures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from looklisten.data.clips import Clip
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.held_out import network_of
from looklisten.evaluation.retrieval import (
    LEAST_RETRIEVAL_VIDEOS,
    Retrieval,
    retrieval_of_vectors,
)
from looklisten.evaluation.shared_files import shared_files_of
from looklisten.inference.moments import MomentVectors, embed_clips_aligned
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run
from looklisten.system.progress import Progress, no_progress

FOUND_PER_QUERY = 5
"""Clips that a search returns."""


@dataclass(frozen=True)
class FoundFrame:
    """A frame that a search returns: the most similar one of its clip."""

    clip: int
    """The number of the clip among those that were searched."""
    moment: int
    """The number of the moment among those of the clip."""
    similarity: float


@dataclass(frozen=True)
class SoundSearch:
    """A search with one second of sound."""

    clip: int
    """The number of the clip that the sound is of."""
    moment: int
    """The number of the moment among those of the clip."""
    frames: tuple[FoundFrame, ...]
    """The most similar one first."""


@dataclass(frozen=True)
class ClipRetrieval:
    """The figures of both directions, sound to frame and frame to sound, and some searches."""

    directions: tuple[Retrieval, Retrieval]
    searches: tuple[SoundSearch, ...]

    def as_dict(self) -> dict[str, Any]:
        """All values, with lists in place of tuples."""
        return {
            "directions": [direction.as_dict() for direction in self.directions],
            "searches": [asdict(search) for search in self.searches],
        }


def retrieval_of_clips(
    network: L3Net | Run,
    clips: Shards,
    per_clip: int,
    query_clips: Sequence[int] = (),
    progress: Progress = no_progress,
) -> ClipRetrieval:
    """Search with the sounds and the frames of `per_clip` moments of each held-out clip.

    `query_clips`: numbers of clips. For each, the search with its middle sound is returned.

    Raises ConfigError for a network without a vector of a whole frame, for fewer than two videos,
    and for a clip that is shorter than a second.
    """
    videos = clips.video_ids
    if len(set(videos.tolist())) < LEAST_RETRIEVAL_VIDEOS:
        raise ConfigError(f"retrieval needs clips of {LEAST_RETRIEVAL_VIDEOS} videos")

    def with_progress() -> Iterator[Clip]:
        for number, clip in enumerate(clips, 1):
            progress(number, len(clips))
            yield clip

    vectors = embed_clips_aligned(network_of(network).eval(), with_progress(), per_clip)
    directions = retrieval_of_vectors(
        vectors.audio,
        vectors.vision,
        videos[vectors.clips].tolist(),
        clips.names[vectors.clips].tolist(),
        shared_files_of(clips),
    )
    searches = tuple(_search_with_middle(vectors, clip) for clip in query_clips)
    return ClipRetrieval(directions, searches)


def _search_with_middle(vectors: MomentVectors, clip: int) -> SoundSearch:
    """Search with the sound in the middle of a clip."""
    rows_of_clip = np.flatnonzero(vectors.clips == clip)
    middle = len(rows_of_clip) // 2
    similarities = vectors.vision @ vectors.audio[rows_of_clip[middle]]
    return SoundSearch(clip, middle, tuple(_nearest(vectors, similarities)))


def _nearest(
    vectors: MomentVectors, similarities: Float[np.ndarray, " moments"]
) -> list[FoundFrame]:
    """The most similar frame of each of the nearest clips."""
    nearest: dict[int, FoundFrame] = {}
    for row in np.argsort(-similarities).tolist():
        clip = int(vectors.clips[row])
        # The rows come from the most similar on, so a later frame of this clip is less similar.
        if clip in nearest:
            continue
        # The rows of a clip are next to each other, in the order of clips.
        first_row = int(np.searchsorted(vectors.clips, clip))
        nearest[clip] = FoundFrame(clip, row - first_row, round(float(similarities[row]), 4))
        if len(nearest) == FOUND_PER_QUERY:
            break
    return list(nearest.values())
