"""The verb `evaluate`: correspondence or localization on held-out videos."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import DeviceName, NetworkName, UsageError
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar

if TYPE_CHECKING:
    from looklisten.config import ModelConfig
    from looklisten.data.shards import Shards
    from looklisten.evaluation.correspondence import PairScorer
    from looklisten.evaluation.localization.questions import AnnotatedMoment
    from looklisten.model.networks import Run


def run_evaluate(
    paths: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="[SET] PATH")],
    /,
    checkpoint: NetworkName = "runs/tiny",
    task: Literal["correspondence", "localization"] = "correspondence",
    pairs: int = 4000,
    seed: int = 0,
    negatives: Literal["any", "other-class"] = "any",
    threshold: Literal["learned", "validation"] = "learned",
    method: tuple[Literal["unit", "correspondence", "similarity"], ...] = (),
    per_clip: int = 2,
    annotations: Path | None = None,
    ids: Path | None = None,
    partial: bool = False,
    files: Path | None = None,
    device: DeviceName = "auto",
) -> Output:
    """Measure on held-out videos whether frames and sounds correspond, or where maps point.

    A network that was trained on labels answers by the direct combination of its class scores.

    Args:
        paths: Folder that `prepare` wrote; or, for localization, vggss or flickr-soundnet and the
            folder of its frames/ and audio/, or of its videos.
        task: correspondence (do frame and sound belong together?), or localization (do heat maps
            point at the sounding object, and follow the sound?).
        pairs: Evaluate at least this many pairs, half of them positive.
        seed: Seed of the pairs, or of the sounds of the swap test.
        negatives: Take the sounds of any other video, or only of those with another label.
        threshold: The learned threshold, or one chosen on the run's validation videos (which needs
            train.validation_fraction).
        method: With localization: several are separated by spaces; by default all methods of the
            network.
        per_clip: With localization of shards: moments of each clip.
        annotations: Of vggss: vggss.json; of flickr-soundnet: its folder of XML.
        ids: Of such a set: a list whose first column names the clips that count, such as
            flickr_test.csv.
        partial: Measure a set of which a part is missing; such a figure cannot be compared.
        files: Of videos that `synth` composed: its table of the source files, over which intervals
            are computed; by default the labels.csv in the folder of the videos.
    """
    from looklisten.data.shards import Shards
    from looklisten.evaluation.correspondence import evaluate
    from looklisten.evaluation.localization.evaluate import localization, localization_table
    from looklisten.model.networks import open_network

    if not 1 <= len(paths) <= 2:
        raise UsageError(
            "evaluate needs shards, or a set and its folder: looklisten evaluate SHARDS, "
            "looklisten evaluate vggss MEDIA"
        )
    run = open_network(checkpoint, device)
    if len(paths) == 2:
        # A public set has no held-out part: all of its clips are new to the network.
        moments = _annotated_moments(paths, annotations, ids, partial, run.l3net.config)
        with ProgressBar(f"evaluate: {paths[0]}") as progress:
            table = localization_table(run.l3net, moments, method, seed, progress)
        return Output.of_inputs(run.named_facts | table.as_dict())
    shards = Shards(paths[0])
    if task == "localization":
        with ProgressBar("evaluate: maps") as progress:
            table = localization(run, shards, method, per_clip, seed, progress)
        return Output.of_inputs(run.named_facts | table.as_dict())
    with ProgressBar("evaluate: batches") as progress:
        scorer = _pair_scorer(run, shards, pairs, seed, negatives, threshold, progress)
        result = evaluate(run, shards, pairs, seed, progress, scorer, negatives, files)
    return Output(run.named_facts | result.as_dict())


def _pair_scorer(
    run: "Run",
    shards: "Shards",
    pairs: int,
    seed: int,
    negatives: Literal["any", "other-class"],
    threshold: str,
    progress: ProgressBar,
) -> "PairScorer | None":
    """What answers whether pairs correspond, if it is not the network itself."""
    from looklisten.evaluation.supervised import (
        direct_combination,
        scorer_with_validation_threshold,
    )
    from looklisten.model.objectives import find_objective

    if find_objective(run.config.train.objective).uses_labels:
        # Such a network has no fusion that was trained on correspondence.
        return direct_combination(run, run.l3net, shards, pairs, seed, progress).scorer
    if threshold == "validation":
        return scorer_with_validation_threshold(
            run, run.l3net, shards, pairs, seed, progress, negatives
        )
    return None


def _annotated_moments(
    paths: Sequence[str],
    annotations: Path | None,
    ids: Path | None,
    partial: bool,
    config: "ModelConfig",
) -> "Sequence[AnnotatedMoment]":
    """The moments of VGG-SS or Flickr-SoundNet, with their boxes."""
    from looklisten.evaluation.sets.annotated_media import read_annotated_moments
    from looklisten.evaluation.sets.registry import LOCALIZATION_SETS

    name, media = paths
    if name not in LOCALIZATION_SETS:
        raise UsageError(
            f"there is no set {name!r} with boxes; evaluate takes "
            f"{' or '.join(LOCALIZATION_SETS)} and its folder, or shards alone"
        )
    localization_set = LOCALIZATION_SETS[name]
    if annotations is None:
        raise UsageError(f"evaluate {name} needs --annotations: {localization_set.annotations}")
    return read_annotated_moments(localization_set, media, annotations, config, ids, partial)
