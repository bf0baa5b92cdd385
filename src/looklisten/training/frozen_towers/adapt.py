"""Fits a network to own footage, without labels: its fusion, on features of its frozen towers.

Videos have three parts. The first is trained on. The second chooses when to stop. The third says
how good the network is before and after. A network that is no better on it stays as it was.
"""

import copy
import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from looklisten.config import Config
from looklisten.data.shards import Shards
from looklisten.errors import CheckpointError, ConfigError
from looklisten.evaluation.all_pairs import sampled
from looklisten.evaluation.calibration import fit_calibration
from looklisten.evaluation.ranking import Ranking, ScoreMatrix, rank
from looklisten.evaluation.shared_files import shared_files_of
from looklisten.evaluation.statistics import Z95, jackknife_variance
from looklisten.model.calibration import Calibration
from looklisten.model.checkpoint import save_checkpoint, saved_steps
from looklisten.model.fusions import correspondence_logit
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run, open_network
from looklisten.system.files import check_writable
from looklisten.system.progress import Progress, no_progress
from looklisten.system.torch_modes import own_torch_modes
from looklisten.training.batches import fit_batch_size
from looklisten.training.checkpointing import open_run
from looklisten.training.frozen_towers.batches import FeatureStream
from looklisten.training.frozen_towers.cache import FeatureCache, open_features
from looklisten.training.frozen_towers.fit import check_learned
from looklisten.training.frozen_towers.options import AdaptOptions
from looklisten.training.learner import Learner
from looklisten.training.lock import training_lock
from looklisten.training.provenance import TrainingData, training_data

_log = logging.getLogger("looklisten")

MEASURE_EVERY_STEPS = 20
PATIENCE_STEPS = 160
"""It stops after so many steps in which the choosing videos got no better."""
HELD_OUT_PER_CLIP = 10
MAX_HELD_OUT_MOMENTS = 1000
"""Of more a sample is taken. All pairs of them are compared again and again, from memory."""
SCORED_AT_ONCE = 64
"""Frames, and sounds, that are compared at a time: positions times all pairs is large."""


@dataclass(frozen=True)
class AdaptResult:
    """What adapting did; figures are of videos that training neither read nor stopped by."""

    path: Path
    """The folder of the run."""
    checkpoint: Path
    """The folder of its checkpoint, whose step counts those of the network before adapting too."""
    is_better: bool
    """If not, the run holds the network as it was."""
    one_of_two_before: float
    """How often a frame's own sound scores higher than one of another video, and the reverse."""
    one_of_two_before_ci95: tuple[float, float]
    one_of_two_after: float
    """After training, also where the network then stays as it was."""
    one_of_two_after_ci95: tuple[float, float]
    gain: float
    gain_ci95: tuple[float, float]
    """Of the same moments before and after, over videos."""
    auc_before: float
    auc_after: float
    measured_videos: int
    trained_videos: int
    choosing_videos: int
    steps: int
    """Those of the best weights on the choosing videos; 0 where no step made them better."""
    steps_taken: int
    stopped_early: bool
    """Because the choosing videos got no better for `PATIENCE_STEPS` steps."""
    improved_to_the_end: bool
    """Whether the last step was the best one, so that more steps may be better."""
    seconds: float
    """With computing the features."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@own_torch_modes()
def adapt(
    shards: str | Path,
    network: str | Path | Run = "start",
    run: str | Path = "runs/adapted",
    options: AdaptOptions | None = None,
    device: str = "auto",
    progress: Progress = no_progress,
) -> AdaptResult:
    """Fit `network` to the videos of `shards`, without labels, into the folder `run`.

    The towers are frozen. Their features are computed once and kept beside the shards. Where the
    shards name splits, it is measured on the videos that are not of `train`. A network that is
    calibrated is calibrated anew, on the videos that choose when to stop. Warns when `network` was
    trained on videos that it is measured on.

    Raises ConfigError for too few videos, for a loss that is not finite, when another process
    trains in `run`, and when `run` is the folder of the shards. Raises CheckpointError when `run`
    holds checkpoints already, and for a network without both towers.
    """
    began = time.monotonic()
    options = options or AdaptOptions()
    run = Path(run)
    data = Shards(shards)
    parts = _split(data, options)
    # Before the towers run, which takes most of the time.
    check_writable(run)
    if saved_steps(run / "checkpoints"):
        raise CheckpointError(
            f"{run} holds checkpoints already; give another folder for the adapted network"
        )
    base = network if isinstance(network, Run) else open_network(network)
    base.warn_of_trained_videos(data.video_ids[parts.measured].tolist())
    trained_videos = len(data.videos(parts.trained))
    config = _config(base, trained_videos, options)
    learner = Learner(config, device)
    learner.network.load_state_dict(base.l3net.state_dict())
    _take_over_objective(base, learner)
    weights_before = _trained_weights(learner)
    lock = training_lock(run)
    try:
        open_run(
            run,
            lock,
            config,
            resume="never",
            data=data,
            trained_on=parts.trained,
            held_out=~parts.trained,
            videos=_videos(data, parts, base),
        )
        features = open_features(learner.network, data, options.frames_per_second, progress)
        measured = HeldOutMoments.of(features, data.select(parts.measured))
        choosing = HeldOutMoments.of(features, data.select(parts.choosing))
        before = rank(measured.scores(learner.network))
        stream = FeatureStream(
            data.select(parts.trained),
            config.train.batch_size,
            options.seed,
            learner.network,
            features,
        )
        training = _train(learner, stream, choosing, progress)
        after = rank(measured.scores(learner.network))
        gain, gain_ci95 = paired_gain(before, after)
        is_better = gain > 0
        calibration = base.l3net.calibration
        if not is_better:
            _put_back(learner, weights_before)
        elif calibration is not None:
            calibration = _fitted_calibration(choosing.scores(learner.network), run)
        checkpoint = _save(
            run,
            base,
            learner,
            training.best_step if is_better else 0,
            after if is_better else before,
            calibration,
        )
    finally:
        lock.release()
        learner.release()
    return AdaptResult(
        path=run,
        checkpoint=checkpoint,
        is_better=is_better,
        one_of_two_before=before.one_of_two.value,
        one_of_two_before_ci95=before.one_of_two.ci95(),
        one_of_two_after=after.one_of_two.value,
        one_of_two_after_ci95=after.one_of_two.ci95(),
        gain=gain,
        gain_ci95=gain_ci95,
        auc_before=before.auc.value,
        auc_after=after.auc.value,
        measured_videos=len(np.unique(data.video_ids[parts.measured])),
        trained_videos=trained_videos,
        choosing_videos=len(data.videos(parts.choosing)),
        steps=training.best_step,
        steps_taken=training.steps_taken,
        stopped_early=training.steps_taken < options.steps,
        improved_to_the_end=training.best_step == options.steps,
        seconds=round(time.monotonic() - began, 1),
    )


@dataclass(frozen=True, eq=False)
class _Parts:
    """The clips of each part, as masks, `[clips]`."""

    trained: NDArray[np.bool_]
    choosing: NDArray[np.bool_]
    measured: NDArray[np.bool_]


def _split(data: Shards, options: AdaptOptions) -> _Parts:
    """The parts of the videos. Raises ConfigError for fewer than two videos in one."""
    measured = data.held_out_mask(options.measured_fraction)
    choosing = data.validation_mask(options.chosen_fraction, options.measured_fraction)
    parts = _Parts(~measured & ~choosing, choosing, measured)
    masks = (parts.trained, parts.choosing, parts.measured)
    counts = [len(data.videos(mask)) for mask in masks]
    if min(counts) < 2:
        raise ConfigError(
            "adapting needs at least 6 videos: 2 to train on, 2 to choose when to stop and 2 to "
            f"measure on; {data.path} has {counts[0]}, {counts[1]} and {counts[2]} for them; "
            "prepare more videos"
        )
    return parts


def _videos(data: Shards, parts: _Parts, base: Run) -> TrainingData:
    """The videos that the network will have been trained on, with those that `base` was."""
    videos = training_data(data, parts.trained, ~parts.trained)
    before = base.trained_videos
    return replace(
        videos,
        trained_on=tuple(sorted(before.union(videos.trained_on))),
        kept_apart=tuple(video for video in videos.kept_apart if video not in before),
    )


def _config(base: Run, videos: int, options: AdaptOptions) -> Config:
    """The settings of the network with those of its adapting."""
    # Without one space there is nothing to contrast, so pairs are classified.
    shares_space = base.l3net.fusion.shares_space
    before = (base.checkpoint.config if base.checkpoint else base.config).train
    config = Config(model=base.l3net.config).changed(
        "train",
        objective="contrastive" if shares_space else "avc",
        # Where towers that others publish were read from: a checkpoint does not store them.
        vision_from=before.vision_from,
        audio_from=before.audio_from,
        freeze="towers",
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        negatives="all",
        seed=options.seed,
        cached_frames_per_second=options.frames_per_second,
        held_out_fraction=options.measured_fraction,
        validation_fraction=options.chosen_fraction,
        precision="float32",
    )
    # The default asks for no exact size, so a smaller batch is no news.
    is_default = options.batch_size == AdaptOptions.batch_size
    return fit_batch_size(
        config, videos, log_level=logging.DEBUG if is_default else logging.WARNING
    )


def _take_over_objective(base: Run, learner: Learner) -> None:
    """Begin with the temperature that the network was trained with, where it is known."""
    if base.checkpoint is None or not base.checkpoint.has_objective:
        return
    weights = base.checkpoint.objective().state_dict()
    own = learner.module.objective
    # Another objective has other weights; then it begins anew.
    if weights.keys() == own.state_dict().keys():
        own.load_state_dict(weights)


@dataclass(frozen=True)
class _Training:
    best_step: int
    """0 where no step was better than the network as it was."""
    steps_taken: int


def _train(
    learner: Learner, stream: FeatureStream, choosing: "HeldOutMoments", progress: Progress
) -> _Training:
    """Train, and leave the network with the weights that were best on the choosing moments.

    Raises ConfigError for a loss that is not finite.
    """
    network, settings = learner.network, learner.config.train
    best = rank(choosing.scores(network)).one_of_two.value
    # The network as it was competes too, so no training can make it worse on these videos.
    best_step, best_weights = 0, _trained_weights(learner)
    losses: list[Float[Tensor, ""]] = []
    step = 0
    for step in range(1, settings.steps + 1):
        losses.append(learner.step([stream.batch(step - 1)], step, settings.learning_rate).loss)
        facts = {"one of two": f"{best:.3f}"}
        progress(step, settings.steps, **facts)
        if step % MEASURE_EVERY_STEPS and step != settings.steps:
            continue
        check_learned(learner, losses, step)
        losses.clear()
        value = rank(choosing.scores(network)).one_of_two.value
        if value > best:
            best, best_step = value, step
            best_weights = _trained_weights(learner)
        elif step - best_step >= PATIENCE_STEPS:
            # All steps that it takes are done, so that no bar looks interrupted.
            progress(step, step, **facts)
            break
    _put_back(learner, best_weights)
    return _Training(best_step, step)


_TrainedWeights = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Those of the fusion and of the objective."""


def _trained_weights(learner: Learner) -> _TrainedWeights:
    """A copy of what training changes."""
    fusion, objective = learner.network.fusion, learner.module.objective
    return copy.deepcopy(fusion.state_dict()), copy.deepcopy(objective.state_dict())


def _put_back(learner: Learner, weights: _TrainedWeights) -> None:
    fusion, objective = weights
    learner.network.fusion.load_state_dict(fusion)
    learner.module.objective.load_state_dict(objective)


@dataclass(frozen=True, eq=False)
class HeldOutMoments:
    """Features of moments that are not trained on: a frame, and the second around it."""

    vision: Float[Tensor, "moments *positions vision_features"]
    audio: Float[Tensor, "moments *times audio_features"]
    videos: NDArray[Any]
    groups: tuple[NDArray[Any], ...]
    """What intervals are over, as in `ScoreMatrix`."""

    @classmethod
    def of(
        cls, features: FeatureCache, clips: Shards, max_moments: int = MAX_HELD_OUT_MOMENTS
    ) -> "HeldOutMoments":
        """Up to `HELD_OUT_PER_CLIP` moments of each clip, evenly spread."""
        clips, per_clip, notes = sampled(clips, HELD_OUT_PER_CLIP, seed=0, max_moments=max_moments)
        for note in notes:
            _log.info("%s", note)
        frame_rows = []
        for clip in clips.folder_numbers.tolist():
            of_clip = np.flatnonzero(features.rows.frame_clips == clip)
            count = min(len(of_clip), per_clip)
            frame_rows.append(of_clip[np.linspace(0, len(of_clip) - 1, count).round().astype(int)])
        rows = np.concatenate(frame_rows)
        windows = np.array([features.nearest_window(row) for row in rows.tolist()])
        videos = clips.folder.video_ids[features.rows.frame_clips[rows]]
        names = videos.tolist()
        return cls(
            features.vision.take(rows),
            features.audio.take(windows),
            videos,
            shared_files_of(clips).groups(names, names),
        )

    @torch.inference_mode()
    def scores(self, network: L3Net) -> ScoreMatrix:
        """The log-odds of every frame with every sound."""
        was_training = network.training
        network.eval()
        device = next(network.parameters()).device
        vision, audio = network.fusion.project(self.vision.to(device), self.audio.to(device))
        rows = []
        for top in range(0, len(vision), SCORED_AT_ONCE):
            frames = vision[top : top + SCORED_AT_ONCE]
            blocks = []
            for left in range(0, len(audio), SCORED_AT_ONCE):
                sounds = audio[left : left + SCORED_AT_ONCE]
                logits = network.fusion.all_pairs_logits(frames, sounds)
                blocks.append(correspondence_logit(logits))
            rows.append(torch.cat(blocks, 1))
        network.train(was_training)
        return ScoreMatrix(torch.cat(rows).float().cpu().numpy(), self.videos, self.groups)


def paired_gain(before: Ranking, after: Ranking) -> tuple[float, tuple[float, float]]:
    """How much more one-of-two is after than before, with its 95 % interval over videos."""
    gain = after.one_of_two.value - before.one_of_two.value
    without = []
    for without_after, without_before in zip(
        after.one_of_two.without_each_group(), before.one_of_two.without_each_group(), strict=True
    ):
        without.append(without_after - without_before)
    if not all(len(gains) > 1 and np.isfinite(gains).all() for gains in without):
        # Too few videos: the gain may be anything.
        return gain, (-1.0, 1.0)
    reach = Z95 * math.sqrt(jackknife_variance(without))
    return gain, (gain - reach, gain + reach)


def _fitted_calibration(matrix: ScoreMatrix, run: Path) -> Calibration | None:
    """The calibration that fits some scores; None, with a warning, where none does."""
    try:
        return fit_calibration(matrix)
    except ConfigError as error:
        _log.warning("%s is no longer calibrated: %s", run, error)
        return None


def _save(
    run: Path,
    base: Run,
    learner: Learner,
    steps: int,
    ranking: Ranking,
    calibration: Calibration | None,
) -> Path:
    """Write the network as a checkpoint; its step counts those before adapting too.

    The state of the optimizer is that of the last step and not of these weights, so it is not
    written. `open_run` then refuses to resume the run.
    """
    objective = {}
    for name, value in learner.module.objective.state_dict().items():
        objective[f"objective/{name}"] = value
    return save_checkpoint(
        run / "checkpoints",
        max((base.step or 0) + steps, 1),
        learner.config,
        learner.network.state_dict(),
        objective,
        {"one_of_two": ranking.one_of_two.value, "auc": ranking.auc.value},
        learner.computation(),
        calibration,
    )
