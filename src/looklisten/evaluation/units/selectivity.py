"""How selective each unit is for a class, and which classes have a selective unit.

This is the paper's analysis of what is learned (section 4.3). Knows activations and labels only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from looklisten.errors import ConfigError

TOP_ITEMS = 20
PURE = 0.8
LEAST_ITEMS = 5
"""A class of fewer items is preferred by no unit: by chance alone some unit of hundreds has its one
or two items on top.
"""
CRITERION = (
    f"a class of at least {LEAST_ITEMS} items counts when, of the {TOP_ITEMS} items that activate "
    f"some unit most, at least {PURE:.0%} are of it"
)


@dataclass(frozen=True, eq=False)
class Selectivity:
    """For each unit the class it prefers.

    The paper counts the classes that have a unit of strong preference, and does not state its
    criterion. Here a preference is strong when at least `PURE` of the `TOP_ITEMS` items that
    activate the unit most are of one class; of a class with fewer items, all of them. Classes of
    fewer than `LEAST_ITEMS` items are preferred by no unit. Where all classes are so small,
    `preferred` is the best of them and no preference is strong.
    """

    classes: tuple[str, ...]
    preferred: Int[np.ndarray, " units"]
    """The class with the highest average precision, as an index into `classes`."""
    average_precision: Float[np.ndarray, " units"]
    """Of ranking all items by the unit, for the preferred class."""
    purity: Float[np.ndarray, " units"]
    """The share of the preferred class among the unit's top items."""
    large: Bool[np.ndarray, " classes"]
    """Which classes have enough items to be preferred."""

    @property
    def covered(self) -> tuple[str, ...]:
        """The classes that some unit prefers strongly."""
        strong = (self.purity >= PURE) & self.large[self.preferred]
        indices = sorted(set(self.preferred[strong].tolist()))
        return tuple(self.classes[index] for index in indices)


def selectivity(activations: Float[np.ndarray, "items units"], labels: NDArray[Any]) -> Selectivity:
    """How selective each unit (pool4) is for the classes in `labels`, `[items]`.

    Raises ConfigError for fewer than two classes.
    """
    classes, class_of_item = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ConfigError(
            f"selectivity needs items of at least 2 classes, and there are {len(classes)}"
        )
    # Items of equal activation come in random order: a unit that is never active must not seem to
    # prefer the class that comes first.
    shuffled = np.random.default_rng(0).permutation(len(labels))
    order = shuffled[np.argsort(-activations[shuffled], axis=0, kind="stable")]
    ranked_classes = class_of_item[order]
    ranks = np.arange(1, len(labels) + 1)[:, None]
    precision = np.zeros((len(classes), activations.shape[1]))
    purity = np.zeros_like(precision)
    for number in range(len(classes)):
        is_class = ranked_classes == number
        count = int(is_class[:, 0].sum())
        precision_at_rank = is_class.cumsum(0) / ranks
        precision[number] = (is_class * precision_at_rank).sum(0) / count
        purity[number] = is_class[: min(TOP_ITEMS, count)].mean(0)
    # Average precision of a class with one item is 1 for any unit that has it on top.
    large = np.bincount(class_of_item) >= LEAST_ITEMS
    # Where no class is large, all take part.
    allowed = np.where(large[:, None] | ~large.any(), precision, -1.0)
    preferred = allowed.argmax(0)
    units = np.arange(activations.shape[1])
    return Selectivity(
        tuple(map(str, classes)),
        preferred,
        precision[preferred, units],
        purity[preferred, units],
        large,
    )
