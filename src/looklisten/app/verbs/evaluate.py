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
    from looklisten.evaluation.supervised import direct_combination, with_validated_threshold
    from looklisten.interop.loading import open_trained
    from looklisten.model.objectives import find_objective
    from looklisten.system.devices import choose_device
    from looklisten.training.provenance import warn_of_trained_videos

    if not 1 <= len(what) <= 2:
        raise UsageError(
            "evaluate needs shards, or a set and where it lies: looklisten evaluate SHARDS, looklisten evaluate vggss MEDIA"
        )
    saved = open_trained(checkpoint)
    model, settings = saved.model().to(choose_device(device).value), saved.config.train
    if len(what) == 2:
        from looklisten.evaluation.localization.evaluate import localization_of

        items = _marked(what, annotations, ids, partial, model.config)
        with Bar(f"evaluate: {what[0]}") as bar:
            return localization_of(model, items, method, seed, bar).as_dict()
    data = Shards(what[0])
    held_out = data.held_out(settings.held_out_fraction)
    warn_of_trained_videos(saved.path, saved.step, data.video_ids[held_out].tolist())
    if task == "localization":
        from looklisten.evaluation.localization.evaluate import localization

        with Bar("evaluate: maps") as bar:
            return localization(model, data, held_out, method, per_clip, seed, bar).as_dict()
    with Bar("evaluate: batches") as bar:
        answer = None
        if find_objective(settings.objective).uses_labels:
            answer = direct_combination(saved, model, data, pairs, seed, bar).answer
        elif threshold == "validation":
            answer = with_validated_threshold(saved, model, data, pairs, seed, bar, negatives)
        return run(model, data, held_out, pairs, seed, bar, answer, negatives, files).as_dict()


def _marked(
    what: Sequence[str], annotations: Path | None, ids: Path | None, partial: bool, config: Any
) -> Any:
    from looklisten.evaluation.sets.localization_sets import LAYOUTS, read_marked

    name, media = what
    if name not in LAYOUTS:
        raise UsageError(
            f"there is no set {name!r} with boxes; evaluate takes {' or '.join(LAYOUTS)} and where it lies, or shards alone"
        )
    if annotations is None:
        raise UsageError(f"evaluate {name} needs --annotations: {LAYOUTS[name].annotations}")
    return read_marked(name, media, annotations, config, ids, partial)  # type: ignore[arg-type]
