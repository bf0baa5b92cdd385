"""The verb `probe`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import UsageError
from looklisten.app.output import Result
from looklisten.app.terminal import Bar


def probe(
    what: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="DATASET PATH")],
    /,
    checkpoint: str = "runs/tiny",
    compare: str = "all",
    layer: Literal["conv4_2", "pool4", "aligned", "texture"] = "conv4_2",
    cache: Path | None = None,
    partial: bool = False,
    untrained_seeds: int | None = None,
    per_clip: int = 5,
    device: str = "auto",
) -> Result:
    """What a linear classifier reads from the frozen vectors, beside the same network untrained and
    what others reported.

    Args:
        what: The set and where it lies: esc50, esc10, dcase2013, urbansound8k, imagenet; sounds or
            images (a folder with a folder a class, or a table with path, label and perhaps fold);
            shards, which is meant where the path stands alone.
        checkpoint: Folder of a run or of one checkpoint, or untrained:RECIPE for a network as it
            begins.
        compare: Rivals in the table: all, none, or some joined by commas: untrained, spectrogram
            (of sounds), colors (of pictures).
        layer: conv4_2 (the paper's: 6144 numbers a second of sound, 8192 a picture), pool4 (512),
            aligned, or, of sound, texture: how all units of all layers behave over time, a clip
            classified once; not the paper's, and the best there is here.
        cache: Folder where vectors are kept, so that nothing is computed twice; by default in the
            user's cache.
        partial: Measure a public set of which a part is missing, which is no figure to compare.
        untrained_seeds: How many untrained networks are measured, each with another seed; their
            row is the mean. By default 3 for sounds and 1 for images.
        per_clip: With shards: moments of each clip.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.evaluation.sets.registry import LABELED_SETS

    dataset, path = (
        what if len(what) == 2 else ("shards", *what[:1]) if len(what) == 1 else ("", "")
    )
    if dataset not in LABELED_SETS and dataset != "shards":
        raise UsageError(
            f"probe needs a set and where it lies: looklisten probe DATASET PATH, DATASET being {', '.join(LABELED_SETS)} or shards"
        )
    if untrained_seeds is not None and untrained_seeds < 1:
        raise UsageError(
            f"--untrained-seeds {untrained_seeds} is less than 1; to have no untrained network in the table, use --compare none"
        )
    if dataset == "shards":
        own = {
            "compare": compare != "all",
            "layer": layer != "conv4_2",
            "cache": cache,
            "partial": partial,
            "untrained_seeds": untrained_seeds,
        }
        if given := [f"--{option.replace('_', '-')}" for option, value in own.items() if value]:
            raise UsageError(
                f"{' and '.join(given)}: for sets of sounds or pictures; shards take --checkpoint, --per-clip, --device"
            )
        return _probe_shards(path, checkpoint, per_clip, device)
    if per_clip != 5:
        raise UsageError(
            f"--per-clip {per_clip}: for shards; of {dataset} the protocol says which parts are taken"
        )
    from looklisten.evaluation.linear_probe.options import ProbeOptions
    from looklisten.evaluation.linear_probe.public_sets import probe_labeled_set
    from looklisten.system.cache import writable_cache

    options = ProbeOptions(
        compare=compare,
        layer=layer,
        cache=cache or writable_cache("probe"),
        partial=partial,
        untrained_seeds=untrained_seeds,
        device=device,
    )
    with Bar(f"probe: {dataset}") as bar:
        return probe_labeled_set(dataset, path, checkpoint, options, bar).as_dict()


def _probe_shards(shards: str, checkpoint: str, per_clip: int, device: str) -> Result:
    from looklisten.data.shards import Shards
    from looklisten.evaluation.linear_probe.shards import probe as run
    from looklisten.model.networks import open_network

    network = open_network(checkpoint, device)
    fraction = network.split.held_out_fraction
    with Bar("probe: clips") as bar:
        sides = run(network.l3net, Shards(shards), per_clip, network.seed, fraction, bar)
    return {side: result.as_dict() for side, result in sides.items()}
