"""The objectives that a config can name. Each is one file here and one row of `OBJECTIVES`."""

from collections.abc import Mapping

from looklisten.config import Config, Side
from looklisten.errors import ConfigError, OptionError
from looklisten.model.objectives.avc import AvcObjective
from looklisten.model.objectives.contrastive import ContrastiveObjective
from looklisten.model.objectives.labels import LabelsObjective
from looklisten.model.objectives.objective import Objective

__all__ = [
    "OBJECTIVES",
    "Objective",
    "build_objective",
    "find_objective",
    "register_objective",
]

OBJECTIVES: dict[str, type[Objective]] = {
    "avc": AvcObjective,
    "contrastive": ContrastiveObjective,
    "labels": LabelsObjective,
}
"""By the name that `train.objective` has in a config."""


def register_objective(name: str, objective: type[Objective]) -> None:
    """Let configs name `objective`. Raises ConfigError when another class has the name."""
    if OBJECTIVES.get(name, objective) is not objective:
        raise ConfigError(f"there is an objective {name!r} already; choose another name")
    OBJECTIVES[name] = objective


def find_objective(name: str) -> type[Objective]:
    """The class of an objective. Raises OptionError when no class has the name."""
    if name not in OBJECTIVES:
        raise OptionError(
            f"there is no objective {name!r} (train.objective); the objectives are "
            f"{', '.join(sorted(OBJECTIVES))}"
        )
    return OBJECTIVES[name]


def build_objective(config: Config, features: Mapping[Side, int]) -> Objective:
    """The objective that `config` names, with new weights.

    `features`: the number of features that the tower of each side gives.

    Raises ConfigError when there is no such objective, or when the settings do not fit it.
    """
    objective = find_objective(config.train.objective)
    objective.check(config)
    return objective(config, features)
