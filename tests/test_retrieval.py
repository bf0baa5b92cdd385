"""Retrieval: the rank of the own video, by hand and in an index."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

import looklisten as ll
from looklisten.errors import ConfigError, SourceError
from looklisten.evaluation.class_ranking import class_rankings_of_vectors
from looklisten.evaluation.retrieval import own_video_ranks, retrieval_of_vectors
from looklisten.search.moments import IndexedMoment, moment_id
from looklisten.search.opening import open_store


def directions(degrees):
    angles = np.radians(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_a_video_counts_with_its_most_similar_moment():
    queries = directions([0, 0, 90])
    targets = directions([80, 10, 20])
    videos = ["a", "a", "b"]
    # The first query is nearest to the second moment of its own video.
    assert own_video_ranks(queries, targets, videos).tolist() == [1, 1, 2]


def test_of_equal_videos_the_own_one_is_the_last():
    same = directions([0, 0, 0])
    assert own_video_ranks(same, same, ["a", "b", "c"]).tolist() == [3, 3, 3]


def test_how_many_of_the_nearest_videos_have_the_label():
    # Two groups of videos, far apart; one video of the second group has the label of the first.
    degrees = [*range(12), *range(90, 102)]
    labels = ["dog"] * 12 + ["rain"] * 11 + ["dog"]
    videos = [str(number) for number in range(24)]
    vectors = directions(degrees)
    across, back = retrieval_of_vectors(vectors, vectors, videos, labels)
    assert across.by_label == back.by_label
    found = across.by_label
    # A video's own moment does not count. The stray dog is last among the ten of few others.
    rain = np.mean([np.mean([labels[n] == "rain" for n in nearest(12 + row)]) for row in range(11)])
    assert found.k == 10
    assert found.precision == pytest.approx((12 * 1.0 + 11 * rain + 0.0) / 24)
    assert found.ci95[0] < found.precision < found.ci95[1]
    assert found.chance == pytest.approx((13 * 12 + 11 * 10) / (24 * 23))
    assert across.as_dict()["label_precision@10"] == round(found.precision, 4)


def nearest(number):
    """The ten videos of the second group nearest to one of them."""
    others = [other for other in range(12, 24) if other != number]
    return sorted(others, key=lambda other: abs(other - number))[:10]


def test_without_labels_there_is_no_precision_by_label():
    vectors = directions(range(24))
    videos = [str(number) for number in range(24)]
    for labels in ([""] * 24, ["dog"] * 24):
        across, _ = retrieval_of_vectors(vectors, vectors, videos, labels)
        assert across.by_label is None
        assert "label_precision@10" not in across.as_dict()


def write_index(db, vision, audio, videos):
    with open_store(db, "space", 2, create=True) as store:
        rows = []
        for number, video in enumerate(videos):
            digest = f"{number:064x}"
            rows.append(
                IndexedMoment(
                    moment_id=moment_id(digest, 0.0),
                    source=f"/{number}.mp4",
                    source_digest=digest,
                    video_id=video,
                    seconds=0.0,
                    label="x" if number else None,
                    vision=vision[number],
                    audio=audio[number],
                )
            )
        store.add(rows)


def test_the_figures_of_an_index(tmp_path):
    videos = [f"v{number:02d}" for number in range(12)]
    degrees = np.arange(12) * 25.0
    write_index(tmp_path / "same", directions(degrees), directions(degrees + 3), videos)
    across, back = ll.retrieval(tmp_path / "same")
    for each in (across, back):
        assert each.queries == each.videos == 12 and each.median_rank == 1
        assert each.median_rank_by_chance == 6.5
        assert [(r.k, r.recall) for r in each.recalls] == [(1, 1.0), (5, 1.0), (10, 1.0)]
        assert each.recalls[0].chance == pytest.approx(1 / 12)
        assert each.recalls[0].ci95[0] < 1
    opposite = directions(degrees + 180)
    write_index(tmp_path / "opposite", directions(degrees), opposite, videos)
    across, _ = ll.retrieval(tmp_path / "opposite")
    assert across.recalls[0].recall == 0 and across.median_rank > 6.5
    assert across.as_dict()["recall@1"] == 0


def test_a_filter_may_leave_too_few_videos(tmp_path):
    write_index(tmp_path / "db", directions([0, 90]), directions([0, 90]), ["a", "b"])
    with pytest.raises(ConfigError, match="retrieval needs 2"):
        ll.retrieval(tmp_path / "db", "label = 'x'")


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1_000), count=st.integers(3, 60), moments=st.integers(1, 3))
def test_the_ndcg_is_that_of_scikit_learn(seed, count, moments):
    generator = np.random.default_rng(seed)
    class_of_video = [f"class {number % 2 + number % 3}" for number in range(count)]
    videos = np.repeat([f"v{number:02d}" for number in range(count)], moments).tolist()
    labels = np.repeat(class_of_video, moments).tolist()
    # Of many numbers, so that no two videos are equally similar.
    sides = {name: generator.standard_normal((len(videos), 8)) for name in ("sound", "picture")}
    rankings = class_rankings_of_vectors(sides["sound"], sides["picture"], videos, labels)
    assert [each.direction for each in rankings] == [
        f"{query} to {target}" for query in ("picture", "sound") for target in ("picture", "sound")
    ]
    for ranking in rankings:
        query, _, target = ranking.direction.partition(" to ")
        expected = []
        for row, video in enumerate(videos):
            similarities = (sides[query][row] @ sides[target].T).reshape(count, moments).max(1)
            others = np.arange(count) != int(video[1:])
            relevance = [class_of_video[n] == labels[row] for n in np.flatnonzero(others)]
            if any(relevance):
                expected.append(ndcg_score([relevance], [similarities[others]], k=30))
        assert ranking.ndcg == pytest.approx(np.mean(expected), abs=1e-6)
        assert ranking.ci95[0] <= ranking.ndcg <= ranking.ci95[1]


def test_the_chance_of_the_ndcg_is_the_mean_over_all_orders():
    labels = ["dog", "dog", "dog", "rain", "rain", "train"]
    videos = [f"v{number}" for number in range(6)]
    vectors = directions(range(6))
    ranking = class_rankings_of_vectors(vectors, vectors, videos, labels)[0]
    expected = []
    for own in (0, 3):
        relevance = [labels[other] == labels[own] for other in range(6) if other != own]
        orders = [
            ndcg_score([order], [[5, 4, 3, 2, 1]])
            for order in itertools.permutations(map(int, relevance))
        ]
        expected += [np.mean(orders)] * labels.count(labels[own])
    # No other video is of the class of the train, so it is no query.
    assert ranking.queries == 5 and ranking.videos == 6
    assert ranking.chance == pytest.approx(np.mean(expected))


def test_classes_far_apart_are_ranked_without_an_error(tmp_path):
    videos = [f"v{number:02d}" for number in range(12)]
    degrees = np.array([*range(6), *range(90, 96)])
    write_index(tmp_path / "db", directions(degrees), directions(degrees + 1), videos)
    # All but the first have one label there, so a filter of classes is needed.
    with pytest.raises(ConfigError, match="a ranking of classes needs two classes"):
        ll.class_rankings(tmp_path / "db")
    labels = ["dog"] * 6 + ["rain"] * 6
    perfect = class_rankings_of_vectors(directions(degrees), directions(degrees), videos, labels)
    assert [each.ndcg for each in perfect] == [pytest.approx(1)] * 4
    assert all(each.chance < 0.8 for each in perfect)
    assert perfect[0].as_dict()["ndcg@30"] == 1


def test_sides_of_different_widths_are_not_compared():
    videos = ["a", "b", "c"]
    wide = np.eye(3, dtype=np.float32)
    rankings = class_rankings_of_vectors(directions([0, 5, 90]), wide, videos, ["x", "x", "y"])
    assert [each.direction for each in rankings] == ["picture to picture", "sound to sound"]


def test_intervals_of_composed_videos_are_over_their_files(tmp_path):
    """Twelve videos of two images and twelve sounds; the table lies beside them."""
    videos = [f"{number}.mp4" for number in range(12)]
    degrees = np.array([*range(6), *range(90, 96)])
    vectors = directions(degrees)
    folder = tmp_path / "videos"
    folder.mkdir()
    with open_store(tmp_path / "db", "space", 2, create=True) as store:
        for number, video in enumerate(videos):
            digest = f"{number:064x}"
            store.add(
                [
                    IndexedMoment(
                        moment_id=moment_id(digest, 0.0),
                        source=str(folder / video),
                        source_digest=digest,
                        video_id=f"id of {video}",
                        seconds=0.0,
                        label="ab"[number // 4 % 2],
                        vision=vectors[number],
                        audio=vectors[number],
                    )
                ]
            )
    (over_videos, _), rankings = ll.retrieval(tmp_path / "db"), ll.class_rankings(tmp_path / "db")
    assert over_videos.interval_over == "videos"
    lines = [f"{number}.mp4,image {number // 6},sound {number}" for number in range(12)]
    (folder / "labels.csv").write_text("\n".join(["path,image,sound", *lines]))
    (over_files, _), by_files = ll.retrieval(tmp_path / "db"), ll.class_rankings(tmp_path / "db")
    assert over_files.interval_over == "image files and sound files"
    assert over_files.recalls[0].recall == over_videos.recalls[0].recall
    assert width(over_files.recalls[0].ci95) > width(over_videos.recalls[0].ci95)
    for before, after in zip(rankings, by_files, strict=True):
        assert after.ndcg == before.ndcg and width(after.ci95) > width(before.ci95)
    other = tmp_path / "other.csv"
    other.write_text("path,image,sound\nx.mp4,a,b\n")
    with pytest.raises(SourceError, match="names none of these videos"):
        ll.retrieval(tmp_path / "db", files=other)


def width(interval):
    return interval[1] - interval[0]
