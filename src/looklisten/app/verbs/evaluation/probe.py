"""The verb `probe`: linear probes of labeled sets and of shards."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import DEFAULT_NETWORK, NETWORK_HELP, UsageError
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.evaluation.linear_probe.options import ProbeOptions

_DEFAULTS = ProbeOptions()
OPTIONS_OF_SHARDS = ("per_clip",)
OPTIONS_OF_LABELED_SETS = ("compare", "layer", "cache", "partial", "untrained_seeds")

CHECKPOINT_HELP = f"{NETWORK_HELP} For a labeled set also untrained:RECIPE, an untrained network."


def run_probe(
    paths: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="[DATASET] PATH")],
    /,
    checkpoint: Annotated[str, tyro.conf.arg(help=CHECKPOINT_HELP)] = DEFAULT_NETWORK,
    options: Annotated[ProbeOptions, tyro.conf.arg(name="")] = _DEFAULTS,
) -> Output:
    """Measure what a linear classifier reads from frozen vectors, next to baselines.

    Args:
        paths: The dataset and its folder: esc50, esc10, dcase2013, urbansound8k, imagenet; sounds
            or images (a folder per class, or a table with path, label and optionally fold); shards,
            which can be left out.
    """
    dataset, path = _dataset_and_path(paths)
    # An option without effect would hide a mistake, so it is refused.
    if dataset == "shards":
        if unused := _changed(options, OPTIONS_OF_LABELED_SETS):
            raise UsageError(
                f"{' and '.join(unused)}: only for sets of sounds or images; shards take "
                "--checkpoint, --per-clip and --device"
            )
        return _probe_shards(path, checkpoint, options)
    if unused := _changed(options, OPTIONS_OF_SHARDS):
        raise UsageError(
            f"{' and '.join(unused)}: only for shards; the protocol of {dataset} says what is "
            "classified"
        )
    return _probe_labeled_set(dataset, path, checkpoint, options)


def _dataset_and_path(paths: Sequence[str]) -> tuple[str, str]:
    from looklisten.evaluation.sets.registry import LABELED_SETS

    if len(paths) == 1:
        return "shards", paths[0]
    if len(paths) != 2 or paths[0] not in [*LABELED_SETS, "shards"]:
        raise UsageError(
            "probe needs a dataset and its folder: looklisten probe DATASET PATH, where DATASET is "
            f"{', '.join(LABELED_SETS)} or shards"
        )
    return paths[0], paths[1]


def _changed(options: ProbeOptions, names: Sequence[str]) -> list[str]:
    """The options among `names` that differ from their defaults, as they are typed."""
    changed = [name for name in names if getattr(options, name) != getattr(_DEFAULTS, name)]
    return [f"--{name.replace('_', '-')}" for name in changed]


def _probe_labeled_set(dataset: str, path: str, checkpoint: str, options: ProbeOptions) -> Output:
    from looklisten.evaluation.linear_probe.public_sets import probe_labeled_set
    from looklisten.model.networks import open_network
    from looklisten.system.cache import writable_cache

    # The library caches only on request; the command line has a folder for it.
    options = replace(options, cache=options.cache or writable_cache("probe"))
    run = open_network(checkpoint, options.device)
    with ProgressBar(f"probe: {dataset}") as progress:
        table = probe_labeled_set(dataset, path, run, options, progress)
    return Output.of_inputs(run.named_facts | table.as_dict())


def _probe_shards(path: str, checkpoint: str, options: ProbeOptions) -> Output:
    from looklisten.evaluation.linear_probe.shards import probe
    from looklisten.model.networks import open_network

    run = open_network(checkpoint, options.device)
    with ProgressBar("probe: clips") as progress:
        sides = probe(run, path, options.per_clip, progress=progress)
    return Output(run.named_facts | {side: result.as_dict() for side, result in sides.items()})
