"""Who stands in the table of a labelled set: a network, itself as it began, and a plain description
that knows nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from looklisten.config import Config, ModelConfig, Side
from looklisten.errors import ConfigError
from looklisten.evaluation.linear_probe.audio import spectrogram_extractor
from looklisten.evaluation.linear_probe.features import Extractor, network_extractor
from looklisten.evaluation.linear_probe.images import color_extractor
from looklisten.evaluation.sets.labeled_set import LabeledFiles
from looklisten.inference.encoder import Encoder
from looklisten.model.checkpoint import open_checkpoint
from looklisten.model.l3net import L3Net

UNTRAINED = "untrained:"
"""Before a recipe's name: its network as it begins."""

Rival = Literal["untrained", "spectrogram", "colors"]
RIVALS: dict[Side, tuple[Rival, ...]] = {
    "audio": ("untrained", "spectrogram"),
    "vision": ("untrained", "colors"),
}

Model = str | Path | L3Net | Encoder
"""A run's or checkpoint's folder, `untrained:RECIPE`, or a network."""

DRAWINGS: dict[Side, int] = {"audio": 3, "vision": 1}
"""How often the untrained network is drawn: on ESC-10 its drawings lie 3 points apart. Sets of
pictures are large, and so is their cost.
"""


def chosen_baselines(compare: str, side: Side) -> tuple[str, ...]:
    """The names in `compare`: all of a side, none, or names joined by commas."""
    if compare == "all":
        return RIVALS[side]
    if compare == "none":
        return ()
    return tuple(name.strip() for name in compare.split(","))


def contenders(
    benchmark: LabeledFiles,
    model: Model,
    compare: Sequence[str],
    layer: str,
    device: str,
    untrained_seeds: int | None = None,
) -> list[Extractor]:
    """The network, then those of `compare` that it is not itself; the untrained one so many times,
    each another drawing.

    Raises ConfigError for a rival or a layer that is not there.
    """
    side, rivals = benchmark.side, list(compare)
    if wrong := [name for name in rivals if name not in RIVALS[side]]:
        raise ConfigError(
            f"there is no rival {wrong[0]!r} for {benchmark.labeled_set.title}; choose of {', '.join(RIVALS[side])}"
        )
    if isinstance(model, str) and model.startswith(UNTRAINED):
        rivals = ["untrained", *(name for name in rivals if name != "untrained")]
        found = []
    elif isinstance(model, (str, Path)):
        found = [network_extractor(str(model), open_checkpoint(model).model(), side, layer, device)]
    else:
        found = [network_extractor("network", model, side, layer, device)]
    plain = {"spectrogram": spectrogram_extractor, "colors": color_extractor}
    for name in rivals:
        if name in plain:
            found.append(plain[name]())
        else:
            found += [
                _untrained(side, model, layer, device, more)
                for more in range(DRAWINGS[side] if untrained_seeds is None else untrained_seeds)
            ]
    return found


def _untrained(side: Side, model: Model, layer: str, device: str, more: int) -> Extractor:
    """The network as it begins, by the run's own seed and as many `more`, as the paper has it:
    batch-norm of mean 0 and variance 1.

    Statistics set from the set itself would have seen the tested fold, and made no rival that was
    stronger on the whole (LOG.md, 2026-11-24).
    """
    config, seed = _settings(model)
    torch.manual_seed(seed + more)
    return replace(network_extractor("untrained", L3Net(config), side, layer, device), drawing=more)


def _settings(model: Model) -> tuple[ModelConfig, int]:
    """The network's settings and the seed of its initial weights, 0 where nobody knows."""
    if isinstance(model, (str, Path)):
        name = str(model)
        config = (
            Config.load(name.removeprefix(UNTRAINED))
            if name.startswith(UNTRAINED)
            else open_checkpoint(model).config
        )
        return config.model, config.train.seed
    if not isinstance(model, L3Net):
        raise ConfigError(
            "an encoder of another house has no untrained form here; name the rivals that it is to be compared with"
        )
    return model.config, model.initial_seed or 0
