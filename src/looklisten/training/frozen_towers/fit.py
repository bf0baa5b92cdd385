"""Trains a fusion on features in memory, without a run folder: for folds and for trials."""

from looklisten.config import Config
from looklisten.data.shards import Shards
from looklisten.model.class_groups import begin_class_groups
from looklisten.model.l3net import L3Net
from looklisten.system.progress import Progress, no_progress
from looklisten.training.batches import fit_batch_size
from looklisten.training.frozen_towers.batches import FeatureStream
from looklisten.training.frozen_towers.cache import FeatureCache
from looklisten.training.learner import Learner
from looklisten.training.optimizers import learning_rate


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
    stays as it was. Raises ConfigError for fewer than two videos.
    """
    config = fit_batch_size(config, len(set(clips.video_ids)))
    learner = Learner(config, device)
    for side in ("vision", "audio"):
        learner.network.tower(side).load_state_dict(network.tower(side).state_dict())
    begin_class_groups(learner.network)
    settings = config.train
    stream = FeatureStream(clips, settings.batch_size, settings.seed, learner.network, features)
    learner.begin_with_features(clips, features)
    for step in range(1, settings.steps + 1):
        rate = learning_rate(settings, step, stream.steps_per_epoch)
        # Batches count from 0, steps from 1.
        learner.step([stream.batch(step - 1)], step, rate)
        progress(step, settings.steps)
    learner.network.eval()
    return learner
