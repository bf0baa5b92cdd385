"""Trains a fusion on features in memory, without a run folder: for folds and for trials."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from looklisten.config import Config
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.model.class_groups import begin_class_groups
from looklisten.model.l3net import L3Net
from looklisten.system.progress import Progress, no_progress
from looklisten.system.torch_modes import own_torch_modes
from looklisten.training.batches import fit_batch_size
from looklisten.training.frozen_towers.batches import FeatureStream
from looklisten.training.frozen_towers.cache import FeatureCache
from looklisten.training.learner import Learner
from looklisten.training.optimizers import learning_rate

CHECK_EVERY_STEPS = 20
"""The losses are read so often. Reading one makes the device wait."""


@own_torch_modes()
def fit_fusion(
    config: Config,
    network: L3Net,
    clips: Shards,
    features: FeatureCache,
    device: str = "auto",
    progress: Progress = no_progress,
) -> Learner:
    """Train a new fusion on `clips`, with the frozen towers of `network`.

    The learner that is returned holds the new network, in evaluation mode, and the objective.
    `train` gives the same with frozen towers, but from a whole folder and into a run folder.
    `clips` may be a selection, such as the training folds of a cross-validation. `network` itself
    stays as it was. Raises ConfigError for fewer than two videos and for a loss that is not finite.
    """
    config = fit_batch_size(config, len(set(clips.video_ids)))
    learner = Learner(config, device)
    for side in ("vision", "audio"):
        learner.network.tower(side).load_state_dict(network.tower(side).state_dict())
    begin_class_groups(learner.network)
    settings = config.train
    stream = FeatureStream(clips, settings.batch_size, settings.seed, learner.network, features)
    learner.begin_with_features(clips, features)
    losses: list[Float[Tensor, ""]] = []
    for step in range(1, settings.steps + 1):
        rate = learning_rate(settings, step, stream.steps_per_epoch)
        # Batches count from 0, steps from 1.
        losses.append(learner.step([stream.batch(step - 1)], step, rate).loss)
        if step % CHECK_EVERY_STEPS == 0 or step == settings.steps:
            check_learned(learner, losses, step)
            losses.clear()
        progress(step, settings.steps)
    learner.network.eval()
    return learner


def check_learned(learner: Learner, losses: Sequence[Float[Tensor, ""]], step: int) -> None:
    """See that the last steps up to `step`, of these losses, left a network that can be used.

    Raises ConfigError for a loss, or a weight of the fusion, that is infinite or not a number.
    """
    finite = torch.isfinite(torch.stack(list(losses))).tolist()
    advice = "nothing was saved; lower the learning rate and run again"
    if not all(finite):
        first = finite.index(False)
        raise ConfigError(
            f"the loss became {float(losses[first])} at step {step - len(losses) + 1 + first}; "
            f"{advice}"
        )
    if not all(bool(weights.isfinite().all()) for weights in learner.network.fusion.parameters()):
        raise ConfigError(f"the fusion has weights that are not finite at step {step}; {advice}")
