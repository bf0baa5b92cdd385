"""Which network and which clips an evaluation takes, from a run and a folder of shards.

A run knows the videos that it held out, so that nobody has to repeat its split.
"""

import logging
from pathlib import Path

from looklisten.data.shards import ALL_CLIPS, HELD_OUT_CLIPS, Shards
from looklisten.errors import ConfigError
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run, check_is_opened

_log = logging.getLogger("looklisten")


def network_of(network: L3Net | Run) -> L3Net:
    """The network itself.

    Raises CheckpointError for a network of OpenL3, ConfigError for the name of a network.
    """
    check_is_opened(network)
    return network if isinstance(network, L3Net) else network.l3net


def opened_shards(shards: Shards | str | Path) -> Shards:
    """The shards themselves, or those in a folder."""
    return shards if isinstance(shards, Shards) else Shards(shards)


def clips_to_evaluate(network: L3Net | Run, shards: Shards | str | Path) -> Shards:
    """The clips that a network is evaluated on: those that its training held out.

    A network of the package was trained on none of these videos, so all clips are taken. A
    selection of shards (`Shards.select`) is taken as it is. A run warns where it was trained on
    videos of these names.

    Raises ConfigError for a network without its run and all clips of a folder: only a run knows
    which of them it held out.
    """
    check_is_opened(network)
    shards = opened_shards(shards)
    if isinstance(network, L3Net):
        if not shards.is_selection:
            raise ConfigError(
                "a network without its run does not know its held-out videos; "
                'give ll.open("RUN"), or a selection of clips (Shards.select)'
            )
        return shards
    # Whoever selects clips wants these; others must not have to know the fraction.
    if not shards.is_selection:
        return shards.split(ALL_CLIPS, 0.0) if network.is_shipped else network.held_out(shards)
    network.warn_of_trained_videos(shards.video_ids.tolist())
    return shards


def clips_of_split(run: Run, shards: Shards, split: str | None) -> Shards:
    """The clips of a split, as a selection: held-out, all, or the name of a split.

    None means the videos that the run held out. All clips are taken for a network of the package,
    and, with a warning, where nobody knows what was held out. Another warning names clips that the
    network was trained on. Raises ConfigError for a split that is not there.
    """
    if split is None and run.is_shipped:
        split = ALL_CLIPS
    if split is None and not run.knows_split:
        _log.warning(
            "nobody knows which videos %s held out, so all of %s are measured; "
            "choose others with --split",
            run.name,
            shards.path,
        )
        split = ALL_CLIPS
    if split is None:
        return run.held_out(shards)
    # Only the split "held-out" depends on the training.
    fraction = run.split.held_out_fraction if split == HELD_OUT_CLIPS else 0.0
    clips = shards.split(split, fraction)
    run.warn_of_trained_videos(clips.video_ids.tolist())
    return clips


def fraction_held_out(network: L3Net | Run, fraction: float | None) -> float:
    """`fraction`, by default that of the training of `network`.

    Raises ConfigError for a network without its run and without a fraction.
    """
    if fraction is not None:
        return fraction
    if isinstance(network, L3Net):
        raise ConfigError(
            "a network without its run does not know its held-out videos; "
            'give ll.open("RUN"), or the held_out_fraction of its training'
        )
    return network.split.held_out_fraction
