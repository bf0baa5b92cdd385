"""Own classes: linear layers over the vectors of an index, which give its moments more tags.

A layer is a JSON file in the folder `heads` of the index. `index` applies all of them to moments
that it adds. Knows numbers and JSON; `training.own_classes` makes layers.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from looklisten.errors import StoreError
from looklisten.search.moments import IndexedMoment
from looklisten.system.files import write_json

HEADS = "heads"
NONE_OF_THESE = "none of these"
"""The class of all that is none of the examples; it is no tag."""
LEAST_OWN_SCORE = 0.5
"""A moment with a lower probability of a class does not get its tag."""


@dataclass(frozen=True, eq=False)
class OwnClasses:
    """A linear layer from both vectors of a moment to the probabilities of classes."""

    name: str
    classes: tuple[str, ...]
    """`NONE_OF_THESE` is the last."""
    weight: Float32[np.ndarray, "classes features"]
    bias: Float32[np.ndarray, " classes"]
    figures: Mapping[str, Any]
    """What cross-validation measured."""
    replaced: tuple[str, ...] = ()
    """Classes of the set that this one replaces, as long as moments may have their tags."""

    def tags(self, moments: Sequence[IndexedMoment], width: int) -> list[dict[str, float]]:
        """The tags of each moment: the classes with a probability of `LEAST_OWN_SCORE` or more."""
        logits = moment_features(moments, width) @ self.weight.T + self.bias
        # The largest is subtracted, so that no exponential overflows.
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = exponentials / exponentials.sum(1, keepdims=True)
        tags = []
        for moment, row in zip(moments, probabilities.tolist(), strict=True):
            scores = {}
            # Zeros for both vectors would give the classes of the bias alone.
            if moment.vision is not None or moment.audio is not None:
                scores = dict(zip(self.classes[:-1], row[:-1], strict=True))
            tags.append(
                {
                    name: round(score, 4)
                    for name, score in scores.items()
                    if score >= LEAST_OWN_SCORE
                }
            )
        return tags

    def check(self) -> None:
        """Raises ValueError for numbers or figures that do not fit the classes."""
        count = len(self.classes)
        if self.weight.ndim != 2 or len(self.weight) != count or self.bias.shape != (count,):
            raise ValueError("one row of weights and one bias for each class")
        if "accuracy" not in self.figures:
            raise ValueError("no accuracy")

    def save(self, db: Path) -> None:
        """Write the layer into the folder of the index."""
        folder = db / HEADS
        folder.mkdir(exist_ok=True)
        write_json(
            folder / f"{self.name}.json",
            {
                "classes": list(self.classes),
                "weight": self.weight.tolist(),
                "bias": self.bias.tolist(),
                "figures": dict(self.figures),
                "replaced": list(self.replaced),
            },
        )


def moment_features(
    moments: Sequence[IndexedMoment], width: int
) -> Float32[np.ndarray, "moments features"]:
    """Both vectors side by side; zeros for a side that a moment lacks."""
    features: NDArray[np.float32] = np.zeros((len(moments), 2 * width), np.float32)
    for row, moment in zip(features, moments, strict=True):
        if moment.vision is not None:
            row[:width] = moment.vision
        if moment.audio is not None:
            row[width:] = moment.audio
    return features


def read_own_classes(db: Path) -> dict[str, OwnClasses]:
    """All layers of an index by name. Raises StoreError for a file that is damaged."""
    layers = {}
    for path in sorted((db / HEADS).glob("*.json")):
        try:
            values = json.loads(path.read_bytes())
            layers[path.stem] = OwnClasses(
                name=path.stem,
                classes=tuple(values["classes"]),
                weight=np.array(values["weight"], np.float32),
                bias=np.array(values["bias"], np.float32),
                figures=values["figures"],
                replaced=tuple(values.get("replaced", ())),
            )
            layers[path.stem].check()
        except (ValueError, KeyError, TypeError):
            raise StoreError(
                f"{path} is damaged; remove it and run `looklisten tag` again"
            ) from None
    return layers


def remove_own_classes(db: Path, name: str) -> None:
    """Delete the file of a layer."""
    (db / HEADS / f"{name}.json").unlink()


def with_own_tags(
    moments: Sequence[IndexedMoment],
    layers: Iterable[OwnClasses],
    width: int,
    removed: Iterable[str] = (),
) -> list[IndexedMoment]:
    """The moments with the tags of all layers, and without the tags `removed`."""
    layers = list(layers)
    # Tags of these layers go first: a moment may have lost a class since it was tagged.
    dropped = {name for layer in layers for name in (*layer.classes, *layer.replaced)}
    dropped |= set(removed)
    tags = [
        {name: score for name, score in moment.tags.items() if name not in dropped}
        for moment in moments
    ]
    for layer in layers:
        for moment_tags, own_tags in zip(tags, layer.tags(moments, width), strict=True):
            moment_tags |= own_tags
    pairs = zip(moments, tags, strict=True)
    return [replace(moment, tags=moment_tags) for moment, moment_tags in pairs]
