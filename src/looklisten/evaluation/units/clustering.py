"""Do vectors fall into classes that nobody told the network of? k-means against labels, beside
chance and beside the untrained network.

(The paper's analysis of what is learnt: NMI on Kinetics-Sounds, and units that prefer a class.)
Knows labels for measuring only.
"""

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from looklisten.config import Side
from looklisten.data.shards import Clip, Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.linear_probe.shards import initial_seed, one_label, untrained_like
from looklisten.evaluation.units.selectivity import CRITERION, selectivity
from looklisten.inference.moments import embed_clips
from looklisten.model.l3net import L3Net
from looklisten.names import normalize_split
from looklisten.system.progress import Progress, no_progress

K = 64
"""Clusters. What random assignment gives in the paper (0.165) is what 64 clusters of about 1,900
items give.
"""
MAX_ITEMS = 1900
"""Test videos of Kinetics-Sounds. NMI grows as items become fewer, so more than the paper's are no
better to compare with.
"""
ITEMS_PER_CLUSTER = 10
"""With fewer, random assignment alone agrees with the labels well; the paper has about 30."""
SIDES: tuple[Side, ...] = ("vision", "audio")

Kind = Literal["random", "untrained", "trained"]
PAPER: dict[tuple[Side, Kind], tuple[float, int | None]] = {
    ("vision", "random"): (0.165, None),
    ("audio", "random"): (0.165, None),
    ("vision", "untrained"): (0.204, 1),
    ("audio", "untrained"): (0.219, 1),
    ("vision", "trained"): (0.409, 10),
    ("audio", "trained"): (0.330, 11),
}
"""Of Kinetics-Sounds: NMI of 34 classes (quoted by later readers, random assignment from memory),
and how many of them a unit prefers.
"""


@dataclass(frozen=True)
class Agreement:
    """How well clusters agree with labels; means and standard deviations over the seeds of k-means."""

    side: Side
    network: Kind
    """`random`: items thrown into clusters by chance."""
    n: int
    nmi: float
    """Normalized mutual information, arithmetic mean of the entropies: 1 for one cluster a class;
    chance gives more than 0.
    """
    nmi_deviation: float
    adjusted_mi: float
    """The same less what chance gives: 0 for random clusters, whatever their number."""
    adjusted_mi_deviation: float
    selective: tuple[str, ...] | None
    """The classes that some unit prefers strongly (`selectivity`); None where there are no units."""

    def as_row(self) -> dict[str, Any]:
        """The numbers, and the paper's beside them."""
        paper_nmi, paper_selective = PAPER[self.side, self.network]
        count = None if self.selective is None else len(self.selective)
        return asdict(self) | {
            "selective": count,
            "paper_nmi": paper_nmi,
            "paper_selective": paper_selective,
        }


@dataclass(frozen=True, eq=False)
class Clustering:
    """The table of both sides, and the vectors of this network that it was made of."""

    rows: tuple[Agreement, ...]
    k: int
    k_reason: str
    seeds: int
    classes: int
    vectors: dict[Side, Float[np.ndarray, "_items _features"]]
    labels: dict[Side, NDArray[Any]]

    def row(self, side: Side, network: Kind) -> Agreement:
        return next(row for row in self.rows if (row.side, row.network) == (side, network))

    def as_dict(self) -> dict[str, Any]:
        return {
            "k": self.k,
            "k_reason": self.k_reason,
            "kmeans_seeds": self.seeds,
            "classes": self.classes,
            "criterion": CRITERION,
            "selective_classes": {
                f"{row.side}, {row.network}": row.selective
                for row in self.rows
                if row.selective is not None
            },
            "rows": [row.as_row() for row in self.rows],
        }


def cluster(
    model: L3Net,
    shards: Shards,
    split: str = "held-out",
    held_out_fraction: float = 0.1,
    k: int = K,
    seed: int | None = None,
    seeds: int = 10,
    progress: Progress = no_progress,
) -> Clustering:
    """k-means of pool4 vectors, as they are, of the middle moment of one clip a video; `seeds`
    times, each from another start.

    `split`: `held-out` videos, `all`, or a name that the shards give to a split. At most
        `MAX_ITEMS` videos, drawn by `seed`, which is also that of the untrained rival's weights; by
        default the seed that the network began with. For vision, clips whose boxes show things of
        other labels are left out, as `probe` does. Raises ConfigError for a split that is not there
        and when fewer than two classes are labelled.
    """
    seed = initial_seed(model, seed)
    held_out = shards.held_out(held_out_fraction)
    clips = _one_clip_a_video(shards, clips_of(shards, split, held_out), seed)
    names = shards.names[clips]
    usable: dict[Side, NDArray[np.bool_]] = {
        "vision": np.array([one_label(shards[int(clip)]) for clip in clips], dtype=bool),
        "audio": np.ones(len(clips), dtype=bool),
    }
    if any(len(set(names[usable[side]])) < 2 for side in SIDES):
        raise ConfigError(
            f"clusters are compared with labels, of at least 2 classes; the {split} videos of {shards.path} have fewer"
        )
    k, reason = choose_k(k, min(int(usable[side].sum()) for side in SIDES))
    rows: list[Agreement] = []
    for side in SIDES:
        truth = names[usable[side]]
        thrown = [
            np.random.default_rng((seed, number)).integers(k, size=len(truth))
            for number in range(seeds)
        ]
        rows.append(_agreement(side, "random", truth, thrown, None))
    training = ~held_out if not held_out.all() else held_out
    vectors: dict[Side, Float[np.ndarray, "items features"]] = {}
    networks: dict[Kind, L3Net] = {
        "untrained": untrained_like(model, shards, training, seed),
        "trained": model.eval(),
    }
    for turn, (kind, network) in enumerate(networks.items()):

        def followed(offset: int = turn * len(clips)) -> Iterator[Clip]:
            for number, clip in enumerate(clips, 1):
                progress(offset + number, 2 * len(clips))
                yield shards[int(clip)]

        found = embed_clips(network, followed(), per_clip=1)
        for side in SIDES:
            vectors[side] = getattr(found, side)[usable[side]]
            truth = names[usable[side]]
            covered = selectivity(vectors[side], truth).covered
            rows.append(_agreement(side, kind, truth, k_means(vectors[side], k, seeds), covered))
    rows.sort(key=lambda row: SIDES.index(row.side))
    return Clustering(
        tuple(rows),
        k,
        reason,
        seeds,
        len(set(names)),
        vectors,
        {side: names[usable[side]] for side in SIDES},
    )


def choose_k(wanted: int, items: int) -> tuple[int, str]:
    """The number of clusters for so many items, and why."""
    if wanted < 2:
        raise ConfigError(f"k-means needs at least 2 clusters; {wanted} were asked for")
    most = max(items // ITEMS_PER_CLUSTER, 2)
    if wanted <= most:
        return wanted, "the paper's" if wanted == K else "asked for"
    return (
        most,
        f"{items} items are too few for {wanted} clusters of at least {ITEMS_PER_CLUSTER}; figures compare at the same k and n only",
    )


def k_means(
    vectors: Float[np.ndarray, "items features"], k: int, seeds: int
) -> list[NDArray[np.int32]]:
    """The cluster of each item, from `seeds` different starts."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # fewer different vectors than clusters: then some stay empty
        return [
            KMeans(k, n_init=1, random_state=seed).fit_predict(vectors) for seed in range(seeds)
        ]


def plane(
    vectors: Float[np.ndarray, "items features"], seed: int = 0
) -> Float[np.ndarray, "items 2"]:
    """Places of the vectors in a plane that keep neighbours together (t-SNE, van der Maaten &
    Hinton 2008).
    """
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    places: Float[np.ndarray, "items 2"] = TSNE(
        perplexity=perplexity, init="pca", random_state=seed
    ).fit_transform(vectors)
    return places


def _agreement(
    side: Side,
    kind: Kind,
    truth: NDArray[Any],
    found: list[NDArray[Any]],
    selective: tuple[str, ...] | None,
) -> Agreement:
    nmi = [normalized_mutual_info_score(truth, clusters) for clusters in found]
    adjusted = [adjusted_mutual_info_score(truth, clusters) for clusters in found]
    return Agreement(
        side=side,
        network=kind,
        n=len(truth),
        nmi=float(np.mean(nmi)),
        nmi_deviation=float(np.std(nmi)),
        adjusted_mi=float(np.mean(adjusted)),
        adjusted_mi_deviation=float(np.std(adjusted)),
        selective=selective,
    )


def clips_of(shards: Shards, split: str, held_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The clips of a split, `[clips]`. Raises ConfigError for one that is not there."""
    if split in ("held-out", "all"):
        return held_out if split == "held-out" else np.ones(len(shards), dtype=bool)
    split = normalize_split(split)
    if split not in shards.splits:
        known = ", ".join(sorted({"held-out", "all", *shards.splits.tolist()} - {""}))
        raise ConfigError(f"there is no split {split!r} in {shards.path}; the splits are {known}")
    return np.asarray(shards.splits == split, dtype=bool)


def _one_clip_a_video(shards: Shards, mask: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """The first labelled clip of each video of `mask`, or of `MAX_ITEMS` of them."""
    labelled = np.flatnonzero(mask & (shards.names != ""))
    first = labelled[np.sort(np.unique(shards.video_ids[labelled], return_index=True)[1])]
    return np.sort(np.random.default_rng(seed).permutation(first)[:MAX_ITEMS])
