"""The verb `cluster`: k-means clusters and single units against classes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import (
    DEFAULT_NETWORK,
    DeviceName,
    NetworkName,
    check_writable_file,
)
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar

if TYPE_CHECKING:
    from looklisten.evaluation.units.clustering import Clustering


def run_cluster(
    shards: Positional[str],
    /,
    checkpoint: NetworkName = DEFAULT_NETWORK,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    split: str = "held-out",
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 64,
    kmeans_seeds: int = 10,
    device: DeviceName = "auto",
) -> Output:
    """Measure how well clusters of vectors, and single units, agree with classes.

    The untrained network is measured in the same way.

    Args:
        shards: Labeled shards (`prepare` of a table with a column label).
        out: Image to write: the vectors of both sides in a plane (t-SNE), colored by class.
        split: held-out, all, or the name of a split.
        k: Number of clusters; fewer where there are too few videos.
        kmeans_seeds: Runs of k-means, each from other starting points.
    """
    from looklisten.evaluation.units.clustering import cluster
    from looklisten.model.networks import open_network

    if out is not None:
        check_writable_file(out)
    run = open_network(checkpoint, device)
    with ProgressBar("cluster: clips") as progress:
        result = cluster(run, shards, split, k=k, kmeans_seeds=kmeans_seeds, progress=progress)
    # The image needs t-SNE, which takes longer than the figures, so it is made on request.
    if out is None:
        return Output(run.named_facts | result.as_dict())
    _write_image(out, result)
    return Output(run.named_facts | result.as_dict() | {"image": out})


def _write_image(out: Path, result: "Clustering") -> None:
    """The vectors of each side as points of a plane."""
    from looklisten.config import SIDES
    from looklisten.drawing.figures import class_scatter
    from looklisten.evaluation.units.clustering import tsne_positions
    from looklisten.system.files import atomic_write

    panels = []
    for side in SIDES:
        row = result.row(side, "trained")
        title = f"{side}: NMI {row.nmi:.3f}, {row.n} items"
        panels.append((title, tsne_positions(result.vectors[side]), result.labels[side]))
    with atomic_write(out) as scratch:
        scratch.write_bytes(class_scatter(panels))
