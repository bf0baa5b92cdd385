"""Opening a store, what it refuses, its sizes, and its approximate index."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from looklisten.errors import OptionError, StoreError
from looklisten.search.exact_search import nearest_rows
from looklisten.search.filters import parse_filter
from looklisten.search.lance_index import QUERIES_OF_A_SIDE, RECALL_GOAL, _query_vectors
from looklisten.search.lance_store import LanceStore
from looklisten.search.moments import IndexedMoment, moment_id
from looklisten.search.opening import open_store
from store_moments import (
    SPACE,
    VECTORS,
    WIDTH,
    all_facts,
    make_moment,
    make_source,
    unit_vectors,
)

KINDS = ["arrow", "lance"]


@pytest.fixture(params=KINDS)
def store(request, tmp_path):
    with open_store(tmp_path / "db", SPACE, WIDTH, request.param, create=True) as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["db", "database", "./db"])
def test_a_folder_is_named_from_the_working_folder(kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_store(Path(name), SPACE, WIDTH, kind, create=True) as opened:
        opened.add([make_moment("clip.mp4", 0)])
    with open_store(Path(name), SPACE, WIDTH) as opened:
        assert set(opened.sources()) == {"clip.mp4"}


def test_another_network_is_refused(store, tmp_path):
    with pytest.raises(
        StoreError,
        match=r"db was indexed with another network \(the network of the tests, not other\); give "
        "that network, or index into another folder",
    ):
        open_store(tmp_path / "db", "other", WIDTH)
    with pytest.raises(StoreError, match="holds vectors of 4 numbers, not of 8"):
        open_store(tmp_path / "db", SPACE, 8)


def test_another_kind_of_store_is_refused(store, tmp_path):
    kind = store.stats().store
    other = {"arrow": "lance", "lance": "arrow"}[kind]
    with pytest.raises(StoreError, match=f"is an index of the store {kind}, not {other}"):
        open_store(tmp_path / "db", store=other)


def test_a_folder_without_an_index_says_how_to_make_one(tmp_path):
    with pytest.raises(StoreError, match="holds no index; make one with `looklisten index`"):
        open_store(tmp_path)
    with pytest.raises(StoreError, match="holds no index, and a new one needs a network"):
        open_store(tmp_path, create=True)
    assert list(tmp_path.iterdir()) == []


def test_an_index_of_a_later_version_is_refused(store, tmp_path):
    path = tmp_path / "db" / "index.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(StoreError, match="is an index of version 2, and this program reads"):
        open_store(tmp_path / "db")


def test_a_missing_package_is_named(tmp_path):
    make = (
        "import sys; sys.modules['lancedb'] = None\n"
        "from looklisten.search.opening import open_store\n"
        f"open_store({str(tmp_path / 'db')!r}, 'net', 4, 'lance', create=True)"
    )
    ended = subprocess.run([sys.executable, "-c", make], capture_output=True, text=True)
    assert "StoreError" in ended.stderr
    assert "needs lancedb, for the store lance: pip install 'looklisten[search]'" in ended.stderr
    assert not (tmp_path / "db" / "index.json").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"vision": VECTORS[0] * 2}, "its vision vector has the length 2 and not 1"),
        ({"audio": VECTORS[0] * np.float32("nan")}, "its audio vector has the length nan"),
        (
            {"audio": unit_vectors(1, 5)[0], "vision": None},
            "its audio vector has 5 numbers and not 4",
        ),
        ({"label": "\udcff"}, "is not Unicode text"),
        ({"seconds": float("inf")}, "a time or a score is not a finite number"),
        ({"tags": {"Dog": float("nan")}}, "a time or a score is not a finite number"),
        ({"source_digest": "other"}, "its source has two digests"),
        ({"moment_id": moment_id("d0", 0)}, "its source has two moments with the id"),
    ],
)
def test_a_moment_that_cannot_be_stored_is_named_and_none_is_stored(store, changes, problem):
    good, bad = make_source("a.mp4", 2)
    values = {name: getattr(bad, name) for name in bad.__dataclass_fields__} | changes
    with pytest.raises(StoreError, match=f"of a.mp4 cannot be stored: .*{problem}"):
        store.add([good, IndexedMoment(**values)])
    assert all_facts(store) == []


def test_a_query_without_a_direction_is_refused(store):
    with pytest.raises(StoreError, match="has no direction"):
        store.search(np.zeros(WIDTH, np.float32), "audio", 1)
    with pytest.raises(StoreError, match="the query has 5 numbers"):
        store.search(unit_vectors(1, 5)[0], "audio", 1)
    with pytest.raises(OptionError, match="limit 0 must be at least 1"):
        store.search(VECTORS[0], "audio", 0)


def test_copies_of_a_file_are_sources_of_their_own(store):
    store.add(make_source("a.mp4"))
    store.add(make_source("copy.mp4"))
    assert store.stats().moments == 6
    store.remove_source("a.mp4")
    assert set(store.sources()) == {"copy.mp4"}


def test_small_commits_are_merged(store):
    for number in range(20):
        store.add([make_moment(f"{number}.mp4", 0)])
    if store.stats().store == "arrow":
        assert store.stats().fragments < 10
    store.maintain()
    stats = store.stats()
    assert (stats.fragments, stats.moments, stats.sources) == (1, 20, 20)


def test_maintaining_frees_the_space_of_removed_moments(tmp_path):
    with open_store(tmp_path / "db", SPACE, WIDTH, create=True) as store:
        store.add(make_source("long.mp4", 2000) + make_source("short.mp4"))
        full_bytes = store.stats().disk_bytes
        store.remove_source("long.mp4")
        store.maintain()
        assert store.stats().disk_bytes < full_bytes / 10
        assert set(store.sources()) == {"short.mp4"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected a column (source, video_id, seconds, label, tag or mark) at its end"),
        ("colour = 'red'", "expected a column"),
        ("label == 'dog'", "expected a text in single quotes before \"= 'dog'\""),
        ('label = "dog"', "texts stand in single quotes, as in label = 'dog'"),
        ("label = dog", "expected a text in single quotes before 'dog'"),
        ("label = NULL", "or use IS NULL"),
        ("label = 'dog", 'before "\'dog"'),
        ("seconds > '3'", "expected a number of seconds"),
        ("seconds LIKE '3'", "expected a comparison with a number after seconds"),
        ("tag > 'Dog'", "expected =, !=, IN, LIKE or IS NULL after tag"),
        ("label IN 'dog'", "expected '('"),
        ("(label = 'dog'", "expected ')' at its end"),
        ("label = 'dog' label = 'cat'", "expected AND or OR or the end"),
        ("label NOT 'dog'", "expected IN, LIKE or BETWEEN"),
        ("seconds BETWEEN 1 3", "expected AND"),
        ("label = 'dog'; DROP", "expected a column, a value or an operator"),
        (" OR ".join(["seconds < 1"] * 201), "at most 200 conditions (IN takes"),
        ("NOT " * 200 + "label = 'x'", "at most 20 levels"),
    ],
)
def test_a_filter_that_cannot_be_read_says_where(text, problem):
    with pytest.raises(OptionError) as caught:
        parse_filter(text)
    assert problem in str(caught.value)
    assert caught.value.as_typed.startswith("--where ")


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_gives_the_sentence(text):
    try:
        parse_filter(text)
    except OptionError as error:
        assert "\n" not in str(error)


def test_between_and_precedence(store):
    store.add(make_source("a.mp4", 6))
    seconds = [row.seconds for row in store.moments(" OR ".join(["seconds < 1"] * 200))]
    assert seconds == [0]
    deep = "NOT (seconds < 1 OR " * 9 + "seconds < 1" + ")" * 9
    assert len(list(store.moments(deep))) == 5
    seconds = [row.seconds for row in store.moments("seconds BETWEEN 1 AND 2 OR seconds > 4")]
    assert sorted(seconds) == [1, 2, 5]
    seconds = [row.seconds for row in store.moments("NOT seconds < 4 AND seconds <= 4")]
    assert seconds == [4]


@given(
    rows=st.integers(1, 60), limit=st.integers(1, 9), share=st.sampled_from([1.0, 0.5, 0.1, 0.0])
)
def test_the_nearest_rows_are_those_of_a_sorted_list(rows, limit, share):
    generator = np.random.default_rng(rows * 10 + limit)
    vectors = VECTORS[generator.integers(0, len(VECTORS), rows)]
    selected = generator.random(rows) < share
    found, products = nearest_rows(vectors, VECTORS[0], selected, limit)
    expected = (vectors.astype(np.float64) * VECTORS[0].astype(np.float64)).sum(axis=1)
    np.testing.assert_array_equal(products, expected[found])
    best = np.sort(expected[selected])[::-1][:limit]
    # All that equal the last one are there too.
    wanted = np.flatnonzero(selected & (expected >= best[-1])) if len(best) else []
    assert sorted(found) == list(wanted)


def test_more_vectors_than_a_block(tmp_path):
    vectors = unit_vectors(70_000)
    _, products = nearest_rows(vectors, VECTORS[0], np.ones(len(vectors), bool), 10)
    expected = np.sort(vectors @ VECTORS[0])[::-1][:10]
    np.testing.assert_allclose(np.sort(products)[::-1], expected, atol=1e-6)


def test_a_large_lance_store_has_an_approximate_index_with_its_recall(tmp_path):
    open_store(tmp_path / "db", SPACE, 16, "lance", create=True).close()
    vectors = unit_vectors(1200, 16)

    def rows(start, end):
        return [
            IndexedMoment(
                moment_id("d", number),
                f"{start}.mp4",
                "d",
                "v",
                float(number),
                vision=vectors[number],
            )
            for number in range(start, end)
        ]

    with LanceStore(tmp_path / "db", approximate_from=400) as store:
        store.add(rows(0, 300))
        store.maintain()
        assert store.stats().recall is None
        store.add(rows(300, 500))
        store.maintain()
        stats = store.stats()
        assert stats.approximate_moments == 500
        assert stats.recall > 0.9
        store.add(rows(500, 600))
        nearest = store.search(vectors[550], "vision", 1)[0]
        assert nearest.moment.seconds == 550, "a moment that is not in the index yet is found"
        assert nearest.similarity == pytest.approx(1)
        store.maintain()
        assert store.stats().approximate_moments == 600
        store.add(rows(600, 1200))
        store.maintain()
        assert store.stats().approximate_moments == 1200
        found = store.search(vectors[1100], "vision", 5, "seconds < 1000")
        assert len(found) == 5
        assert all(each.moment.seconds < 1000 for each in found)
        assert store.search(vectors[0], "audio", 5) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["audio", "vision"])
def test_a_source_that_lacks_a_side_is_replaced(tmp_path, kind, side):
    """With wide vectors: LanceDB takes narrow ones for no vectors, and then checks less."""
    vectors = unit_vectors(30, 64)
    with open_store(tmp_path / "db", SPACE, 64, kind, create=True) as store:
        store.add(one_sided(range(20), vectors, side) + one_sided(range(20, 22), None, "none"))
        store.add(one_sided(range(10, 30), vectors, side))
        store.add(one_sided(range(21, 23), None, "none"))
        assert sorted(row.seconds for row in store.moments()) == sorted([*range(10, 30), 21, 22])
        found = store.search(vectors[12], side, 1)
        assert found[0].moment.seconds == 12
        stats = store.stats()
        assert (stats.moments, stats.audio_vectors + stats.vision_vectors) == (22, 20)


def one_sided(numbers, vectors, side):
    """Moments that have a vector of one side, or of none."""
    return [
        IndexedMoment(
            moment_id("d", number),
            f"{side}.mp4",
            "d",
            "v",
            float(number),
            **({} if vectors is None else {side: vectors[number]}),
        )
        for number in numbers
    ]


def test_the_recall_is_measured_with_queries_of_a_side_that_few_moments_have(tmp_path):
    """Most moments have no vector, and three in two thousand have sound."""
    open_store(tmp_path / "db", SPACE, 16, "lance", create=True).close()
    vectors = unit_vectors(2_000, 16)
    with LanceStore(tmp_path / "db", approximate_from=300) as store:
        store.add(one_sided(range(1_600), None, "none"))
        store.add(one_sided(range(1_600, 1_997), vectors, "vision"))
        store.add(one_sided(range(1_997, 2_000), vectors, "audio"))
        store.maintain()
        assert store.stats().recall > 0.9
        queries = _query_vectors(store._table)
        for vector in vectors[1_997:]:
            assert np.isclose(queries, vector).all(1).any()
        assert len(queries) == QUERIES_OF_A_SIDE + 3


def test_the_stated_recall_is_about_that_of_other_queries(tmp_path):
    """Clustered vectors, as those of videos are; the queries are others of the same clusters."""
    open_store(tmp_path / "db", SPACE, 32, "lance", create=True).close()
    generator = np.random.default_rng(0)
    middles = unit_vectors(40, 32)[generator.integers(0, 40, 6_100)]
    vectors = middles + 0.1 * generator.standard_normal(middles.shape)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors, queries = vectors[:6_000], vectors[6_000:]
    with LanceStore(tmp_path / "db", approximate_from=5_000) as store:
        store.add(one_sided(range(6_000), vectors, "audio"))
        store.maintain()
        stated = store.stats().recall
        hits = []
        for query in queries:
            products = vectors @ query
            nearest = set(np.argsort(-products)[:10].tolist())
            found = {int(each.moment.seconds) for each in store.search(query, "audio", 10)}
            hits.append(len(nearest & found) / 10)
    assert stated >= RECALL_GOAL
    assert np.mean(hits) == pytest.approx(stated, abs=0.05)
