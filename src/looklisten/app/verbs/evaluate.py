"""The verb `evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import UsageError
from looklisten.app.output import Result
from looklisten.app.terminal import Bar


def evaluate(
    what: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="[SET] PATH")],
    /,
    checkpoint: str = "runs/tiny",
    task: Literal["correspondence", "localization"] = "correspondence",
    pairs: int = 4000,
    seed: int = 0,
    negatives: Literal["any", "other-class"] = "any",
    threshold: Literal["learnt", "validation"] = "learnt",
    method: tuple[Literal["unit", "correspondence", "similarity"], ...] = (),
    per_clip: int = 2,
    annotations: Path | None = None,
    ids: Path | None = None,
    partial: bool = False,
    files: Path | None = None,
    device: str = "auto",
) -> Result:
    """How often the network is right about "does this sound belong to this picture?" on held-out
    videos; or where it points.

    A network that was trained on labels answers by the direct combination of its class scores.

    Args:
        what: Folder that `prepare` wrote; or, for localization, vggss or flickr-soundnet and the
            folder of its frames/ and audio/, or of its videos.
        checkpoint: Folder of a run, of one checkpoint or of a published network, or a name on the
            Hugging Face Hub (org/name).
        task: correspondence (yes and no), or localization (do maps point at what sounds, and follow
            it?).
        pairs: At least so many pairs, half of them positive.
        seed: Draws the pairs, or the sounds that stand in for a frame's own.
        negatives: The sounds of any other video, or of those with another label.
        threshold: The yes and no as it was learnt, or with its threshold chosen on the run's
            validation videos (it must have kept some: train.validation_fraction).
        method: With localization: by default all that the network can; several one after the other.
        per_clip: With localization of shards: moments of each clip.
        annotations: Of vggss: vggss.json; of flickr-soundnet: its folder of XML.
        ids: Of such a set: a list whose first column names the clips that count, such as
            flickr_test.csv.
        partial: Measure a set of which a part is missing, which is no figure to compare.
        files: Of videos that `synth` composed: its table of the files that each is made of, over
            which intervals are taken; by default the labels.csv beside the videos.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.data.shards import Shards
    from looklisten.evaluation.correspondence import evaluate as run
    from looklisten.evaluation.supervised import (
        direct_combination,
        scorer_with_validation_threshold,
    )
    from looklisten.model.networks import open_network

    if not 1 <= len(what) <= 2:
        raise UsageError(
            "evaluate needs shards, or a set and where it lies: looklisten evaluate SHARDS, looklisten evaluate vggss MEDIA"
        )
    network = open_network(checkpoint, device)
    model = network.l3net
    if len(what) == 2:
        from looklisten.evaluation.localization.evaluate import localization_table

        items = _marked(what, annotations, ids, partial, model.config)
        with Bar(f"evaluate: {what[0]}") as bar:
            return localization_table(model, items, method, seed, bar).as_dict()
    data = Shards(what[0])
    held_out = network.held_out(data)
    if task == "localization":
        from looklisten.evaluation.localization.evaluate import localization

        with Bar("evaluate: maps") as bar:
            return localization(model, held_out, method, per_clip, seed, bar).as_dict()
    with Bar("evaluate: batches") as bar:
        scorer = None
        if network.config.train.objective == "labels":
            scorer = direct_combination(network, model, data, pairs, seed, bar).scorer
        elif threshold == "validation":
            scorer = scorer_with_validation_threshold(
                network, model, data, pairs, seed, bar, negatives
            )
        return run(model, held_out, pairs, seed, bar, scorer, negatives, files).as_dict()


def _marked(
    what: Sequence[str], annotations: Path | None, ids: Path | None, partial: bool, config: Any
) -> Any:
    from looklisten.evaluation.sets.annotated_media import read_annotated_moments
    from looklisten.evaluation.sets.registry import LOCALIZATION_SETS

    name, media = what
    if name not in LOCALIZATION_SETS:
        raise UsageError(
            f"there is no set {name!r} with boxes; evaluate takes "
            f"{' or '.join(LOCALIZATION_SETS)} and where it lies, or shards alone"
        )
    localization_set = LOCALIZATION_SETS[name]
    if annotations is None:
        raise UsageError(f"evaluate {name} needs --annotations: {localization_set.annotations}")
    return read_annotated_moments(localization_set, media, annotations, config, ids, partial)
