"""What a search gives: scenes with scores, and a sentence when nothing was found. Knows numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from looklisten.config import Side
from looklisten.search.moments import IndexedMoment

NEAREST_SHOWN = 3
"""So many scenes below the threshold are given when nothing was found."""
TIME_ROUNDING_SECONDS = 0.002
"""Times of moments are rounded to 1 ms, so two of them may be this much further apart."""


@dataclass(frozen=True, eq=False)
class ScoredMoment:
    """A moment that was compared with the query."""

    moment: IndexedMoment
    score: float
    similarity: float
    side: Side | None
    """The side of the moment that matched; None for a tag."""


@dataclass(frozen=True)
class Hit:
    """Neighboring moments of one source that match."""

    source: str
    seconds: float
    """Where the best moment begins; a player jumps to it."""
    start_seconds: float
    end_seconds: float
    score: float
    """From 0 to 1: how likely the match is, or the score of the tag."""
    similarity: float
    """The cosine of the angle to the query, or the score of the tag."""
    matched: str
    """What of the moment matched: sound, picture or tag."""
    label: str | None
    tags: dict[str, float]
    marks: tuple[str, ...]
    thumbnail: str | None
    """The name of a file in the folder `thumbnails` of the index."""


@dataclass(frozen=True)
class Hits(Sequence[Hit]):
    """The scenes that a search found, best first."""

    query: str
    scenes: tuple[Hit, ...]
    nearest: tuple[Hit, ...]
    """The best scenes below the threshold, when nothing was found."""
    threshold: float
    reason: str
    """A sentence that says why nothing was found; empty where something was."""

    @property
    def nothing_found(self) -> bool:
        """Whether no scene reaches the threshold."""
        return not self.scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, number: Any) -> Any:
        return self.scenes[number]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.scenes)

    def as_dict(self) -> dict[str, Any]:
        """The values that the command line prints."""
        return {
            "query": self.query,
            "nothing_found": self.nothing_found,
            "threshold": self.threshold,
            "reason": self.reason,
            "hits": [asdict(scene) for scene in self.scenes],
            "nearest": [asdict(scene) for scene in self.nearest],
        }


def fold_scenes(
    moments: Sequence[ScoredMoment], every_seconds: float, window_seconds: float
) -> list[Hit]:
    """Scenes of moments that follow each other in one source, best first.

    Two moments are of one scene if at most one moment lies between them. The scene has the score of
    its best moment.
    """
    by_source: dict[str, list[ScoredMoment]] = {}
    for scored in moments:
        by_source.setdefault(scored.moment.source, []).append(scored)
    reach_seconds = 2 * every_seconds + TIME_ROUNDING_SECONDS
    scenes = []
    for group in by_source.values():
        group.sort(key=lambda scored: scored.moment.seconds)
        chain: list[ScoredMoment] = []
        for scored in group:
            if chain and scored.moment.seconds - chain[-1].moment.seconds > reach_seconds:
                scenes.append(_scene(chain, window_seconds))
                chain = []
            chain.append(scored)
        # No moment follows the last chain of a source and ends it.
        scenes.append(_scene(chain, window_seconds))
    scenes.sort(key=lambda scene: (-scene.score, -scene.similarity, scene.source, scene.seconds))
    return scenes


def _scene(chain: Sequence[ScoredMoment], window_seconds: float) -> Hit:
    best = max(chain, key=lambda scored: (scored.score, scored.similarity))
    moment = best.moment
    names: dict[Side | None, str] = {"audio": "sound", "vision": "picture", None: "tag"}
    return Hit(
        source=moment.source,
        seconds=moment.seconds,
        start_seconds=chain[0].moment.seconds,
        end_seconds=round(chain[-1].moment.seconds + window_seconds, 3),
        score=round(best.score, 4),
        similarity=round(best.similarity, 4),
        matched=names[best.side],
        label=moment.label,
        tags=dict(moment.tags),
        marks=moment.marks,
        thumbnail=moment.thumbnail,
    )
