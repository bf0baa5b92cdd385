"""The units of a network beside the labels of what fires them: which class each prefers, and how
many classes each tower covers.

The paper's analysis of what is learnt (section 4.3): 10 of 34 classes in vision and 11 in audio
have a unit, of an untrained network 1 and 1. Knows labels for measuring only, and no picture;
without labels units are numbers.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from looklisten.config import Side
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.linear_probe.shards import initial_seed, one_label, untrained_like
from looklisten.evaluation.units.clustering import PAPER, Kind
from looklisten.evaluation.units.selectivity import CRITERION, PURE, Selectivity, selectivity
from looklisten.inference.unit_activations import SIDES, Firing, Strongest, firings, peaks
from looklisten.model.l3net import L3Net
from looklisten.system.progress import Progress, no_progress

MAX_NAMED_VIDEOS = 20_000
"""Labelled videos that preferences are measured on; the paper has about 1,900."""
BEST_UNITS = 10
"""Units of each side that the result names; the record and the gallery have all."""

Activations = dict[Side, Float[np.ndarray, " units"]]
"""How strongly one video fires each unit of each side."""


@dataclass(frozen=True, eq=False)
class Unit:
    """One unit of a tower's last layer (pool4), and, where there are labels, the class it prefers."""

    side: Side
    number: int
    firings: tuple[Firing, ...]
    """The moments that fire it most, each of another video, the strongest first; none where nothing
    fires it.
    """
    preferred: str = ""
    average_precision: float | None = None
    """Of ranking the labelled videos by the unit, for the preferred class."""
    purity: float | None = None
    """The share of the preferred class among the videos that fire it most."""

    @property
    def name(self) -> str:
        return f"{self.side} {self.number}"

    @property
    def activation(self) -> float:
        """The strongest."""
        return self.firings[0].activation if self.firings else 0.0

    @property
    def strong(self) -> bool:
        """Whether its preference counts (`selectivity.CRITERION`)."""
        return self.purity is not None and self.purity >= PURE


@dataclass(frozen=True)
class Coverage:
    """The classes that the units of one side of one network prefer strongly, measured on `n` videos
    of `classes` classes.
    """

    side: Side
    network: Kind
    n: int
    classes: int
    covered: tuple[str, ...]

    def as_row(self) -> dict[str, Any]:
        """The numbers, and beside them the paper's, which are of 34 classes."""
        return asdict(self) | {
            "covered": len(self.covered),
            "paper_covered_of_34": PAPER[self.side, self.network][1],
        }


@dataclass(frozen=True, eq=False)
class Units:
    """All units of both towers, with the moments that fire them most."""

    units: tuple[Unit, ...]
    coverage: tuple[Coverage, ...]
    """Of each side, this network's and the untrained one's; empty for a side without labels of two
    classes.
    """
    videos: int
    clips: int

    def of(self, side: Side) -> list[Unit]:
        return [unit for unit in self.units if unit.side == side]

    def best(self, side: Side, count: int = BEST_UNITS) -> list[Unit]:
        """The most selective units of a side, each of another class as long as there is one;
        without labels those that fire most.
        """
        ranked = sorted(
            (unit for unit in self.of(side) if unit.firings),
            key=lambda u: (-(u.average_precision or 0), -u.activation),
        )
        firsts = {unit.preferred: unit for unit in reversed(ranked) if unit.preferred}
        return sorted(ranked, key=lambda unit: firsts.get(unit.preferred) is not unit)[:count]

    def as_dict(self) -> dict[str, Any]:
        return {
            "videos": self.videos,
            "clips": self.clips,
            "units": {side: len(self.of(side)) for side in SIDES},
            "never_fire": {side: sum(not unit.firings for unit in self.of(side)) for side in SIDES},
            "criterion": CRITERION
            if self.coverage
            else "no labels of at least two classes, so units are numbers",
            "covered_classes": {f"{row.side}, {row.network}": row.covered for row in self.coverage},
            "best_units": [
                {
                    "name": unit.name,
                    "class": unit.preferred or None,
                    "average_precision": unit.average_precision,
                    "purity": unit.purity,
                    "activation": unit.activation,
                }
                for side in SIDES
                for unit in self.best(side)
            ],
            "rows": [row.as_row() for row in self.coverage],
        }


@dataclass(frozen=True, eq=False)
class Named:
    """The videos that preferences are measured on, with their class; for vision those alone whose
    frames show nothing else.
    """

    of_video: dict[Side, dict[str, str]]

    def preferences(self, seen: dict[str, Activations]) -> dict[Side, Selectivity]:
        """Of the units of each side that has labels of two classes."""
        return {
            side: selectivity(
                np.stack([seen[video][side] for video in names]), np.array(list(names.values()))
            )
            for side, names in self.of_video.items()
            if len(set(names.values())) >= 2
        }

    def coverage(self, network: Kind, preferences: dict[Side, Selectivity]) -> list[Coverage]:
        return [
            Coverage(side, network, len(self.of_video[side]), len(found.classes), found.covered)
            for side, found in preferences.items()
        ]


def units(
    model: L3Net,
    shards: Shards,
    mask: Bool[np.ndarray, " clips"],
    top: int = 5,
    per_clip: int = 1,
    seed: int | None = None,
    progress: Progress = no_progress,
) -> Units:
    """For each unit of both towers the `top` videos that fire it most, where in them it fires, and
    the class it prefers.

    Each video that `mask` allows stands for itself with one moment, the paper's way: of `per_clip`
    evenly spread over each of its clips the one that fires the unit most. Preferences are measured
    on at most `MAX_NAMED_VIDEOS` labelled videos, drawn by `seed`; videos whose clips bear several
    labels have no single right answer and are left out, and for vision so are those whose boxes
    show things of other labels. The untrained rival has the initial weights of `seed`, by default
    those that the network began with, and batch-norm statistics from the training videos. How many
    classes have a unit moves with the drawing: it was 9 to 12 on the videos of the demo. Memory
    does not grow with the set, but for those videos. Raises ConfigError for numbers below 1 or no
    clip.
    """
    if top < 1 or per_clip < 1:
        raise ConfigError(
            f"units are shown by at least 1 clip, of at least 1 moment each; {top} and {per_clip} were asked for"
        )
    if not mask.any():
        raise ConfigError(f"no clip of {shards.path} is left to look at; choose another split")
    seed = initial_seed(model, seed)
    named = _named(shards, mask, seed)
    labelled = np.isin(shards.video_ids, list(named.of_video["audio"])) & mask
    clips, rivals = int(mask.sum()), int(labelled.sum())

    def after(before: int) -> Progress:
        return lambda done, part, /, **_: progress(
            before + done, max(clips + rivals, before + part)
        )

    width = model.config.widths[-1]
    strongest = {side: Strongest(width, top) for side in SIDES}
    videos, seen = 0, dict[str, Activations]()
    for one in peaks(model.eval(), shards, mask, per_clip, after(0)):
        videos += 1
        for side in SIDES:
            strongest[side].add(one.activations[side], one.places[side])
        if one.video_id in named.of_video["audio"]:
            seen[one.video_id] = one.activations
    preferences = named.preferences(seen)
    coverage = named.coverage("trained", preferences)
    if coverage:
        rival = untrained_like(model, shards, ~mask if not mask.all() else mask, seed)
        of_rival = {
            one.video_id: one.activations
            for one in peaks(rival, shards, labelled, per_clip, after(clips))
        }
        coverage += named.coverage("untrained", named.preferences(of_rival))
    found = firings(model, shards, strongest, per_clip, after(clips + rivals))
    return Units(
        units=tuple(
            _unit(side, number, row, preferences.get(side))
            for side in SIDES
            for number, row in enumerate(found[side])
        ),
        coverage=tuple(sorted(coverage, key=lambda row: SIDES.index(row.side))),
        videos=videos,
        clips=clips,
    )


def _unit(side: Side, number: int, row: tuple[Firing, ...], found: Selectivity | None) -> Unit:
    """A unit that nothing fires prefers nothing, and neither does one where every class has too few
    items.
    """
    if found is None or not row or not found.large[found.preferred[number]]:
        return Unit(side, number, row)
    preferred = found.classes[found.preferred[number]]
    return Unit(
        side,
        number,
        row,
        preferred,
        float(found.average_precision[number]),
        float(found.purity[number]),
    )


def _named(shards: Shards, mask: Bool[np.ndarray, " clips"], seed: int) -> Named:
    """The labelled videos of `mask`, at most `MAX_NAMED_VIDEOS`, whose clips all bear the same
    label.
    """
    clips_of: dict[str, list[int]] = {}
    for clip in np.flatnonzero(
        mask & np.isin(shards.video_ids, shards.video_ids[shards.names != ""])
    ).tolist():
        clips_of.setdefault(str(shards.video_ids[clip]), []).append(clip)
    labels = {
        video: {str(shards.names[clip]) for clip in clips} for video, clips in clips_of.items()
    }
    alike = [video for video, names in labels.items() if len(names) == 1 and names != {""}]
    drawn = sorted(np.random.default_rng(seed).permutation(len(alike))[:MAX_NAMED_VIDEOS].tolist())
    audio = {alike[number]: next(iter(labels[alike[number]])) for number in drawn}
    vision = {
        video: name
        for video, name in audio.items()
        if all(one_label(shards[clip]) for clip in clips_of[video])
    }
    return Named({"vision": vision, "audio": audio})
