"""The verb `cluster`."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import check_writable_file
from looklisten.app.output import Result
from looklisten.app.terminal import Bar


def cluster(
    shards: Positional[str],
    /,
    checkpoint: str = "runs/tiny",
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    split: str = "held-out",
    k: int = 64,
    kmeans_seeds: int = 10,
    device: str = "auto",
) -> Result:
    """Whether vectors fall into classes nobody told of: NMI of k-means, units that prefer a class,
    beside the untrained network.

    Args:
        shards: Labelled shards (`prepare` of a table with a column label).
        checkpoint: Folder of a run or of one checkpoint.
        out: Picture to write: the vectors of both sides in a plane (t-SNE), colored by class.
        split: held-out, all, or a split's name.
        k: Clusters; fewer where there are too few videos.
        kmeans_seeds: Times that k-means starts anew.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.data.shards import Shards
    from looklisten.evaluation.units.clustering import cluster as run
    from looklisten.evaluation.units.clustering import tsne_positions
    from looklisten.inference.unit_activations import SIDES
    from looklisten.model.networks import open_network
    from looklisten.system.files import atomic_write

    if out is not None:
        check_writable_file(out)
    network, data = open_network(checkpoint, device), Shards(shards)
    fraction = network.split.held_out_fraction
    with Bar("cluster: clips") as bar:
        found = run(network.l3net, data, split, fraction, k, network.seed, kmeans_seeds, bar)
    if out is None:
        return found.as_dict()
    from looklisten.drawing.figures import class_scatter

    titles = {
        side: f"{side}: NMI {found.row(side, 'trained').nmi:.3f}, {found.row(side, 'trained').n} items"
        for side in SIDES
    }
    with atomic_write(out) as scratch:
        scratch.write_bytes(
            class_scatter(
                [
                    (titles[side], tsne_positions(found.vectors[side]), found.labels[side])
                    for side in SIDES
                ]
            )
        )
    return found.as_dict() | {"picture": str(out)}
