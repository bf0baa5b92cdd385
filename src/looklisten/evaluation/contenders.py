"""Who stands in the table of a labelled set: a network, itself as it began, and a plain description that knows nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from looklisten.config import Config, ModelConfig
from looklisten.errors import ConfigError
from looklisten.evaluation.benchmarks import Benchmark
from looklisten.evaluation.features import Extractor, network_extractor
from looklisten.evaluation.pictures import color_extractor
from looklisten.evaluation.sounds import spectrogram_extractor
from looklisten.inference.encoder import Encoder
from looklisten.inference.layers import Side
from looklisten.model.checkpoint import open_checkpoint
from looklisten.model.l3net import L3Net

UNTRAINED = "untrained:"
"""Before a recipe's name: its network as it begins."""

Rival = Literal["untrained", "spectrogram", "colors"]
RIVALS: dict[Side, tuple[Rival, ...]] = {"audio": ("untrained", "spectrogram"), "vision": ("untrained", "colors")}

Model = str | Path | L3Net | Encoder
"""A run's or checkpoint's folder, `untrained:RECIPE`, or a network."""


def contenders(benchmark: Benchmark, model: Model, compare: Sequence[Rival], layer: str, device: str) -> list[Extractor]:
    """The network, then those of `compare` that it is not itself. Raises ConfigError for a rival or a layer that is not there."""
    side, rivals = benchmark.side, list(compare)
    if wrong := [name for name in rivals if name not in RIVALS[side]]:
        raise ConfigError(f"there is no rival {wrong[0]!r} for {benchmark.title}; choose of {', '.join(RIVALS[side])}")
    if isinstance(model, str) and model.startswith(UNTRAINED):
        rivals = ["untrained", *(name for name in rivals if name != "untrained")]
        found = []
    elif isinstance(model, (str, Path)):
        found = [network_extractor(str(model), open_checkpoint(model).model(), side, layer, device)]
    else:
        found = [network_extractor("network", model, side, layer, device)]
    plain = {"spectrogram": spectrogram_extractor, "colors": color_extractor}
    return found + [plain[name]() if name in plain else _untrained(benchmark, model, layer, device) for name in rivals]


def _untrained(benchmark: Benchmark, model: Model, layer: str, device: str) -> Extractor:
    """The network as it begins, by the run's own seed, as the paper has it: batch-norm of mean 0 and variance 1.

    Statistics set from the set itself would have seen the tested fold, and made no rival that was stronger on the whole (LOG.md,
    2026-11-24).
    """
    config, seed = _settings(model)
    torch.manual_seed(seed)
    return network_extractor("untrained", L3Net(config), benchmark.side, layer, device)


def _settings(model: Model) -> tuple[ModelConfig, int]:
    """The network's settings and the seed of its initial weights, 0 where nobody tells."""
    if isinstance(model, (str, Path)):
        name = str(model)
        config = Config.load(name.removeprefix(UNTRAINED)) if name.startswith(UNTRAINED) else open_checkpoint(model).config
        return config.model, config.train.seed
    if not isinstance(model, L3Net):
        raise ConfigError("an encoder of another house has no untrained form here; name the rivals that it is to be compared with")
    return model.config, 0
