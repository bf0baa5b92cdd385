"""The verb `probe`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import Device, UsageError
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar


def run_probe(
    what: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="DATASET PATH")],
    /,
    checkpoint: str = "runs/tiny",
    compare: str = "all",
    layer: Literal["conv4_2", "pool4", "aligned", "texture"] = "conv4_2",
    cache: Path | None = None,
    partial: bool = False,
    drawings: int | None = None,
    per_clip: int = 5,
    device: Device = "auto",
) -> Output:
    """Measure what a linear classifier reads from frozen vectors, next to baselines.

    Args:
        what: The set and its folder: esc50, esc10, dcase2013, urbansound8k, imagenet; sounds or
            images (a folder with a folder a class, or a table with path, label and perhaps fold);
            shards, which is the default if there is only a folder.
        checkpoint: Folder of a run or of one checkpoint, or untrained:RECIPE for an untrained
            network.
        compare: Rivals in the table: all, none, or some joined by commas: untrained, spectrogram
            (of sounds), colors (of pictures).
        layer: conv4_2 (the paper's: 6144 numbers a second of sound, 8192 a picture), pool4 (512),
            aligned, or, of sound, texture: how all units of all layers behave over time, a clip
            classified once; not the paper's, and the best there is here.
        cache: Folder where vectors are kept, so that nothing is computed twice; by default in the
            user's cache.
        partial: Measure a public set of which a part is missing, which is no figure to compare.
        drawings: How often the untrained network is drawn, its row being the mean; by default 3
            times for sounds, once for pictures.
        per_clip: With shards: moments of each clip.
    """
    from looklisten.evaluation.sets.registry import SETS

    dataset, path = (
        what if len(what) == 2 else ("shards", *what[:1]) if len(what) == 1 else ("", "")
    )
    if dataset not in SETS and dataset != "shards":
        raise UsageError(
            f"probe needs a set and where it lies: looklisten probe DATASET PATH, DATASET being {', '.join(SETS)} or shards"
        )
    if drawings is not None and drawings < 1:
        raise UsageError(
            f"--drawings {drawings} would leave no untrained network; to have none in the table say --compare none"
        )
    if dataset == "shards":
        own = {
            "compare": compare != "all",
            "layer": layer != "conv4_2",
            "cache": cache,
            "partial": partial,
            "drawings": drawings,
        }
        if given := [f"--{option}" for option, value in own.items() if value]:
            raise UsageError(
                f"{' and '.join(given)}: for sets of sounds or pictures; shards take --checkpoint, --per-clip, --device"
            )
        return _probe_shards(path, checkpoint, per_clip, device)
    if per_clip != 5:
        raise UsageError(
            f"--per-clip {per_clip}: for shards; of {dataset} the protocol says which parts are taken"
        )
    from looklisten.evaluation.linear_probe.public_sets import probe_set
    from looklisten.system.cache import writable_cache

    rivals: Any = {"all": None, "none": []}.get(
        compare, [name.strip() for name in compare.split(",")]
    )
    with ProgressBar(f"probe: {dataset}") as bar:
        kept = cache or writable_cache("probe")
        table = probe_set(
            dataset,  # type: ignore[arg-type]
            path,
            checkpoint,
            rivals,
            layer,
            kept,
            partial,
            device,
            bar,
            drawings,
        )
    return Output.of_inputs(table.as_dict())


def _probe_shards(shards: str, checkpoint: str, per_clip: int, device: str) -> Output:
    from looklisten.data.shards import Shards
    from looklisten.evaluation.linear_probe.shards import probe
    from looklisten.interop.loading import open_trained
    from looklisten.system.devices import choose_device

    saved = open_trained(checkpoint)
    training = saved.config.train
    model = saved.model().to(choose_device(device).value)
    with ProgressBar("probe: clips") as progress:
        sides = probe(
            model, Shards(shards), per_clip, training.seed, training.held_out_fraction, progress
        )
    return Output({side: result.as_dict() for side, result in sides.items()})
