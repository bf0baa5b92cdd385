"""Moments for the tests of stores, and what a store must answer, in plain Python."""

import re

import numpy as np

from looklisten.search.moments import IndexedMoment, moment_id

WIDTH = 4
SPACE = "the network of the tests"


def unit_vectors(count, width=WIDTH, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


VECTORS = unit_vectors(6)
"""Few, so that many moments are equally similar to a query."""


def make_moment(source, second, vision=0, audio=1, digest="d0", **facts):
    """A moment; `vision` and `audio` are numbers of VECTORS, or None."""
    return IndexedMoment(
        moment_id(digest, second),
        source,
        digest,
        f"video of {source}",
        float(second),
        f"{source}-{second}.jpg",
        vision=None if vision is None else VECTORS[vision],
        audio=None if audio is None else VECTORS[audio],
        **facts,
    )


def make_source(source, seconds=3, digest="d0"):
    """A source whose vectors differ from moment to moment."""
    first = sum(source.encode()) + len(digest)
    return [
        make_moment(source, second, (first + second) % 6, (first * 3 + second) % 6, digest)
        for second in range(seconds)
    ]


def facts(moment):
    """All of a moment, comparable."""
    vectors = [
        None if vector is None else vector.tobytes() for vector in (moment.vision, moment.audio)
    ]
    tags = {name: float(np.float32(score)) for name, score in moment.tags.items()}
    return (
        moment.source,
        moment.moment_id,
        moment.source_digest,
        moment.video_id,
        moment.seconds,
        moment.thumbnail,
        moment.label,
        moment.marks,
        tags,
        vectors,
    )


def all_facts(store, where=None):
    return sorted(map(facts, store.moments(where)), key=lambda values: values[:2])


class PlainStore:
    """The oracle: moments in a list, searched one by one."""

    def __init__(self):
        self.rows = []

    def add(self, moments):
        sources = {moment.source for moment in moments}
        self.rows = [row for row in self.rows if row.source not in sources] + list(moments)

    def remove_source(self, source):
        self.rows = [row for row in self.rows if row.source != source]

    def matching(self, matches=None):
        return [row for row in self.rows if matches is None or matches(row) is True]

    def search(self, query, side, limit, matches=None):
        found = []
        for row in self.matching(matches):
            vector = getattr(row, side)
            if vector is not None:
                similarity = float(np.dot(vector.astype(np.float64), query.astype(np.float64)))
                found.append((similarity, row))
        return self._best(found, limit)

    def find_tag(self, name, limit, matches=None):
        found = [
            (float(np.float32(row.tags[name])), row)
            for row in self.matching(matches)
            if name in row.tags
        ]
        return self._best(found, limit)

    def _best(self, found, limit):
        # Equal vectors give products that differ in their last digits at most.
        found.sort(key=lambda each: (-round(each[0], 9), each[1].moment_id, each[1].source))
        return found[:limit]


def like(text, pattern):
    """Whether a text matches SQL's LIKE, where the pattern has no backslash."""
    expression = "".join({"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None
