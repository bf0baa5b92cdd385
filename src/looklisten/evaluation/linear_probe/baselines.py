"""The rows of a probe's table: a network, untrained networks, and a simple description."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from looklisten.config import ModelConfig, Side
from looklisten.errors import ConfigError
from looklisten.evaluation.linear_probe.audio import log_mel_extractor
from looklisten.evaluation.linear_probe.features import FeatureExtractor, network_extractor
from looklisten.evaluation.linear_probe.images import color_extractor
from looklisten.evaluation.linear_probe.options import ProbeOptions
from looklisten.evaluation.sets.labeled_set import LabeledFiles
from looklisten.evaluation.untrained import initial_seed, untrained_network
from looklisten.inference.encoder import Encoder
from looklisten.model.l3net import L3Net
from looklisten.model.networks import UNTRAINED_PREFIX, open_network
from looklisten.system.devices import choose_device

UNTRAINED = "untrained"
"""The baseline that is the same network with its initial weights."""

SIMPLE_DESCRIPTIONS: dict[Side, dict[str, Callable[[], FeatureExtractor]]] = {
    "audio": {"spectrogram": log_mel_extractor},
    "vision": {"colors": color_extractor},
}

UNTRAINED_SEEDS: dict[Side, int] = {"audio": 3, "vision": 1}
"""How many untrained networks are measured by default.

On ESC-10 the accuracies of several seeds lie 3 points apart. Sets of images are large, so that one
network is expensive.
"""

ProbedModel = str | Path | L3Net | Encoder
"""A name as for `looklisten.open`, or a network."""


def compared_extractors(
    model: ProbedModel, files: LabeledFiles, options: ProbeOptions
) -> list[FeatureExtractor]:
    """The network, then its baselines; the untrained network once for each seed.

    Raises ConfigError for an unknown baseline or layer.
    """
    side = files.side
    device = choose_device(options.device).value
    baselines = _chosen_baselines(options.compare, files)
    extractors = []
    if isinstance(model, str) and model.startswith(UNTRAINED_PREFIX):
        # The network itself is untrained, so it is measured once, by several seeds.
        baselines = [UNTRAINED, *(name for name in baselines if name != UNTRAINED)]
    elif isinstance(model, (str, Path)):
        network: L3Net | Encoder = open_network(model).network
        extractors.append(network_extractor(str(model), network, side, options.layer, device))
    else:
        extractors.append(network_extractor("network", model, side, options.layer, device))
    for name in baselines:
        if name != UNTRAINED:
            extractors.append(SIMPLE_DESCRIPTIONS[side][name]())
            continue
        config, first_seed = _config_and_seed(model)
        for repetition in range(options.untrained_seeds or UNTRAINED_SEEDS[side]):
            network = untrained_network(config, first_seed + repetition)
            extractor = network_extractor(UNTRAINED, network, side, options.layer, device)
            extractors.append(replace(extractor, repetition=repetition))
    return extractors


def _chosen_baselines(compare: str, files: LabeledFiles) -> list[str]:
    """The names in `compare`: all of the set's side, none, or names joined by commas."""
    known = [UNTRAINED, *SIMPLE_DESCRIPTIONS[files.side]]
    if compare == "all":
        return known
    if compare == "none":
        return []
    names = [name.strip() for name in compare.split(",")]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"there is no baseline {name!r} for {files.labeled_set.title}; "
                f"choose all, none, or names out of {', '.join(known)}"
            )
    return names


def _config_and_seed(model: ProbedModel) -> tuple[ModelConfig, int]:
    """The settings of a network, and the seed of its initial weights; 0 if that is not known."""
    if isinstance(model, L3Net):
        return model.config, initial_seed(model, None)
    if not isinstance(model, (str, Path)):
        raise ConfigError(
            "the untrained form of this network is not known; name other baselines to compare with"
        )
    run = open_network(model)
    return run.l3net.config, run.seed
