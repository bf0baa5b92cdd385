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
    settings = config.train
    reads_features = settings.freeze == "towers" and settings.cached_frames_per_second > 0
    if settings.empty_sound_share and reads_features:
        raise ConfigError(
            "train.empty_sound_share needs sounds, and with frozen towers training reads cached "
            "features; set train.cached_frames_per_second or train.empty_sound_share to 0"
        )
    find_objective(settings.objective).check(config)
