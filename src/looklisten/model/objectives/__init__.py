"""Objectives: what a training minimizes."""

import math

from torch import nn

from looklisten.config import Config
from looklisten.model.objectives.avc import AvcObjective
from looklisten.model.objectives.contrastive import ContrastiveObjective
from looklisten.model.objectives.labels import LabelsObjective


def build_objective(config: Config) -> nn.Module:
    """What `config` asks, with the weights that only this question has."""
    if config.train.objective == "labels":
        return LabelsObjective(config)
    return ContrastiveObjective() if config.train.objective == "contrastive" else AvcObjective()


def chance_loss(objective: str, choices: int) -> float:
    """The loss of a network that knows nothing; `choices`: the rows that a sound is sought among,
    or the classes.
    """
    yes_or_no = math.log(2)
    if objective == "labels":
        return 2 * math.log(choices)
    return yes_or_no if objective == "avc" else math.log(choices) + yes_or_no
