"""The calibration of a network: from its log-odds to a probability. Knows two numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from looklisten.errors import ConfigError


@dataclass(frozen=True)
class Calibration:
    """How log-odds become a probability: `sigmoid((log-odds - threshold) / temperature)`.

    It is fitted on pairs that training did not read, and is saved with the network. Raises
    ConfigError for a temperature that is not above 0.
    """

    temperature: float
    """Above 1 where the network is too sure of its answers."""
    threshold: float
    """The log-odds above which the answer is yes."""
    videos: int
    """Videos that it was fitted on."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"the temperature {self.temperature:g} must be above 0")

    def log_odds(self, log_odds: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """The calibrated log-odds."""
        return (log_odds - self.threshold) / self.temperature

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Calibration":
        """The calibration that `as_dict` gave. Raises KeyError where a number is missing."""
        return cls(float(values["temperature"]), float(values["threshold"]), int(values["videos"]))
