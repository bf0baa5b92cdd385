"""The checks of a config that need to know its backbone and its objective."""

from looklisten.config import SIDES, Config
from looklisten.errors import ConfigError
from looklisten.media.front_ends import find_front_end
from looklisten.model.backbones import check_backbone
from looklisten.model.objectives import find_objective


def check_config(config: Config) -> None:
    """Raises ConfigError, one sentence, for a backbone or objective that the settings do not fit.

    It is separate from `Config`, which is read where PyTorch is not needed.
    """
    find_front_end(config.model.front_end)  # raises where there is none of this name
    for side in SIDES:
        check_backbone(config.model, side)
    if config.model.class_groups and config.model.fusion != "linear":
        raise ConfigError(
            f'model.class_groups is for the fusion "linear", and model.fusion is '
            f'"{config.model.fusion}"; set model.class_groups to 0'
        )
    if config.train.empty_sound_share and trains_on_features(config):
        raise ConfigError(
            "train.empty_sound_share needs sounds, and with frozen towers training reads cached "
            "features; set train.cached_frames_per_second or train.empty_sound_share to 0"
        )
    find_objective(config.train.objective).check(config)


def trains_on_features(config: Config) -> bool:
    """Whether training reads features that are computed once, not pixels and samples.

    Same-video negatives take moments that the cache does not have.
    """
    settings = config.train
    return (
        settings.freeze == "towers"
        and settings.cached_frames_per_second > 0
        and settings.negatives != "same-video"
        and find_objective(settings.objective).trains_fusion
    )
