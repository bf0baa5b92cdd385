"""Retrieval: the rank of the own video, by hand and in an index."""

import numpy as np
import pytest

import looklisten as ll
from looklisten.errors import ConfigError
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
