"""The rows of a probe's table: a network, untrained networks, and a simple description."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from looklisten.config import Side
from looklisten.errors import ConfigError, OptionError
from looklisten.evaluation.linear_probe.audio import log_mel_extractor
from looklisten.evaluation.linear_probe.features import FeatureExtractor, network_extractor
from looklisten.evaluation.linear_probe.images import color_extractor
from looklisten.evaluation.linear_probe.options import PAPER_LAYER, ProbeOptions
from looklisten.evaluation.sets.labeled_set import LabeledFiles
from looklisten.evaluation.untrained import untrained_network
from looklisten.inference.encoder import Encoder, choose_layer, encoder_of
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run, open_network
from looklisten.system.devices import choose_device

UNTRAINED = "untrained"
"""The baseline that is the same network with its initial weights."""

SIMPLE_DESCRIPTIONS: dict[Side, dict[str, Callable[[], FeatureExtractor]]] = {
    "audio": {"spectrogram": log_mel_extractor},
    "vision": {"colors": color_extractor},
}

# On ESC-10 the accuracies of several seeds lie 3 points apart, so one seed would not tell whether
# training helps. Sets of images are large, so that each further network is expensive.
UNTRAINED_SEEDS: dict[Side, int] = {"audio": 3, "vision": 1}
"""How many untrained networks are measured by default."""

ProbedModel = str | Path | Run | L3Net | Encoder
"""A network, or a name that `looklisten.open` takes, such as the folder of a run."""


def compared_extractors(
    model: ProbedModel, files: LabeledFiles, options: ProbeOptions
) -> list[FeatureExtractor]:
    """The network, then its baselines; the untrained network once for each seed.

    Raises ConfigError for an unknown baseline or layer.
    """
    side = files.side
    device = choose_device(options.device).value
    run = run_of(model, device)
    layer = probed_layer(run, side, options.layer)
    baselines = _chosen_baselines(options.compare, files)
    extractors = []
    if run.is_untrained:
        # The network is this baseline itself, so the row of the baseline takes its place.
        baselines = [UNTRAINED, *(name for name in baselines if name != UNTRAINED)]
    else:
        extractor = network_extractor(run.name, run.network, side, layer, device)
        extractors.append(extractor)
    for name in baselines:
        if name == UNTRAINED:
            extractors += _untrained_extractors(run, side, layer, options, device)
        else:
            extractors.append(SIMPLE_DESCRIPTIONS[side][name]())
    return extractors


def run_of(model: ProbedModel, device: str) -> Run:
    """The network that is probed, opened. Raises what `open_network` raises."""
    if isinstance(model, Run):
        return model
    if isinstance(model, (str, Path)):
        return open_network(model, device)
    return Run("network", model)


def probed_layer(run: Run, side: Side, layer: str | None) -> str:
    """`layer`, unchecked; for None the paper's, or the usual one of a network without it.

    Raises ConfigError if `layer` is None and the network lacks this side.
    """
    encoder = encoder_of(run.network) if isinstance(run.network, L3Net) else run.network
    if layer is None and PAPER_LAYER in encoder.layers.get(side, ()):
        return PAPER_LAYER
    return layer or choose_layer(encoder, side, None)


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
            raise OptionError(
                f"there is no baseline {name!r} for {files.labeled_set.title}; "
                f"choose all, none, or names out of {', '.join(known)}"
            )
    return names


def _untrained_extractors(
    run: Run, side: Side, layer: str, options: ProbeOptions, device: str
) -> list[FeatureExtractor]:
    """The untrained network, once for each seed: that of the run, then the following numbers."""
    if not isinstance(run.network, L3Net):
        raise ConfigError(
            f"the untrained form of {run.name} is not known; "
            f"choose other baselines with --compare, or none"
        )
    extractors = []
    for repetition in range(options.untrained_seeds or UNTRAINED_SEEDS[side]):
        network = untrained_network(run.network.config, run.seed + repetition)
        extractor = network_extractor(UNTRAINED, network, side, layer, device)
        extractors.append(replace(extractor, repetition=repetition))
    return extractors
