"""An index of moments that was opened for searching."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float

from looklisten.errors import OptionError, StoreError
from looklisten.media.spectrogram import WINDOW_SECONDS
from looklisten.model.networks import Run, open_network
from looklisten.names import printable
from looklisten.option_checks import check_at_least
from looklisten.search.finding.hits import NEAREST_SHOWN, Hit, Hits, ScoredMoment, fold_scenes
from looklisten.search.finding.query import SIDES_OF, Direction, Query, directions, read_query
from looklisten.search.finding.score_calibration import ScoreCurve, curves_of_json
from looklisten.search.finding.thumbnail_maps import thumbnail_map
from looklisten.search.indexing.index_folder import IndexFolder
from looklisten.search.indexing.moment_encoder import MomentEncoder
from looklisten.search.indexing.own_classes import read_own_classes
from looklisten.search.opening import open_store
from looklisten.search.options import FindSide, SearchChoices, SearchOptions
from looklisten.search.store import StoreStats

DEFAULT_SCENES = 10
DEFAULT_THRESHOLD = 0.6
"""Of the scores of similarities. A higher one loses more right scenes than it keeps wrong ones out
(LOG.md)."""
DEFAULT_TAG_THRESHOLD = 0.2
FIRST_MOMENTS_PER_SCENE = 10
"""So many times `k` moments are asked for first; neighbors of one scene take several."""


class Index:
    """An index of moments, as `looklisten.open_index` gives it."""

    def __init__(self, db: str | Path, network: Run | str | Path | None, device: str) -> None:
        self._folder = IndexFolder(Path(db))
        self._store = open_store(self._folder.path)
        self._facts = self._folder.facts()
        self._network = network
        self._device = device

    def __repr__(self) -> str:
        stats = self.stats()
        return f"Index({str(self._folder.path)!r}, {stats.moments:,} moments)"

    @property
    def path(self) -> Path:
        """The folder of the index."""
        return self._folder.path

    @property
    def thumbnails(self) -> Path:
        """The folder that names of thumbnails start from."""
        return self._folder.thumbnails

    @cached_property
    def encoder(self) -> MomentEncoder:
        """The network that made the index, which turns a query into vectors.

        It is opened on first use; a search by tag needs none. Raises StoreError if its weights are
        not those that made the index.
        """
        network = self._network or self._facts.get("network")
        if network is None:
            raise StoreError(
                f"{self.path} does not say which network made it; name it with --checkpoint"
            )
        run = network if isinstance(network, Run) else open_network(network, self._device)
        if run.network_key != self._store.space_id:
            raise StoreError(
                f"the index {printable(self.path)} was made by another network than {run.name} is "
                "now; name the one that made it with --checkpoint, or index into another folder"
            )
        return MomentEncoder(run.l3net, with_tags=False)

    def stats(self) -> StoreStats:
        """What the index holds."""
        return self._store.stats()

    def tags(self) -> list[str]:
        """The names that some moment has as a tag."""
        return self._store.tags()

    def search(
        self,
        query: str | Path | None = None,
        tag: str | None = None,
        k: int = DEFAULT_SCENES,
        options: SearchOptions | None = None,
        **choices: Unpack[SearchChoices],
    ) -> Hits:
        """The at most `k` scenes that are most like a query, best first.

        `query`: a sound, a picture or a video, or `FILE@SECONDS` for one second of it. `tag`:
        instead, the name of a class. `choices` are fields of `SearchOptions`. Raises SourceError
        for a query that cannot be read, OptionError for an unknown tag or a filter.
        """
        check_at_least(1, k=k)
        options = replace(options or SearchOptions(), **choices)
        if (query is None) == (tag is None):
            raise OptionError("give one query: a file, or a tag", "")
        if tag is not None:
            return self._search_tag(tag, k, options)
        assert query is not None
        return self.search_vectors(read_query(query, self.encoder), k, options)

    def search_vectors(self, query: Query, k: int, options: SearchOptions) -> Hits:
        """The scenes that are most like a query that was read already."""
        threshold = DEFAULT_THRESHOLD if options.threshold is None else options.threshold
        pairs = directions(query, options.find, options.by)
        if not pairs:
            side = "sound or picture" if options.by == "auto" else options.by
            reason = f"the query holds no {side} to compare, only silence, noise or one color"
            return Hits(query.name, (), (), threshold, reason)

        def moments(limit: int) -> list[ScoredMoment]:
            return self._most_similar(query, pairs, limit, options.where)

        return self._hits(query.name, moments, k, threshold)

    def _most_similar(
        self, query: Query, pairs: Sequence[Direction], limit: int, where: str | None
    ) -> list[ScoredMoment]:
        """The best moments of each direction; a moment of both has its better score."""
        best: dict[tuple[str, str], ScoredMoment] = {}
        for direction in pairs:
            query_side, side = direction
            for found_moment in self._store.search(query.vectors[query_side], side, limit, where):
                similarity = found_moment.similarity
                score = self._score(direction, similarity)
                moment = found_moment.moment
                key = moment.source, moment.moment_id
                if key not in best or score > best[key].score:
                    best[key] = ScoredMoment(moment, score, similarity, side)
        return list(best.values())

    def _hits(
        self,
        name: str,
        moments: Callable[[int], list[ScoredMoment]],
        k: int,
        threshold: float,
    ) -> Hits:
        """The best `k` scenes; `moments` gives so many moments, best first, or all there are."""
        limit = FIRST_MOMENTS_PER_SCENE * k
        while True:
            scored = moments(limit)
            scenes = fold_scenes(
                [each for each in scored if each.score >= threshold],
                self.every_seconds,
                WINDOW_SECONDS,
            )
            is_all = len(scored) < limit or min(each.score for each in scored) < threshold
            if len(scenes) >= k or is_all:
                break
            limit *= 4
        if scenes:
            return Hits(name, tuple(scenes[:k]), (), threshold, "")
        nearest = fold_scenes(scored, self.every_seconds, WINDOW_SECONDS)[:NEAREST_SHOWN]
        reason = self._nothing(nearest, threshold)
        return Hits(name, (), tuple(nearest), threshold, reason)

    @staticmethod
    def _nothing(nearest: Sequence[Hit], threshold: float) -> str:
        if not nearest:
            return "no moment of the index can be compared with the query"
        return f"nothing reaches the score {threshold:g}; the nearest has {nearest[0].score:.2f}"

    @property
    def every_seconds(self) -> float:
        """The time from one moment to the next."""
        return float(self._facts.get("every_seconds", 1.0))

    @cached_property
    def _curves(self) -> dict[Direction, ScoreCurve]:
        return curves_of_json(self._facts.get("score_curves", {}))

    def _score(self, direction: Direction, similarity: float) -> float:
        curve = self._curves.get(direction)
        if curve is not None:
            return curve.score(similarity)
        # An index of few videos has no curve; then the network answers, as for a pair.
        network = self.encoder.network
        with torch.inference_mode():
            logits = network.fusion.similarity_logits(torch.tensor(similarity))
            return float(torch.sigmoid(network.log_odds(logits)))

    def _search_tag(self, tag: str, k: int, options: SearchOptions) -> Hits:
        threshold = DEFAULT_TAG_THRESHOLD if options.threshold is None else options.threshold
        names = self._tag_names(tag, options.find)

        def moments(limit: int) -> list[ScoredMoment]:
            best: dict[tuple[str, str], ScoredMoment] = {}
            for name in names:
                for found_moment in self._store.find_tag(name, limit, options.where):
                    key = found_moment.moment.source, found_moment.moment.moment_id
                    score = found_moment.similarity
                    if key not in best or score > best[key].score:
                        best[key] = ScoredMoment(found_moment.moment, score, score, None)
            return list(best.values())

        return self._hits(tag, moments, k, threshold)

    def _tag_names(self, tag: str, find: FindSide) -> list[str]:
        """The classes that `tag` means, in any case; a class may have several names.

        Raises OptionError for a name that no class has.
        """
        known = self.classes(find)
        if not known:
            raise OptionError(
                f"the index {printable(self.path)} has no tags, because its network has no "
                "published classes; search with a sound, a picture or a video",
                "tag",
            )
        names = [name for name in known if tag.casefold() in class_spellings(name)]
        if names:
            return names
        all_spellings = {spelling: name for name in known for spelling in class_spellings(name)}
        close = difflib.get_close_matches(tag.casefold(), all_spellings, n=3)
        containing = [text for text in all_spellings if tag.casefold() in text]
        suggested = dict.fromkeys(all_spellings[text] for text in [*close, *containing])
        advice = f"similar: {'; '.join(list(suggested)[:5])}" if suggested else "see Index.classes"
        raise OptionError(f"tag {printable(tag)!r} is no class of this network; {advice}", "tag")

    def thumbnail_map(self, scene: Hit) -> Float[np.ndarray, "rows columns"] | None:
        """Where in the frame of a scene's best moment its own sound comes from, 0..1.

        None where the moment lacks a frame or sound, and for networks without such maps.
        """
        if scene.thumbnail is None:
            return None
        quoted = scene.source.replace("'", "''")
        where = f"source = '{quoted}' AND seconds = {scene.seconds!r}"
        moment = next(self._store.moments(where), None)
        if moment is None or moment.audio is None:
            return None
        jpeg = (self.thumbnails / scene.thumbnail).read_bytes()
        return thumbnail_map(self.encoder, jpeg, moment.audio)

    def classes(self, find: FindSide = "both") -> list[str]:
        """All names that a tag can have: published classes of sound and of pictures, own ones."""
        names = self.published_classes(find)
        for layer in read_own_classes(self.path).values():
            names += layer.classes[:-1]
        return names

    def published_classes(self, find: FindSide = "both") -> list[str]:
        """The classes that the towers of the network were published with."""
        names_of_side: dict[str, list[str]] = self._facts.get("classes", {})
        return [name for side in SIDES_OF[find] for name in names_of_side.get(side, [])]

    def close(self) -> None:
        """Close the files of the index."""
        self._store.close()

    def __enter__(self) -> "Index":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_index(
    db: str | Path, network: Run | str | Path | None = None, device: str = "auto"
) -> Index:
    """The index in the folder `db`, which `index` wrote, for searching.

    `network`: the one that made the index, where it is not found under its name any more. Raises
    StoreError where there is no index.
    """
    return Index(db, network, device)


def class_spellings(name: str) -> set[str]:
    """A class and its synonyms in lower case: "Violin, fiddle" is also "violin" and "fiddle"."""
    lower = name.casefold()
    without_note = lower.partition(" (")[0]
    return {lower, without_note, *without_note.split(", ")}
