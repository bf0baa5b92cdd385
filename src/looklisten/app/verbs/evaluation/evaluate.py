"""The verb `evaluate`: correspondence or localization on held-out videos."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import DEFAULT_NETWORK, DeviceName, NetworkName, UsageError
from looklisten.app.output import Output
from looklisten.app.terminal import ProgressBar
from looklisten.option_checks import check_at_least

if TYPE_CHECKING:
    from looklisten.config import ModelConfig
    from looklisten.data.shards import Shards
    from looklisten.evaluation.comparison import PairComparison
    from looklisten.evaluation.correspondence import PairScorer
    from looklisten.evaluation.localization.questions import AnnotatedMoment
    from looklisten.model.networks import Run

CHANCE_IS_HALF = ("one_of_two", "auc", "accuracy")
SHOWN_ALREADY = ("ci95", "n_videos")
"""Older names of `accuracy_ci95` and `videos`, which a terminal shows once."""


def run_evaluate(
    paths: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="[SET] PATH")],
    /,
    checkpoint: NetworkName = DEFAULT_NETWORK,
    task: Literal["correspondence", "localization"] = "correspondence",
    pairs: int | None = None,
    seed: int = 0,
    negatives: Literal["any", "other-class"] = "any",
    threshold: Literal["learned", "validation"] = "learned",
    split: str | None = None,
    method: tuple[Literal["unit", "correspondence", "similarity"], ...] = (),
    mosaic: Literal[2, 4] | None = None,
    trials: int = 2000,
    per_clip: int | None = None,
    annotations: Path | None = None,
    ids: Path | None = None,
    partial: bool = False,
    files: Path | None = None,
    device: DeviceName = "auto",
) -> Output:
    """Measure on held-out videos whether frames and sounds correspond, or where maps point.

    A network that was trained on labels answers by the direct combination of its class scores. A
    model of others with vectors of both sides is ranked by their cosine.

    Args:
        paths: Folder that `prepare` wrote; or, for localization, vggss or flickr-soundnet and the
            folder of its frames/ and audio/, or of its videos.
        task: correspondence (do frame and sound belong together?), or localization (do heat maps
            point at the sounding object, and follow the sound?).
        pairs: Measure the accuracy on at least this many pairs, half of them positive; by default
            4000, or two for each stored frame where there are fewer frames.
        seed: Seed of the pairs, of the sounds of the swap test, or of the mosaics.
        negatives: Take the sounds of any other video, or only of those with another label.
        threshold: The learned threshold, or one chosen on the run's validation videos (which needs
            train.validation_fraction).
        split: held-out, all, or the name of a split such as test; by default the videos that the
            training held out, and all where nobody knows them.
        method: With localization: several are separated by spaces; by default all methods of the
            network.
        mosaic: With localization of shards: measure without boxes. The squares of 2 or 4 videos
            are put into one frame, with the sound of one of them.
        trials: Number of mosaics.
        per_clip: Moments of each clip; by default up to 10, and 2 with boxes.
        annotations: Of vggss: vggss.json; of flickr-soundnet: its folder of XML.
        ids: Of such a set: a list whose first column names the clips that count, such as
            flickr_test.csv.
        partial: Measure a set of which a part is missing; such a figure cannot be compared.
        files: Of videos that `synth` composed: its table of the source files, over which intervals
            are computed; by default the labels.csv in the folder of the videos.
    """
    from looklisten.data.shards import Shards
    from looklisten.evaluation.all_pairs import COMPARED_PER_CLIP, all_pairs
    from looklisten.evaluation.correspondence import DEFAULT_PAIRS, evaluate
    from looklisten.evaluation.encoder_pairs import encoder_pairs
    from looklisten.evaluation.held_out import clips_of_split
    from looklisten.evaluation.localization.evaluate import localization, localization_table
    from looklisten.inference.encoder import TextEncoder
    from looklisten.model.networks import open_network

    if not 1 <= len(paths) <= 2:
        raise UsageError(
            "evaluate needs shards, or a set and its folder: looklisten evaluate SHARDS, "
            "looklisten evaluate vggss MEDIA"
        )
    if mosaic and (task != "localization" or len(paths) == 2):
        raise UsageError(
            "--mosaic measures maps of shards: looklisten evaluate SHARDS --task localization "
            f"--mosaic {mosaic}"
        )
    # Here too, because 0 moments would be taken for the default.
    check_at_least(1, pairs=pairs, per_clip=per_clip, trials=trials)
    check_at_least(0, seed=seed)
    run = open_network(checkpoint, device)
    if len(paths) == 2:
        # A public set has no held-out part: all of its clips are new to the network.
        moments = _annotated_moments(paths, annotations, ids, partial, run.l3net.config)
        with ProgressBar(f"evaluate: {paths[0]}") as progress:
            table = localization_table(run.l3net, moments, method, seed, progress)
        return Output.of_inputs(run.named_facts | table.as_dict())
    shards = Shards(paths[0])
    clips = clips_of_split(run, shards, split)
    if task == "correspondence" and isinstance(run.network, TextEncoder):
        if negatives != "any" or threshold != "learned" or files is not None:
            raise UsageError(
                "--negatives, --threshold and --files are for networks that answer yes or no; "
                f"{run.name} gives vectors alone"
            )
        with ProgressBar("evaluate: moments") as progress:
            pairs_of_encoder = encoder_pairs(
                run.network, clips, per_clip or COMPARED_PER_CLIP, seed, progress
            )
        return Output(run.named_facts | pairs_of_encoder.as_dict())
    if mosaic:
        return _mosaics(run, clips, mosaic, method, trials, per_clip, seed, files)
    if task == "localization":
        with ProgressBar("evaluate: maps") as progress:
            table = localization(run.l3net, clips, method, per_clip or 2, seed, progress, files)
        return Output.of_inputs(run.named_facts | table.as_dict())
    with ProgressBar("evaluate: batches") as progress:
        # The pairs of a threshold are of validation videos, however many clips are evaluated.
        scorer, comparison = _scorers(
            run, shards, pairs or DEFAULT_PAIRS, seed, negatives, threshold, progress
        )
        result = evaluate(run.l3net, clips, pairs, seed, progress, scorer, negatives, files)
    with ProgressBar("evaluate: moments") as progress:
        ranking = all_pairs(
            run.l3net, clips, per_clip or COMPARED_PER_CLIP, seed, progress, comparison, files
        )
    values = run.named_facts | ranking.as_dict() | result.as_dict()
    # The accuracy is that of the drawn pairs, and its interval has the older name too.
    values["accuracy_ci95"] = result.ci95
    terminal_values = {
        f"{name} (chance 0.5)" if name in CHANCE_IS_HALF else name: value
        for name, value in values.items()
        if name not in SHOWN_ALREADY
    }
    return Output(values, terminal_values=terminal_values)


def _mosaics(
    run: "Run",
    clips: "Shards",
    tiles: Literal[2, 4],
    methods: Sequence[Literal["unit", "correspondence", "similarity"]],
    trials: int,
    per_clip: int | None,
    seed: int,
    files: Path | None,
) -> Output:
    """Where maps of mosaics point, a row for each method."""
    from looklisten.evaluation.all_pairs import COMPARED_PER_CLIP
    from looklisten.evaluation.localization.mosaics import mosaics
    from looklisten.inference.localization.methods import default_method

    results = []
    for method in methods or [default_method(run.l3net)]:
        with ProgressBar(f"evaluate: mosaics, {method}") as progress:
            result = mosaics(
                run.l3net,
                clips,
                tiles,
                trials,
                per_clip=per_clip or COMPARED_PER_CLIP,
                method=method,
                seed=seed,
                progress=progress,
                files=files,
            )
        results.append(result.as_dict())
    values = results[0] if len(results) == 1 else {"rows": results}
    return Output(run.named_facts | values)


def _scorers(
    run: "Run",
    shards: "Shards",
    pairs: int,
    seed: int,
    negatives: Literal["any", "other-class"],
    threshold: str,
    progress: ProgressBar,
) -> "tuple[PairScorer | None, PairComparison | None]":
    """What answers whether pairs correspond, row by row and for all pairs.

    None where it is the network itself.
    """
    from looklisten.evaluation.comparison import fusion_comparison
    from looklisten.evaluation.supervised import (
        direct_combination,
        scorer_above,
        validation_threshold,
    )
    from looklisten.model.objectives import find_objective

    # Of a network that was saved without its training nobody knows the objective.
    if run.knows_split and find_objective(run.config.train.objective).uses_labels:
        # Such a network has no fusion that was trained on correspondence.
        combination = direct_combination(run, run.l3net, shards, pairs, seed, progress)
        return combination.scorer, combination.comparison
    if threshold == "validation":
        chosen = validation_threshold(run, run.l3net, shards, pairs, seed, progress, negatives)
        return scorer_above(run.l3net, chosen), fusion_comparison(run.l3net, chosen)
    return None, None


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
