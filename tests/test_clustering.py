"""Clusters compared with labels: cases by hand, an oracle, random clusters, the plot, the verb."""

import json

import numpy as np
import pytest

from looklisten.app.cli import main
from looklisten.app.output import emit
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.units import clustering
from looklisten.evaluation.units.clustering import (
    PAPER_FIGURES,
    choose_k,
    cluster,
    k_means,
    tsne_positions,
)
from looklisten.inference.moments import MomentVectors
from looklisten.model.networks import open_network
from noise_shards import write_set


def agreement(truth, *found):
    return clustering.cluster_agreement(
        "audio", "random", np.array(truth), [np.array(one) for one in found], None
    )


def test_agreement_by_hand():
    perfect, none = (
        agreement(["a", "a", "b", "b"], [1, 1, 0, 0]),
        agreement(["a", "a", "b", "b"], [0, 1, 0, 1]),
    )
    assert (perfect.nmi, perfect.adjusted_mi) == pytest.approx((1, 1))
    assert none.nmi == pytest.approx(0, abs=1e-12)
    # Every item its own cluster: I = ln 2, entropies ln 2 and ln 4, so NMI = ln 2 / ((ln 2 + ln 4)
    # / 2) = 2/3, and nothing beyond chance.
    single = agreement(["a", "a", "b", "b"], [0, 1, 2, 3])
    assert single.nmi == pytest.approx(2 / 3)
    assert single.adjusted_mi == pytest.approx(0, abs=1e-9)
    both = agreement(["a", "a", "b", "b"], [1, 1, 0, 0], [0, 1, 0, 1])
    assert (both.nmi, both.nmi_deviation) == pytest.approx((0.5, 0.5))


def test_chance_gives_what_the_paper_says_for_64_clusters_of_1900_items():
    rng = np.random.default_rng(0)
    truth = rng.integers(34, size=1900).astype(str)
    found = agreement(truth, *(rng.integers(64, size=1900) for _ in range(3)))
    assert found.nmi == pytest.approx(PAPER_FIGURES["vision", "random"][0], abs=0.01)
    assert found.adjusted_mi == pytest.approx(0, abs=0.01)


def test_fewer_clusters_where_items_are_few_and_the_reason():
    assert choose_k(64, 1900) == (64, "the paper's")
    assert choose_k(8, 1900) == (8, "asked for")
    k, reason = choose_k(64, 480)
    assert k == 48
    assert "480 items are too few for 64 clusters of at least 10" in reason
    with pytest.raises(ConfigError, match="k 1 must be at least 2"):
        choose_k(1, 100)


def test_k_means_starts_anew_for_each_seed_and_again_the_same():
    vectors = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    one, other = k_means(vectors, 5, 2)
    assert not np.array_equal(one, other)
    assert np.array_equal(one, k_means(vectors, 5, 1)[0])


def test_an_oracle_scores_1_and_noise_about_chance(run_path, shards):
    names = sorted(set(shards.names.tolist()))
    rng = np.random.default_rng(0)
    embedded_videos = []

    def embed(_model, clips, _per_clip):
        clips = list(clips)
        embedded_videos.append([clip.video_id for clip in clips])
        classes = [names.index(clip.labels[0]) for clip in clips]
        noise = rng.standard_normal((len(clips), len(names)))
        class_vectors = np.eye(len(names), dtype=np.float32)[classes]
        return MomentVectors(noise, class_vectors, np.arange(len(clips)))

    model = open_network(run_path)
    found = cluster(model, shards, "all", k=12, kmeans_seeds=20, items_per_cluster=2, embed=embed)
    assert found.row("audio", "trained").n == 48
    assert found.row("vision", "trained").n < 48, (
        "frames that show two classes have no single right answer"
    )
    # k-means++ may begin with two starts in one class only where a distance of zero is drawn, so it
    # finds all twelve.
    assert (
        found.row("audio", "trained").nmi
        == found.row("audio", "trained").adjusted_mi
        == pytest.approx(1)
    )
    # Four items a class: too few for a preference of a unit to mean anything.
    assert found.row("audio", "trained").selective == ()
    for network in ("trained", "untrained"):
        assert found.row("vision", network).adjusted_mi == pytest.approx(0, abs=0.1)
    for side in ("vision", "audio"):
        assert found.row(side, "random").adjusted_mi == pytest.approx(0, abs=0.05)
        assert found.row(side, "random").nmi > 0.3, "chance alone gives much where items are few"
    assert len(set(embedded_videos[0])) == len(embedded_videos[0]) == 48, "one clip a video"
    assert "at least 80% are of it" in found.as_dict()["criterion"]
    cluster(model, shards, "test", kmeans_seeds=1, embed=embed)
    assert set(embedded_videos[-1]) == set(shards.video_ids[shards.splits == "test"])
    cluster(model, shards, "all", kmeans_seeds=1, max_videos=20, embed=embed)
    assert len(embedded_videos[-1]) == 20


def test_errors_of_cluster(run_path, shards, tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"there is no split 'tset' in .*; the splits are all, held-out, test, train",
    ):
        cluster(open_network(run_path), shards, "tset")
    unlabeled = Shards(write_set(tmp_path / "set", range(6), [6, 7]))
    with pytest.raises(
        ConfigError,
        match=r"clusters are compared with labels, of at least 2 classes; "
        r"the held-out videos of .* have fewer",
    ):
        cluster(open_network(run_path), unlabeled)


def test_tsne_keeps_neighbors_together():
    labels = np.repeat(np.arange(3), 12)
    vectors = 10 * np.eye(3, dtype=np.float32)[labels] + 0.1 * np.random.default_rng(
        0
    ).standard_normal((36, 3)).astype(np.float32)
    places = tsne_positions(vectors)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(36)
    assert (labels[distances.argmin(1)] == labels).all()


def test_the_verb_writes_table_and_picture(run_path, shards_path, tmp_path, capsys):
    arguments = [
        "cluster",
        str(shards_path),
        "--checkpoint",
        str(run_path),
        "-o",
        str(tmp_path / "plane.png"),
        "--kmeans-seeds",
        "2",
    ]
    assert main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    networks = ("random", "untrained", "trained")
    assert [(row["side"], row["network"]) for row in printed["rows"]] == [
        (side, one) for side in ("vision", "audio") for one in networks
    ]
    assert len(printed["selective_classes"]["audio, trained"]) == printed["rows"][5]["selective"]
    assert printed["rows"][2]["paper_nmi"] == 0.409
    assert printed["k_reason"].startswith(f"{printed['rows'][2]['n']} items are too few")
    assert (tmp_path / "plane.png").read_bytes().startswith(b"\x89PNG")


def test_rows_are_a_table_with_a_head(capsys):
    emit(
        {
            "k": 3,
            "rows": [
                {"side": "vision", "n": 1200, "ci95": (0.25, 0.5)},
                {"side": "audio", "n": 7, "ci95": None},
            ],
        },
        as_json=False,
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["k", "3"],
        ["side", "n", "ci95"],
        ["vision", "1,200", "0.25", "–", "0.5"],
        ["audio", "7", "–"],
    ]
