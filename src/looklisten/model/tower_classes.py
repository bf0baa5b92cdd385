"""The classes that a published tower gives scores for, with their names.

Knows towers and their published files, no sound and no frame.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from looklisten.errors import PublishedFileError
from looklisten.model.backbones.backbone import Backbone
from looklisten.model.published_weights import state_sha256

NAMES_FOLDER = "class_names"

_log = logging.getLogger("looklisten")


@dataclass(frozen=True, eq=False)
class TowerClasses:
    """The last layer of a published network: from the vector of its tower to scores of classes."""

    names: tuple[str, ...]
    weight: Float[Tensor, "classes features"]
    bias: Float[Tensor, " classes"]
    as_scores: Callable[[Tensor], Tensor]

    def scores(self, vectors: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        """The score from 0 to 1 of each class, of `TowerOutput.vector`."""
        return self.as_scores(functional.linear(vectors, self.weight, self.bias))


def tower_classes(tower: Backbone) -> TowerClasses | None:
    """The classes of a tower with exactly its published weights; None for any other tower.

    The published file is read again. Where it is not here any more, a warning says so.
    """
    published = tower.published
    if published is None or published.classes is None:
        return None
    if state_sha256(tower.state_dict()) != published.sha256:
        return None
    try:
        layer = published.load_classes()
    except PublishedFileError as error:
        _log.warning("there will be no tags of %s: %s", published.file.title, error)
        return None
    assert layer is not None
    weight, bias = layer
    return TowerClasses(
        names=published_class_names(published.classes.names_file),
        weight=weight.float(),
        bias=bias.float(),
        as_scores=published.classes.as_scores,
    )


def published_class_names(file: str) -> tuple[str, ...]:
    """The lines of one file of names, in the order of the scores."""
    text = (resources.files("looklisten.model") / NAMES_FOLDER / file).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))
