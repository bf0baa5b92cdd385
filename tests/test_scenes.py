"""Neighboring moments become one scene, at any distance of moments."""

from hypothesis import given
from hypothesis import strategies as st

from looklisten.search.finding.hits import ScoredMoment, fold_scenes
from looklisten.search.moments import IndexedMoment, moment_id


def scored(source, number, every_seconds, score=0.5):
    """A moment as `index` writes it: its time is rounded to milliseconds."""
    seconds = round(number * every_seconds, 3)
    moment = IndexedMoment(moment_id(source, seconds), source, "d", "v", seconds)
    return ScoredMoment(moment, score, score, "audio")


def chains_of(numbers):
    """Runs of numbers in which at most one is left out between two."""
    chains = []
    for number in sorted(numbers):
        if chains and number - chains[-1][-1] <= 2:
            chains[-1].append(number)
        else:
            chains.append([number])
    return chains


@given(
    numbers=st.sets(st.integers(0, 5_000), min_size=1, max_size=40),
    every_seconds=st.sampled_from([0.01, 0.1, 1 / 3, 0.7, 1.0, 2.5, 7 / 11]),
)
def test_scenes_are_runs_with_at_most_one_moment_between(numbers, every_seconds):
    moments = [scored("a.mp4", number, every_seconds) for number in numbers]
    scenes = fold_scenes(moments, every_seconds, window_seconds=1.0)
    found = sorted((scene.start_seconds, scene.end_seconds) for scene in scenes)
    assert found == [
        (round(chain[0] * every_seconds, 3), round(round(chain[-1] * every_seconds, 3) + 1.0, 3))
        for chain in chains_of(numbers)
    ]


def test_moments_of_two_files_are_two_scenes_and_the_best_moment_is_the_scene():
    moments = [scored("a.mp4", number, 1.0, score) for number, score in ((0, 0.5), (2, 0.9))]
    moments += [scored("b.mp4", 1, 1.0, 0.7), scored("a.mp4", 5, 1.0, 0.6)]
    scenes = fold_scenes(moments, 1.0, 1.0)
    assert [
        (each.source, each.seconds, each.start_seconds, each.end_seconds) for each in scenes
    ] == [
        ("a.mp4", 2.0, 0.0, 3.0),
        ("b.mp4", 1.0, 1.0, 2.0),
        ("a.mp4", 5.0, 5.0, 6.0),
    ]
    assert [each.score for each in scenes] == [0.9, 0.7, 0.6]
