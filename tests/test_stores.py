"""The laws of stores: `arrow` and `lance` answer as a list of moments in plain Python does."""

import operator
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from looklisten.search.lance_store import LanceStore
from looklisten.search.opening import open_store
from object_stores import new_bucket
from store_moments import (
    SPACE,
    VECTORS,
    WIDTH,
    PlainStore,
    all_facts,
    facts,
    like,
    make_moment,
)

KINDS = ["arrow", "lance"]

SOURCES = ["a.mp4", "b b.mp4", "it's.mp4", "ü%_.mp4"]
LABELS = [None, "dog", "it's a dog", "Dog"]
TAGS = ["Dog", "Drum, 'loud'", "dog_bark", "Zug"]
MARKS = ["silent", "black", "still", "duplicate"]

numbers_of_vectors = st.none() | st.integers(0, len(VECTORS) - 1)


descriptions = st.lists(
    st.fixed_dictionaries(
        {
            "vision": numbers_of_vectors,
            "audio": numbers_of_vectors,
            "label": st.sampled_from(LABELS),
            "marks": st.sets(st.sampled_from(MARKS), max_size=2).map(sorted).map(tuple),
            "tags": st.dictionaries(
                st.sampled_from(TAGS), st.sampled_from([0.25, 0.5, 0.1]), max_size=3
            ),
        }
    ),
    min_size=1,
    max_size=4,
)
"""Of the moments of one source. The moments are made later: making them checks their types."""


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


COMPARISONS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def unknown_or(value, test):
    """SQL: a comparison with what is missing is neither true nor false."""
    return None if value is None else test(value)


@st.composite
def simple_filters(draw):
    """A filter as text, and as a function that gives True, False or None."""
    kind = draw(st.sampled_from(["seconds", "text", "in", "null", "like", "list", "list like"]))
    if kind == "seconds":
        sign = draw(st.sampled_from(sorted(COMPARISONS)))
        number = draw(st.sampled_from([0, 1, 1.5, 2]))
        return f"seconds {sign} {number}", lambda row: COMPARISONS[sign](row.seconds, number)
    if kind == "text":
        sign = draw(st.sampled_from(sorted(COMPARISONS)))
        column, value = draw(text_values)
        return (
            f"{column} {sign} {quoted(value)}",
            lambda row: unknown_or(
                getattr(row, column), lambda text: COMPARISONS[sign](text, value)
            ),
        )
    if kind == "in":
        column, value = draw(text_values)
        values = [value, draw(text_values)[1]]
        word = draw(st.sampled_from(["IN", "not in"]))
        return (
            f"{column} {word} ({', '.join(map(quoted, values))})",
            lambda row: unknown_or(
                getattr(row, column), lambda text: (text in values) == (word == "IN")
            ),
        )
    if kind == "null":
        column = draw(st.sampled_from(["label", "tag", "marks", "source"]))
        field = {"tag": "tags"}.get(column, column)
        if draw(st.booleans()):
            return f"{column} IS NULL", lambda row: not getattr(row, field)
        return f"{column} is not null", lambda row: bool(getattr(row, field))
    pattern = draw(st.sampled_from(["%og%", "D%", "_og", "it''s%", "%.mp4", "%", ""]))
    plain_pattern = pattern.replace("''", "'")
    if kind == "like":
        column = draw(st.sampled_from(["label", "source"]))
        return (
            f"{column} LIKE '{pattern}'",
            lambda row: unknown_or(getattr(row, column), lambda text: like(text, plain_pattern)),
        )
    column, field, values = draw(st.sampled_from([("tag", "tags", TAGS), ("mark", "marks", MARKS)]))
    if kind == "list like":
        return (
            f"{column} LIKE '{pattern}'",
            lambda row: any(like(text, plain_pattern) for text in getattr(row, field)),
        )
    value = draw(st.sampled_from(values))
    if draw(st.booleans()):
        return f"{column} = {quoted(value)}", lambda row: value in getattr(row, field)
    return f"{column} != {quoted(value)}", lambda row: value not in getattr(row, field)


text_values = st.one_of(
    st.tuples(st.just("label"), st.sampled_from(LABELS[1:])),
    st.tuples(st.just("source"), st.sampled_from(SOURCES)),
    st.tuples(st.just("video_id"), st.sampled_from(["video of a.mp4", "x"])),
)


def inverted(value):
    return None if value is None else not value


def both(left, right):
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def combined(children):
    def negated(child):
        text, matches = child
        return f"NOT ({text})", lambda row: inverted(matches(row))

    def joined(pair):
        (left_text, left), (right_text, right) = pair
        return st.sampled_from(
            [
                (f"({left_text}) AND ({right_text})", lambda row: both(left(row), right(row))),
                (
                    f"({left_text} OR {right_text})",
                    lambda row: inverted(both(inverted(left(row)), inverted(right(row)))),
                ),
            ]
        )

    return children.map(negated) | st.tuples(children, children).flatmap(joined)


filters = st.recursive(simple_filters(), combined, max_leaves=4)
no_filter_or_one = st.just((None, None)) | filters


class StoreLaws(RuleBasedStateMachine):
    """Any sequence of changes, each question answered as the oracle answers it."""

    kind = "arrow"

    @initialize()
    def make(self):
        self.folder = tempfile.TemporaryDirectory()
        self.db = Path(self.folder.name) / "db"
        self.store = self.open(space_id=SPACE, width=WIDTH, store=self.kind, create=True)
        self.reader = open_store(self.db)
        self.oracle = PlainStore()

    def open(self, **choices):
        return open_store(self.db, **choices)

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule(
        added=st.dictionaries(st.sampled_from(SOURCES), descriptions, min_size=1, max_size=2),
        digest=st.sampled_from(["d0", "d1"]),
    )
    def add(self, added, digest):
        rows = [
            make_moment(source, second, digest=digest, **description)
            for source, moments in added.items()
            for second, description in enumerate(moments)
        ]
        self.store.add(rows)
        self.oracle.add(rows)

    @rule(source=st.sampled_from(SOURCES))
    def remove(self, source):
        self.store.remove_source(source)
        self.oracle.remove_source(source)

    @rule()
    def maintain(self):
        self.store.maintain()

    @rule()
    def open_again(self):
        self.store.close()
        self.store = self.open()

    @rule(
        query=st.integers(0, 5),
        side=st.sampled_from(["vision", "audio"]),
        limit=st.integers(1, 5),
        condition=no_filter_or_one,
    )
    def search(self, query, side, limit, condition):
        where, matches = condition
        found = self.reader.search(VECTORS[query], side, limit, where)
        expected = self.oracle.search(VECTORS[query], side, limit, matches)
        assert [facts(each.moment) for each in found] == [facts(row) for _, row in expected]
        similarities = [similarity for similarity, _ in expected]
        np.testing.assert_allclose([each.similarity for each in found], similarities, atol=1e-6)

    @rule(tag=st.sampled_from(TAGS), limit=st.integers(1, 4), condition=no_filter_or_one)
    def find_tag(self, tag, limit, condition):
        where, matches = condition
        found = self.reader.find_tag(tag, limit, where)
        expected = self.oracle.find_tag(tag, limit, matches)
        assert [(each.similarity, facts(each.moment)) for each in found] == [
            (score, facts(row)) for score, row in expected
        ]

    @rule(condition=filters)
    def filter(self, condition):
        where, matches = condition
        expected = sorted(map(facts, self.oracle.matching(matches)), key=lambda row: row[:2])
        assert all_facts(self.reader, where) == expected

    @invariant()
    def holds_the_same_moments(self):
        if not hasattr(self, "store"):
            return
        rows = self.oracle.rows
        assert all_facts(self.reader) == sorted(map(facts, rows), key=lambda row: row[:2])
        assert self.reader.sources() == {row.source: row.source_digest for row in rows}
        assert self.reader.tags() == sorted({tag for row in rows for tag in row.tags})
        stats = self.reader.stats()
        assert stats.moments == len(rows)
        assert stats.audio_vectors == sum(row.audio is not None for row in rows)


def law_settings(examples, steps):
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


TestArrow = StoreLaws.TestCase
TestArrow.settings = law_settings(25, 20)


class LanceLaws(StoreLaws):
    """With indexes of columns from the first row on, which a small store has not."""

    kind = "lance"

    def open(self, **choices):
        open_store(self.db, **choices).close()
        return LanceStore(self.db, filtered_from=1)


TestLance = LanceLaws.TestCase
TestLance.settings = law_settings(6, 15)


class BucketLaws(StoreLaws):
    """With the table in an object store."""

    kind = "lance"

    def open(self, **choices):
        if "space_id" not in choices:
            return super().open(**choices)
        self.environment = pytest.MonkeyPatch()
        return super().open(**choices, table=new_bucket(self.environment))

    def teardown(self):
        super().teardown()
        if hasattr(self, "environment"):
            self.environment.undo()


TestBucket = BucketLaws.TestCase
TestBucket.settings = law_settings(3, 12)
