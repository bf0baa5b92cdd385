"""Which network and which clips an evaluation takes, from a run and a folder of shards.

A run knows the videos that it held out, so that nobody has to repeat its split.
"""

import logging
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from looklisten.config import Config
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.model.l3net import L3Net

NAMED_VIDEOS = 3
"""Video ids that a warning names."""

_log = logging.getLogger("looklisten")


@runtime_checkable
class TrainedNetwork(Protocol):
    """A network together with the config of its training, such as an opened run."""

    @property
    def network(self) -> L3Net: ...

    @property
    def config(self) -> Config: ...


def plain_network(network: L3Net | TrainedNetwork) -> L3Net:
    """The network itself."""
    return network if isinstance(network, L3Net) else network.network


def opened_shards(shards: Shards | str | Path) -> Shards:
    """The shards themselves, or those in a folder."""
    return shards if isinstance(shards, Shards) else Shards(shards)


def clips_to_evaluate(network: L3Net | TrainedNetwork, shards: Shards | str | Path) -> Shards:
    """The clips that `network` is evaluated on: those that its training held out.

    A selection of shards (`Shards.select`) is taken as it is, with a warning where the network was
    trained on some of its videos.

    Raises ConfigError for a plain network with all clips of a folder: only a run knows which of
    them it held out.
    """
    shards = opened_shards(shards)
    if isinstance(network, L3Net):
        if not shards.is_selection:
            raise ConfigError(
                "a network without its run does not know its held-out videos; "
                'give ll.open("RUN"), or a selection of clips (Shards.select)'
            )
        return shards
    if not shards.is_selection:
        return shards.held_out(network)
    _warn_of_training_videos(network, shards)
    return shards


def fraction_held_out(network: L3Net | TrainedNetwork, fraction: float | None) -> float:
    """`fraction`, by default that of the training of `network`.

    Raises ConfigError for a plain network without a fraction.
    """
    if fraction is not None:
        return fraction
    if isinstance(network, L3Net):
        raise ConfigError(
            "a network without its run does not know its held-out videos; "
            'give ll.open("RUN"), or the held_out_fraction of its training'
        )
    return network.config.train.held_out_fraction


def _warn_of_training_videos(network: TrainedNetwork, clips: Shards) -> None:
    settings = network.config.train
    not_trained_on = clips.held_out_mask(settings.held_out_fraction)
    not_trained_on |= clips.validation_mask(
        settings.validation_fraction, settings.held_out_fraction
    )
    videos = np.unique(clips.video_ids[~not_trained_on]).tolist()
    if videos:
        examples = ", ".join(videos[:NAMED_VIDEOS])
        _log.warning(
            "the network was trained on %d of these videos (%s): "
            "the result is too good for new videos",
            len(videos),
            f"{examples}, …" if len(videos) > NAMED_VIDEOS else examples,
        )
