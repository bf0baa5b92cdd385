"""An index of moments that was opened for searching."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float

from looklisten.errors import OptionError, StoreError
from looklisten.media.spectrogram import WINDOW_SECONDS
from looklisten.model.networks import Run, open_network
from looklisten.names import encode_name, printable
from looklisten.option_checks import check_at_least
from looklisten.search.filters import text_literal
from looklisten.search.finding.hits import NEAREST_SHOWN, Hit, Hits, ScoredMoment, fold_scenes
from looklisten.search.finding.query import (
    SIDE_NAMES,
    SIDES_OF,
    Direction,
    Query,
    directions,
    read_query,
    text_query,
)
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
MOST_MOMENTS_OF_SCENES = 10_000


class Ranked:
    """The best moments of one or several rankings, each at most `limit` long."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._best: dict[tuple[str, str], ScoredMoment] = {}
        self.cut_score = 0.0
        """Moments with a higher score are all here; 0 where no ranking was cut at its limit."""

    def add(self, ranking: Sequence[ScoredMoment]) -> None:
        """Add a ranking, best first; a moment of several has its highest score."""
        for scored in ranking:
            key = scored.moment.source, scored.moment.moment_id
            if key not in self._best or scored.score > self._best[key].score:
                self._best[key] = scored
        if len(ranking) >= self._limit:
            self.cut_score = max(self.cut_score, ranking[-1].score)

    @property
    def moments(self) -> list[ScoredMoment]:
        return list(self._best.values())


Rank = Callable[[int, str | None], Ranked]
"""From how many moments of each ranking, and a filter, to the rankings."""


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
        return MomentEncoder(run.network, with_tags=False)

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
        text: str | None = None,
        **choices: Unpack[SearchChoices],
    ) -> Hits:
        """The at most `k` scenes that are most like a query, best first.

        `query`: a sound, a picture or a video, or `FILE@SECONDS` for one second of it. `tag`:
        instead, the name of a class. `text`: instead, words, for a network with vectors of texts;
        their score is (1 + cosine) / 2, and by default the best are given, whatever their score.
        `choices` are fields of `SearchOptions`.
        Raises SourceError for a query that cannot be read, OptionError for an unknown tag or a
        filter, ConfigError for a text that the network has no vector of.
        """
        check_at_least(1, k=k)
        options = replace(options or SearchOptions(), **choices)
        if sum(each is not None for each in (query, tag, text)) != 1:
            raise OptionError("give one query: a file, a tag, or a text", "")
        if text is not None:
            return self.search_vectors(text_query(text, self.encoder), k, options)
        if tag is not None:
            return self._search_tag(tag, k, options)
        assert query is not None
        return self.search_vectors(read_query(query, self.encoder), k, options)

    def search_vectors(self, query: Query, k: int, options: SearchOptions) -> Hits:
        """The scenes that are most like a query that was read already."""
        # How similar a text must be, no pair of an index tells.
        default = 0.0 if query.is_text else DEFAULT_THRESHOLD
        threshold = default if options.threshold is None else options.threshold
        pairs = directions(query, options.find, options.by)
        if not pairs:
            side = "sound or picture" if options.by == "auto" else options.by
            reason = f"the query holds no {side} to compare, only silence, noise, hum or one color"
            if query.is_text:
                reason = f"this network has no vectors of a {options.find}"
            return Hits(query.name, (), (), threshold, reason)

        def rank(limit: int, where: str | None) -> Ranked:
            return self._most_similar(query, pairs, limit, where)

        needed_content = " or ".join(sorted(SIDE_NAMES[side] for _, side in pairs))
        return self._hits(query.name, rank, k, threshold, options.where, needed_content)

    def _most_similar(
        self,
        query: Query,
        pairs: Sequence[Direction],
        limit: int,
        where: str | None,
    ) -> Ranked:
        """The best moments of each direction; a moment of both has its better score."""
        ranked = Ranked(limit)
        for direction in pairs:
            query_side, side = direction
            vector = query.vectors[query_side]
            scored = []
            for each in self._store.search(vector, side, limit, where):
                # Of words the cosine alone, without ties below 0: scores are from 0 to 1.
                score = (1 + each.similarity) / 2
                if not query.is_text:
                    score = self._score(direction, each.similarity)
                scored.append(ScoredMoment(each.moment, score, each.similarity, side))
            ranked.add(scored)
        return ranked

    def _hits(
        self,
        name: str,
        rank: Rank,
        k: int,
        threshold: float,
        where: str | None,
        needed_content: str,
    ) -> Hits:
        """The best `k` scenes; `needed_content` says what a moment needs to be compared at all."""
        limit = FIRST_MOMENTS_PER_SCENE * k
        while True:
            ranked = rank(limit, where)
            has_all = ranked.cut_score < threshold or not ranked.cut_score
            moments = ranked.moments if has_all else self._all_of_sources(ranked, rank, where)
            above = [each for each in moments if each.score >= threshold]
            scenes = fold_scenes(above, self.every_seconds, WINDOW_SECONDS)
            # A scene below the cut may be behind one of a source that is not here yet.
            certain = [scene for scene in scenes if scene.score >= ranked.cut_score]
            if len(certain) >= k or has_all:
                break
            # Long scenes took most of the `limit` moments, so fewer than `k` scenes are certain.
            limit *= 4
        if scenes:
            return Hits(name, tuple(scenes[:k]), (), threshold, "")
        nearest = fold_scenes(moments, self.every_seconds, WINDOW_SECONDS)[:NEAREST_SHOWN]
        if nearest:
            score = nearest[0].score
            reason = f"nothing reaches the score {threshold:g}; the nearest has {score:.2f}"
        else:
            suffix = "" if where is None else " and matches the filter"
            reason = f"no moment of the index has {needed_content}{suffix}"
        return Hits(name, (), tuple(nearest), threshold, reason)

    @staticmethod
    def _all_of_sources(ranked: Ranked, rank: Rank, where: str | None) -> list[ScoredMoment]:
        """All moments of the sources of a ranking; without them, a scene would have gaps."""
        sources = sorted({each.moment.source for each in ranked.moments})
        of_sources = f"source IN ({', '.join(map(text_literal, sources))})"
        condition = of_sources if where is None else f"({where}) AND {of_sources}"
        return rank(MOST_MOMENTS_OF_SCENES, condition).moments

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
        if network is None:
            return max(similarity, 0.0)
        with torch.inference_mode():
            logits = network.fusion.similarity_logits(torch.tensor(similarity))
            return float(torch.sigmoid(network.log_odds(logits)))

    def _search_tag(self, tag: str, k: int, options: SearchOptions) -> Hits:
        threshold = DEFAULT_TAG_THRESHOLD if options.threshold is None else options.threshold
        tag = encode_name(tag)
        names = self._tag_names(tag, options.find)

        def rank(limit: int, where: str | None) -> Ranked:
            ranked = Ranked(limit)
            for name in names:
                ranked.add(
                    [
                        ScoredMoment(each.moment, each.similarity, each.similarity, None)
                        for each in self._store.find_tag(name, limit, where)
                    ]
                )
            return ranked

        needed_content = f"the tag {' or '.join(names)}"
        return self._hits(tag, rank, k, threshold, options.where, needed_content)

    def _tag_names(self, tag: str, find: FindSide) -> list[str]:
        """The classes that `tag` means, in any case; a class may have several names.

        Raises OptionError for a name that no class has.
        """
        known = self.classes(find)
        if not known:
            raise OptionError(
                f"the index {printable(self.path)} has no tags, because its network has no "
                "published classes; search with a sound, a picture or a video"
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

        None where the moment lacks a frame or sound, where the thumbnail was removed or is damaged,
        and for networks without such maps.
        """
        if scene.thumbnail is None:
            return None
        where = f"source = {text_literal(scene.source)} AND seconds = {scene.seconds!r}"
        moment = next(self._store.moments(where), None)
        if moment is None or moment.audio is None:
            return None
        try:
            jpeg = (self.thumbnails / scene.thumbnail).read_bytes()
            return thumbnail_map(self.encoder, jpeg, moment.audio)
        except (OSError, ValueError):
            return None

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

    def __exit__(self, *_: object) -> None:
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
