"""Do vectors fall into classes that the network never saw? k-means compared with labels.

This is the paper's analysis of what is learned: NMI on Kinetics-Sounds, and units that prefer a
class. The baselines are random clusters and the untrained network. Knows labels for measuring only.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from looklisten.config import SIDES, Side
from looklisten.data.clips import Clip
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.held_out import (
    fraction_held_out,
    network_of,
    opened_shards,
)
from looklisten.evaluation.linear_probe.shards import has_single_label
from looklisten.evaluation.units.selectivity import CRITERION, selectivity
from looklisten.evaluation.untrained import initial_seed, untrained_like
from looklisten.inference.moments import MomentVectors, embed_clips
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run
from looklisten.option_checks import check_at_least
from looklisten.system.progress import Progress, no_progress

PAPER_CLUSTERS = 64
"""The paper does not state it. With 64 clusters of about 1,900 items, random clusters have the NMI
that the paper gives for them (0.165).
"""
MAX_VIDEOS = 1900
"""The test videos of Kinetics-Sounds. NMI grows as items become fewer, so more videos than the
paper's would not compare better.
"""
ITEMS_PER_CLUSTER = 10
"""With fewer, random clusters alone agree with the labels well; the paper has about 30."""

ClipEmbedder = Callable[[L3Net, Iterable[Clip], int], MomentVectors]
"""A network, clips and a number of moments of each -> the vectors of those moments."""
NetworkKind = Literal["random", "untrained", "trained"]
PAPER_FIGURES: dict[tuple[Side, NetworkKind], tuple[float, int | None]] = {
    ("vision", "random"): (0.165, None),
    ("audio", "random"): (0.165, None),
    ("vision", "untrained"): (0.204, 1),
    ("audio", "untrained"): (0.219, 1),
    ("vision", "trained"): (0.409, 10),
    ("audio", "trained"): (0.330, 11),
}
"""Of Kinetics-Sounds with 34 classes: NMI, and how many classes a unit prefers.

Later papers quote these figures.
"""


@dataclass(frozen=True)
class ClusterAgreement:
    """How well clusters agree with labels: means and standard deviations over seeds of k-means."""

    side: Side
    network: NetworkKind
    """`random`: each item is in a random cluster."""
    n: int
    nmi: float
    """Normalized mutual information, by the arithmetic mean of the entropies.

    It is 1 for one cluster a class, and more than 0 for random clusters.
    """
    nmi_deviation: float
    adjusted_mi: float
    """NMI less that of random clusters, which have 0 here for any number of clusters."""
    adjusted_mi_deviation: float
    selective: tuple[str, ...] | None
    """The classes that some unit prefers strongly (`selectivity`); None for random clusters."""

    def as_row(self) -> dict[str, Any]:
        """The figures, and those of the paper."""
        paper_nmi, paper_selective = PAPER_FIGURES[self.side, self.network]
        count = None if self.selective is None else len(self.selective)
        return asdict(self) | {
            "selective": count,
            "paper_nmi": paper_nmi,
            "paper_selective": paper_selective,
        }


@dataclass(frozen=True, eq=False)
class Clustering:
    """The table of both sides, and the vectors of the trained network."""

    rows: tuple[ClusterAgreement, ...]
    k: int
    k_reason: str
    seeds: int
    classes: int
    vectors: dict[Side, Float[np.ndarray, "_items _features"]]
    labels: dict[Side, NDArray[Any]]

    def row(self, side: Side, network: NetworkKind) -> ClusterAgreement:
        return next(row for row in self.rows if (row.side, row.network) == (side, network))

    def as_dict(self) -> dict[str, Any]:
        selective_classes = {}
        for row in self.rows:
            if row.selective is not None:
                selective_classes[f"{row.side}, {row.network}"] = row.selective
        return {
            "k": self.k,
            "k_reason": self.k_reason,
            "kmeans_seeds": self.seeds,
            "classes": self.classes,
            "criterion": CRITERION,
            "selective_classes": selective_classes,
            "rows": [row.as_row() for row in self.rows],
        }


def cluster(
    network: L3Net | Run,
    shards: Shards | str | Path,
    split: str = "held-out",
    held_out_fraction: float | None = None,
    k: int = PAPER_CLUSTERS,
    seed: int | None = None,
    kmeans_seeds: int = 10,
    progress: Progress = no_progress,
    *,
    max_videos: int = MAX_VIDEOS,
    items_per_cluster: int = ITEMS_PER_CLUSTER,
    embed: ClipEmbedder = embed_clips,
) -> Clustering:
    """k-means of pool4 vectors of one clip a video, compared with the labels.

    Vectors are those of the middle moment, without normalization. k-means runs `kmeans_seeds`
    times, each time from another start. For vision, clips whose boxes show objects of other labels
    are left out, as in `probe`.

    `network`: an opened run, or a plain network.
    `shards`: a folder or its shards.
    `split`: `held-out` videos, `all`, or the name of a split of the shards. At most `max_videos`
        are used.
    `held_out_fraction`: by default that of the run; a plain network needs it.
    `seed`: draws the videos and the weights of the untrained network; by default the seed of the
        network itself.

    `items_per_cluster`: at least so many; else there are fewer than `k` clusters.
    `embed`: gives the vectors of clips.

    Raises ConfigError for a split that is not there, and for labels of fewer than two classes.
    """
    check_at_least(2, k=k)
    check_at_least(1, kmeans_seeds=kmeans_seeds)
    model = network_of(network)
    shards = opened_shards(shards)
    seed = initial_seed(model, seed)
    fraction = fraction_held_out(network, held_out_fraction)
    clips = _one_clip_a_video(shards.split(split, fraction), seed, max_videos)
    usable: dict[Side, NDArray[np.bool_]] = {
        "vision": np.array([has_single_label(clip) for clip in clips], dtype=bool),
        "audio": np.ones(len(clips), dtype=bool),
    }
    truth = {side: clips.names[usable[side]] for side in SIDES}
    class_counts = [len(set(labels)) for labels in truth.values()]
    if min(class_counts) < 2:
        raise ConfigError(
            "clusters are compared with labels, of at least 2 classes; "
            f"the {split} videos of {shards.path} have fewer"
        )
    # Both sides have the same k, so that their figures compare.
    k, reason = choose_k(k, min(map(len, truth.values())), items_per_cluster)
    rows: list[ClusterAgreement] = []
    for side in SIDES:
        random_clusters = []
        for number in range(kmeans_seeds):
            rng = np.random.default_rng((seed, number))
            random_clusters.append(rng.integers(k, size=len(truth[side])))
        rows.append(cluster_agreement(side, "random", truth[side], random_clusters, None))
    held_out = shards.held_out_mask(fraction)
    # Batch-norm statistics come from training videos, where there are any.
    training = ~held_out if not held_out.all() else held_out
    vectors: dict[Side, Float[np.ndarray, "items features"]] = {}
    networks: dict[NetworkKind, L3Net] = {
        "untrained": untrained_like(model, shards.select(training), seed),
        "trained": model.eval(),
    }
    # The trained network comes last, as its vectors are those of the result.
    for turn, (kind, measured_network) in enumerate(networks.items()):
        counted = _counted(clips, progress, turn * len(clips), 2 * len(clips))
        moment_vectors = embed(measured_network, counted, 1)
        for side in SIDES:
            vectors[side] = getattr(moment_vectors, side)[usable[side]]
            covered = selectivity(vectors[side], truth[side]).covered
            clusters = k_means(vectors[side], k, kmeans_seeds)
            rows.append(cluster_agreement(side, kind, truth[side], clusters, covered))
    rows.sort(key=lambda row: SIDES.index(row.side))
    return Clustering(tuple(rows), k, reason, kmeans_seeds, len(set(clips.names)), vectors, truth)


def _counted(clips: Shards, progress: Progress, done_before: int, total: int) -> Iterator[Clip]:
    for number, clip in enumerate(clips, 1):
        progress(done_before + number, total)
        yield clip


def choose_k(
    wanted_k: int, items: int, items_per_cluster: int = ITEMS_PER_CLUSTER
) -> tuple[int, str]:
    """The number of clusters for so many items, and why."""
    check_at_least(2, k=wanted_k)
    largest_k = max(items // items_per_cluster, 2)
    if wanted_k > largest_k:
        return (
            largest_k,
            f"{items} items are too few for {wanted_k} clusters of at least {items_per_cluster}; "
            "figures compare at the same k and n only",
        )
    return wanted_k, "the paper's" if wanted_k == PAPER_CLUSTERS else "asked for"


def k_means(
    vectors: Float[np.ndarray, "items features"], k: int, seeds: int
) -> list[NDArray[np.int32]]:
    """The cluster of each item, from `seeds` different starts."""
    cluster_runs = []
    with warnings.catch_warnings():
        # With fewer different vectors than clusters, some clusters stay empty.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for seed in range(seeds):
            k_means_run = KMeans(k, n_init=1, random_state=seed)
            cluster_runs.append(k_means_run.fit_predict(vectors))
    return cluster_runs


def tsne_positions(
    vectors: Float[np.ndarray, "items features"], seed: int = 0
) -> Float[np.ndarray, "items 2"]:
    """Positions in a plane that keep neighbors together (t-SNE, van der Maaten & Hinton 2008)."""
    # scikit-learn takes no perplexity as high as the number of items.
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    positions: Float[np.ndarray, "items 2"] = tsne.fit_transform(vectors)
    return positions


def cluster_agreement(
    side: Side,
    kind: NetworkKind,
    truth: NDArray[Any],
    cluster_runs: list[NDArray[Any]],
    selective: tuple[str, ...] | None,
) -> ClusterAgreement:
    """How well clusters agree with the classes `truth`: means over several k-means."""
    nmi = []
    adjusted = []
    for clusters in cluster_runs:
        nmi.append(normalized_mutual_info_score(truth, clusters))
        adjusted.append(adjusted_mutual_info_score(truth, clusters))
    return ClusterAgreement(
        side=side,
        network=kind,
        n=len(truth),
        nmi=float(np.mean(nmi)),
        nmi_deviation=float(np.std(nmi)),
        adjusted_mi=float(np.mean(adjusted)),
        adjusted_mi_deviation=float(np.std(adjusted)),
        selective=selective,
    )


def _one_clip_a_video(clips: Shards, seed: int, max_videos: int) -> Shards:
    """The first labeled clip of each video, or of `max_videos` of them."""
    labeled = clips.select(clips.names != "")
    # In the order of the clips, not of the names.
    first = np.sort(np.unique(labeled.video_ids, return_index=True)[1])
    sampled = np.random.default_rng(seed).permutation(first)[:max_videos]
    is_sampled = np.zeros(len(labeled), dtype=bool)
    is_sampled[sampled] = True
    return labeled.select(is_sampled)
