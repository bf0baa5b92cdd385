"""The units of a network with the classes that they prefer, and how many classes each side covers.

This is the paper's analysis of what is learned (section 4.3): 10 of 34 classes in vision and 11 in
audio have a unit; of an untrained network 1 and 1. Knows labels for measuring only, and no image.
Without labels units have numbers only.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from looklisten.config import SIDES, Side
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.held_out import clips_to_evaluate, network_of
from looklisten.evaluation.linear_probe.shards import has_single_label
from looklisten.evaluation.units.clustering import PAPER_FIGURES, NetworkKind
from looklisten.evaluation.units.selectivity import CRITERION, PURE, Selectivity, selectivity
from looklisten.evaluation.untrained import initial_seed, untrained_like
from looklisten.inference.unit_activations import (
    StrongestVideos,
    UnitActivation,
    strongest_activations,
    video_activations,
)
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run
from looklisten.option_checks import check_at_least
from looklisten.system.progress import Progress, no_progress

MAX_LABELED_VIDEOS = 20_000
"""Labeled videos that preferences are measured on; the paper has about 1,900."""
BEST_UNITS = 10
"""Units of each side in the result; the page of units has all."""
NO_CRITERION = "no labels of at least two classes, so units are numbers"

Activations = dict[Side, Float[np.ndarray, " units"]]
"""How strongly one video activates each unit of each side."""


@dataclass(frozen=True, eq=False)
class Unit:
    """One unit of a tower's last layer (pool4), with the class it prefers, if labels are known."""

    side: Side
    number: int
    strongest: tuple[UnitActivation, ...]
    """The moments that activate it most, each of another video, the strongest first.

    Empty where no moment activates it.
    """
    preferred: str = ""
    average_precision: float | None = None
    """Of ranking the labeled videos by the unit, for the preferred class."""
    purity: float | None = None
    """The share of the preferred class among the videos that activate it most."""

    @property
    def name(self) -> str:
        return f"{self.side} {self.number}"

    @property
    def activation(self) -> float:
        """The strongest."""
        return self.strongest[0].activation if self.strongest else 0.0

    @property
    def strong(self) -> bool:
        """Whether its preference is strong (`selectivity.CRITERION`)."""
        return self.purity is not None and self.purity >= PURE


@dataclass(frozen=True)
class Coverage:
    """The classes that the units of one side of a network prefer strongly.

    Measured on `n` videos of `classes` classes.
    """

    side: Side
    network: NetworkKind
    n: int
    classes: int
    covered: tuple[str, ...]

    def as_row(self) -> dict[str, Any]:
        """The figures, and those of the paper, which has 34 classes."""
        return asdict(self) | {
            "covered": len(self.covered),
            "paper_covered_of_34": PAPER_FIGURES[self.side, self.network][1],
        }


@dataclass(frozen=True, eq=False)
class Units:
    """All units of both towers, with the moments that activate them most."""

    units: tuple[Unit, ...]
    coverage: tuple[Coverage, ...]
    """Of each side, for this network and for the untrained one.

    Empty for a side without labels of two classes.
    """
    clips: Shards
    """The clips that were searched."""

    def of(self, side: Side) -> list[Unit]:
        """The units of one side."""
        return [unit for unit in self.units if unit.side == side]

    def best(self, side: Side, count: int = BEST_UNITS) -> list[Unit]:
        """The most selective units of a side, the first ones of different classes.

        Without labels, those that are activated most.
        """
        # A unit that is never active has nothing to show.
        active = [unit for unit in self.of(side) if unit.strongest]
        active.sort(key=lambda unit: (-(unit.average_precision or 0), -unit.activation))
        best_of_class: dict[str, Unit] = {}
        for unit in active:
            if unit.preferred:
                best_of_class.setdefault(unit.preferred, unit)
        # A stable sort: the best unit of each class comes first, then all others, each in order.
        active.sort(key=lambda unit: best_of_class.get(unit.preferred) is not unit)
        return active[:count]

    def as_dict(self) -> dict[str, Any]:
        best_units: list[dict[str, Any]] = []
        unit_counts = {}
        never_active = {}
        for side in SIDES:
            best_units += [_summary(unit, bool(self.coverage)) for unit in self.best(side)]
            unit_counts[side] = len(self.of(side))
            never_active[side] = sum(not unit.strongest for unit in self.of(side))
        return {
            "videos": len(np.unique(self.clips.video_ids)),
            "clips": len(self.clips),
            "units": unit_counts,
            "never_active": never_active,
            "criterion": CRITERION if self.coverage else NO_CRITERION,
            "covered_classes": {f"{row.side}, {row.network}": row.covered for row in self.coverage},
            "best_units": best_units,
            "rows": [row.as_row() for row in self.coverage],
        }


def _summary(unit: Unit, has_labels: bool) -> dict[str, Any]:
    """The figures of a unit; without labels there is nothing to say of classes."""
    if not has_labels:
        return {"name": unit.name, "activation": unit.activation}
    return {
        "name": unit.name,
        "class": unit.preferred or None,
        "average_precision": unit.average_precision,
        "purity": unit.purity,
        "activation": unit.activation,
    }


@dataclass(frozen=True, eq=False)
class LabeledVideos:
    """The videos that preferences are measured on, with their class, for each side.

    For vision, only videos whose frames show objects of their class alone.
    """

    class_of_video: dict[Side, dict[str, str]]

    def preferences(self, activations_of: dict[str, Activations]) -> dict[Side, Selectivity]:
        """The preferences of the units of each side that has labels of two classes."""
        result = {}
        for side, class_of_video in self.class_of_video.items():
            classes = np.array(list(class_of_video.values()))
            if len(set(classes.tolist())) < 2:
                continue
            activations = np.stack([activations_of[video][side] for video in class_of_video])
            result[side] = selectivity(activations, classes)
        return result

    def coverage(
        self, network: NetworkKind, preferences: dict[Side, Selectivity]
    ) -> list[Coverage]:
        """The coverage of each side that has preferences."""
        rows = []
        for side, preference in preferences.items():
            videos = len(self.class_of_video[side])
            classes = len(preference.classes)
            rows.append(Coverage(side, network, videos, classes, preference.covered))
        return rows


def units(
    network: L3Net | Run,
    shards: Shards | str | Path,
    top: int = 5,
    per_clip: int = 1,
    seed: int | None = None,
    progress: Progress = no_progress,
) -> Units:
    """The `top` videos that activate each unit of both towers most, and the class that it prefers.

    Each video counts with one moment, as in the paper: of `per_clip` evenly spread over each of its
    clips, the one that activates the unit most. Preferences are measured on at most
    `MAX_LABELED_VIDEOS` labeled videos. Videos whose clips have several labels have no single right
    answer and are left out. For vision, so are those whose boxes show objects of other labels.
    Memory does not grow with the set, but for the labeled videos.

    The untrained network has the initial weights of `seed`, and batch-norm statistics from the
    clips of the folder that are not searched. The number of covered classes depends on these
    weights: it is 9 to 12 on the videos of the demo.

    `network`: an opened run, or a plain network.
    `shards`: a folder or its shards, for the held-out videos of the run; or a selection of clips
        (`Shards.select`), which is taken as it is.
    `seed`: draws labeled videos and the weights of the untrained network; by default the seed of
        the network itself.

    Raises ConfigError for numbers below 1 and for no clip.
    """
    check_at_least(1, top=top, per_clip=per_clip)
    model = network_of(network)
    clips = clips_to_evaluate(network, shards)
    if not len(clips):
        raise ConfigError(f"no clip of {clips.path} is left; choose another split")
    seed = initial_seed(model, seed)
    labeled_videos = videos_with_one_label(clips, seed)
    audio_videos = labeled_videos.class_of_video["audio"]
    labeled_clips = clips.select(np.isin(clips.video_ids, list(audio_videos)))
    # Clips of the first pass, and of the second one by the untrained network.
    first_passes = len(clips) + len(labeled_clips)

    def after(before: int) -> Progress:
        # The third pass has as many moments as it finds, which is not known before.
        return lambda done, part, /, **_: progress(before + done, max(first_passes, before + part))

    strongest = {side: StrongestVideos(model.features[side], top) for side in SIDES}
    activations_of: dict[str, Activations] = {}
    for video in video_activations(model.eval(), clips, per_clip, after(0)):
        for side in SIDES:
            strongest[side].add(video.activations[side], video.moments[side])
        # Only for labeled videos: activations of all videos would not fit into memory.
        if video.video_id in audio_videos:
            activations_of[video.video_id] = video.activations
    preferences = labeled_videos.preferences(activations_of)
    coverage = labeled_videos.coverage("trained", preferences)
    if coverage:
        # For held-out clips, these are the training clips.
        other_clips = clips.complement()
        untrained = untrained_like(model, other_clips if len(other_clips) else clips, seed)
        untrained_activations: dict[str, Activations] = {}
        for video in video_activations(untrained, labeled_clips, per_clip, after(len(clips))):
            untrained_activations[video.video_id] = video.activations
        coverage += labeled_videos.coverage(
            "untrained", labeled_videos.preferences(untrained_activations)
        )
    activations = strongest_activations(model, clips, strongest, per_clip, after(first_passes))
    all_units = []
    for side in SIDES:
        for number, moments in enumerate(activations[side]):
            all_units.append(_unit(side, number, moments, preferences.get(side)))
    coverage.sort(key=lambda row: SIDES.index(row.side))
    return Units(tuple(all_units), tuple(coverage), clips)


def _unit(
    side: Side,
    number: int,
    strongest: tuple[UnitActivation, ...],
    preference: Selectivity | None,
) -> Unit:
    # A unit that is never active prefers no class, and neither does one where every class has too
    # few items.
    if preference is None or not strongest or not preference.large[preference.preferred[number]]:
        return Unit(side, number, strongest)
    return Unit(
        side,
        number,
        strongest,
        preferred=preference.classes[preference.preferred[number]],
        average_precision=float(preference.average_precision[number]),
        purity=float(preference.purity[number]),
    )


def videos_with_one_label(clips: Shards, seed: int) -> LabeledVideos:
    """At most `MAX_LABELED_VIDEOS` videos, each of whose clips has the same single label."""
    clips_of: dict[str, list[int]] = {}
    labeled_videos = clips.video_ids[clips.names != ""]
    for clip in np.flatnonzero(np.isin(clips.video_ids, labeled_videos)).tolist():
        clips_of.setdefault(str(clips.video_ids[clip]), []).append(clip)
    single_labels: dict[str, str] = {}
    for video, numbers in clips_of.items():
        labels = {str(clips.names[clip]) for clip in numbers}
        if len(labels) == 1 and labels != {""}:
            single_labels[video] = labels.pop()
    videos = list(single_labels)
    # In the order of the clips, so that the result does not depend on the draw below the limit.
    sampled = np.random.default_rng(seed).permutation(len(videos))[:MAX_LABELED_VIDEOS]
    audio = {}
    vision = {}
    for number in sorted(sampled.tolist()):
        video = videos[number]
        audio[video] = single_labels[video]
        if all(has_single_label(clips[clip]) for clip in clips_of[video]):
            vision[video] = single_labels[video]
    return LabeledVideos({"vision": vision, "audio": audio})
