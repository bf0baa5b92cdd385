"""Retrieval: the rank of the own video, by hand and in an index."""

import numpy as np
import pytest

import looklisten as ll
from looklisten.errors import ConfigError
from looklisten.evaluation.retrieval import own_video_ranks
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
