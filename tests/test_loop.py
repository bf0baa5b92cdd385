"""The loop around the step: what is kept, what ends a run, what is said; other objectives,
negatives and views.
"""

import json
import logging
import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import small_config
from looklisten.config import Config
from looklisten.data.pairs import NO_EMPTY_SOUND, PairStream
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.errors import CheckpointError, ConfigError
from looklisten.evaluation.correspondence import evaluate
from looklisten.evaluation.linear_probe.shards import probe, quick_probe
from looklisten.inference.localization.localize import localize
from looklisten.media.synth.options import WorldOptions
from looklisten.media.synth.synth import synth
from looklisten.model.checkpoint import open_checkpoint, saved_steps
from looklisten.model.networks import load
from looklisten.model.objectives import OBJECTIVES, find_objective, register_objective
from looklisten.model.objectives.avc import AvcObjective
from looklisten.model.objectives.objective import LossAndAccuracy
from looklisten.training import loop
from looklisten.training.augmentation import step_seed
from looklisten.training.batches import training_stream
from looklisten.training.distributed import ProcessWorld
from looklisten.training.learner import Learner
from looklisten.training.meter import PLATEAU_STEPS, PlateauWarning, TrainingMeter
from looklisten.training.metrics_log import read_metrics
from looklisten.training.optimizers import learning_rate


@pytest.fixture(scope="module")
def long_path(tmp_path_factory):
    """Forty-eight videos of four seconds: long enough for two moments that stand against each
    other.
    """
    folder = tmp_path_factory.mktemp("long")
    synth(
        folder / "world",
        WorldOptions(videos=48, seconds=4.0, side_pixels=64, frames_per_second=5, seed=5),
    )
    prepare(
        [folder / "world" / "labels.csv"],
        folder / "shards",
        boxes=folder / "world" / "boxes.csv",
        workers=1,
    )
    return folder / "shards"


def train(*args, **kwargs):
    """Measures little on held-out videos, so that the tests are quick."""
    return loop.train(*args, evaluated_pairs=48, **kwargs)


def steps_of(run):
    return [int(path.name[5:]) for path in saved_steps(run / "checkpoints")]


def test_the_newest_and_the_best_checkpoint_are_kept(shards_path, tmp_path):
    run = train(
        shards_path,
        small_config(
            evaluate_every=4, checkpoint_every=100, keep_checkpoints=1, learning_rate=5e-3
        ),
        tmp_path,
    )
    measured = {
        row["step"]: row["held_out_accuracy"]
        for row in read_metrics(tmp_path)
        if "held_out_accuracy" in row
    }
    best = max(measured, key=lambda step: (measured[step], step))
    assert steps_of(tmp_path) == sorted({best, 20})
    assert open_checkpoint(tmp_path / "checkpoints" / "best").step == run.best_step == best
    assert run.best_accuracy == measured[best]
    assert load(tmp_path / "checkpoints" / "best").config == small_config().model


def test_time_alone_makes_a_checkpoint_due(shards_path, tmp_path):
    train(
        shards_path,
        small_config(steps=4, checkpoint_every=100, checkpoint_minutes=1e-6, keep_checkpoints=9),
        tmp_path,
    )
    assert steps_of(tmp_path) == [1, 2, 3, 4]


def test_a_loss_that_is_not_a_number_names_its_batch_and_spoils_no_checkpoint(
    shards_path, shards, tmp_path
):
    config = small_config(
        learning_rate=1e30, warmup_steps=0, log_every=5, checkpoint_every=1, keep_checkpoints=9
    )
    with pytest.raises(
        ConfigError,
        match=r"the loss became (nan|inf) at step \d+; the videos, clips, frames and sounds",
    ):
        train(shards_path, config, tmp_path)
    report = json.loads((tmp_path / "not-a-number.json").read_text())
    batch = training_stream(shards.select(~shards.held_out_mask(0.1)), config).batch(
        report["step"] - 1
    )
    assert report["video_ids"] == list(batch.video_ids)
    assert report["clips"] == batch.choices.clips.tolist()
    assert report["sound_starts"] == batch.choices.sound_starts.tolist()
    assert max(steps_of(tmp_path)) < report["step"]


def test_measuring_does_not_count_into_the_speed():
    now = [100.0]
    meter = TrainingMeter(8, ProcessWorld(), clock=lambda: now[0])
    outcome = LossAndAccuracy(torch.tensor(0.7), torch.tensor(0.5))
    for pause in (0.0, 1.0):
        meter.add(1, outcome, [])
        now[0] += 0.25 + pause
        meter.exclude(pause)
        row = meter.read(Path())
        assert row["videos_per_second"] == pytest.approx(8 / 0.25)
        assert row["pairs_per_second"] == pytest.approx(2 * row["videos_per_second"])


class SlowlyMeasuredObjective(AvcObjective):
    """Measuring on held-out videos takes half a second, whatever the machine."""

    seconds = 0.5

    def held_out_metrics(self, videos):
        time.sleep(self.seconds)
        return super().held_out_metrics(videos)


@pytest.fixture
def slowly_measured():
    register_objective("slowly-measured", SlowlyMeasuredObjective)
    yield SlowlyMeasuredObjective
    del OBJECTIVES["slowly-measured"]


def test_a_run_leaves_its_measuring_out_of_the_speed(slowly_measured, shards_path, tmp_path):
    steps = 4
    config = small_config(
        steps=steps, evaluate_every=1, checkpoint_every=100, objective="slowly-measured"
    )
    began = time.perf_counter()
    train(shards_path, config, tmp_path)
    all_seconds = time.perf_counter() - began
    rows = [row for row in read_metrics(tmp_path) if "loss" in row]
    step_seconds = sum(8 / row["videos_per_second"] for row in rows)
    # The speed is rounded in the metrics.
    assert all_seconds - step_seconds > 0.99 * steps * slowly_measured.seconds


def test_a_run_reports_videos_and_pairs_per_second(shards_path, tmp_path):
    run = train(shards_path, small_config(steps=2), tmp_path)
    assert run.pairs_per_second == 2 * run.videos_per_second > 0
    rows = [row for row in read_metrics(tmp_path) if "loss" in row]
    assert all(
        row["pairs_per_second"] == pytest.approx(2 * row["videos_per_second"], abs=0.1)
        for row in rows
    )


@pytest.mark.parametrize("seed", [2**32, 2**63 - 1])
def test_large_seeds_train_and_are_unlike_each_other(shards_path, tmp_path, seed):
    config = small_config(steps=2, seed=seed, evaluate_every=1, probe_every=1, accumulate=2)
    train(shards_path, config, tmp_path / "run")
    assert Config.load(tmp_path / "run" / "config.toml").train.seed == seed
    assert step_seed(7, 3) == (7 << 32) + 3, "small seeds draw what they always drew"
    seeds = [
        step_seed(one, step)
        for one in (0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1)
        for step in (0, 1, 2)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= one < 2**64 for one in seeds)


@pytest.mark.parametrize("seed", [2**63, -1])
def test_impossible_seeds_are_refused(seed):
    with pytest.raises(ConfigError, match=r"train\.seed: Input should be (less|greater) than"):
        small_config(seed=seed)


def test_deterministic_kernels_are_set_and_reset(shards_path, tmp_path):
    def kernel_settings():
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
            os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        )

    before, during = kernel_settings(), []
    for wanted in (True, False):
        config = small_config(steps=1, deterministic=wanted)
        train(
            shards_path,
            config,
            tmp_path / str(wanted),
            progress=lambda *_, **__: during.append(kernel_settings()),
        )
        assert kernel_settings() == before
    assert during == [(True, True, False, before[3] or ":4096:8"), before]


@pytest.mark.parametrize("objective", ["avc", "contrastive"])
def test_a_loss_at_chance_is_warned_of_once(caplog, objective):
    settings = small_config(objective=objective, warmup_steps=50).train
    chance = find_objective(objective).chance_loss(settings)
    assert chance == pytest.approx(math.log(2) + (math.log(8) if objective == "contrastive" else 0))

    def warnings(losses):
        caplog.clear()
        watch = PlateauWarning(settings)
        for number, loss in enumerate(losses, 1):
            watch.update(10 * number, loss)
        return [record for record in caplog.records if record.levelno == logging.WARNING]

    looks = 50 // 10 + PLATEAU_STEPS // 10 + 2
    (warning,) = warnings([chance] * 3 * looks)
    assert "--overfit 16" in warning.getMessage()
    assert not warnings([chance] * (looks - 2))
    assert not warnings([chance] * (looks // 2) + [0.9 * chance] + [chance] * (looks // 2))


def test_resume_never_refuses_a_folder_with_a_run(shards_path, run_path, tmp_path):
    before = sorted(path.name for path in run_path.rglob("*"))
    with pytest.raises(
        CheckpointError, match="holds checkpoints already; give another folder for a new run"
    ):
        train(shards_path, small_config(), run_path, resume="never")
    assert sorted(path.name for path in run_path.rglob("*")) == before
    assert train(shards_path, small_config(steps=1), tmp_path, resume="never").step == 1


def test_a_contrastive_run_is_resumed_with_its_temperature(shards_path, tmp_path):
    settings = {"objective": "contrastive", "schedule": "constant", "learning_rate": 2e-3}
    train(shards_path, small_config(steps=10, **settings), tmp_path / "whole")
    train(shards_path, small_config(steps=5, **settings), tmp_path / "parts")
    train(shards_path, small_config(steps=10, **settings), tmp_path / "parts")
    whole, parts = (
        load_file(tmp_path / run / "checkpoints/step-000000010/optimizer.safetensors")
        for run in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    first = load_file(tmp_path / "whole/checkpoints/step-000000005/optimizer.safetensors")
    assert first["objective/log_scale"] != whole["objective/log_scale"]
    networks = [load(tmp_path / run).state_dict() for run in ("whole", "parts")]
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_a_batch_in_parts_is_the_same_rows(shards, shards_path, tmp_path):
    config = small_config(steps=3, accumulate=2)
    stream = training_stream(shards.select(~shards.held_out_mask(0.1)), config)
    whole, parts = list(stream.batches(0, 2)), list(stream.batches(0, 2, parts=2))
    assert [part.video_ids for part in parts] == [
        half for batch in whole for half in (batch.video_ids[:4], batch.video_ids[4:])
    ]
    for part in parts:
        assert sorted(part.pairing.partners.tolist()) == [0, 1, 2, 3]
    run = train(shards_path, config, tmp_path)
    (first, *_) = [row["loss"] for row in read_metrics(tmp_path) if "loss" in row]
    learner = Learner(config, "cpu")
    assert first == pytest.approx(float(learner.step(parts[:2], 1, 0.0).loss), abs=1e-6)
    assert run.step == 3


def test_the_metrics_have_gradients_and_quick_probes(shards_path, tmp_path):
    train(shards_path, small_config(steps=6, probe_every=3), tmp_path)
    rows = read_metrics(tmp_path)
    assert all(row["gradient_norm"] > 0 for row in rows if "loss" in row)
    probed = {
        row["step"]: (row["probe_audio"], row["probe_vision"])
        for row in rows
        if "probe_audio" in row
    }
    assert probed.keys() == {3, 6}
    network, shards = load(tmp_path), Shards(shards_path)
    again = quick_probe(network, shards, shards.held_out_mask(0.1), seed=0)
    assert probed[6] == pytest.approx((again["audio"], again["vision"]))


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ({"frames_per_pair": 3}, {}),
        ({}, {"negatives": "same-video"}),
        ({}, {"negatives": "same-video", "objective": "contrastive"}),
        ({}, {"negatives": "all", "objective": "contrastive", "empty_sound_share": 0.3}),
    ],
)
def test_more_frames_and_other_negatives_train_and_evaluate(long_path, tmp_path, model, settings):
    whole = small_config(steps=3, **settings).model_dump()
    whole["model"] |= model
    train(long_path, type(small_config()).of(whole, "the test"), tmp_path)
    network, shards = load(tmp_path), Shards(long_path)
    held_out = shards.select(shards.held_out_mask(0.1))
    result = evaluate(network, held_out, pairs=20)
    assert result.accuracy == (result.positives_right + result.negatives_right) / 2
    again = evaluate(network, held_out, pairs=20)
    assert again == result
    assert probe(network, shards, per_clip=1, held_out_fraction=0.1)["vision"].n > 0
    assert len(localize(shards[0], network)) == 4


def test_stairs_go_down_after_every_so_many_epochs():
    settings = small_config(
        steps=100,
        warmup_steps=2,
        schedule="stairs",
        learning_rate=1.0,
        stair_factor=0.5,
        stair_epochs=2,
    ).train
    rates = [learning_rate(settings, step, steps_per_epoch=5) for step in (1, 2, 10, 11, 20, 21)]
    assert rates == [0.5, 1, 1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 8, "accumulate": 3}, "cannot be computed in 3 equal parts"),
        (
            {"batch_size": 6, "accumulate": 2, "negatives": "same-video"},
            "parts of an even number of rows, not 3",
        ),
        ({"negatives": "same-video", "gather_negatives": False}, "set gather_negatives to true"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        small_config(**settings)


@pytest.mark.parametrize(
    ("section", "settings", "sentence"),
    [
        (
            "train",
            {"objective": "contrastive", "negatives": "roll"},
            "compares with every other row",
        ),
        (
            "model",
            {"fusion": "concat"},
            r"needs one space for both sides: set model\.fusion to",
        ),
        (
            "train",
            {"objective": "none"},
            r"there is no objective 'none' .* avc, contrastive, labels",
        ),
        ("model", {"backbone": "none"}, r"there is no backbone 'none' .* vgg"),
        ("model", {"first_stride": 64}, "leaves nothing after 4 blocks"),
    ],
)
def test_settings_that_do_not_fit_the_objective_or_the_backbone_are_refused(
    shards_path, tmp_path, section, settings, sentence
):
    config = small_config(objective="contrastive", negatives="all").changed(section, **settings)
    with pytest.raises(ConfigError, match=sentence):
        train(shards_path, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_couples_are_two_far_moments_of_one_video(long_path):
    shards = Shards(long_path)
    config = small_config(negatives="same-video", same_video_share=0.5, batch_size=8)
    stream = training_stream(shards, config)
    for index in range(6):
        batch = stream.batch(index)
        positives, negatives = batch.pairing.masks(everyone=False)
        for row, (video, start) in enumerate(
            zip(batch.video_ids, batch.choices.sound_starts, strict=True)
        ):
            (other,) = np.flatnonzero(negatives[row].numpy())
            shown = shards.frame_seconds(int(batch.choices.clips[row]))[batch.choices.frames[row]]
            assert start / 48_000 <= shown < start / 48_000 + 1, "law 2"
            if row < 4:
                assert other == row ^ 1
                assert batch.video_ids[other] == video
                assert abs(int(batch.choices.sound_starts[other]) - int(start)) >= 2 * 48_000
            else:
                assert batch.video_ids[other] != video, "law 4"
        assert len(set(batch.video_ids)) == 6
        assert torch.equal(positives, torch.eye(8, dtype=torch.bool))


def test_couples_keep_their_sounds(long_path):
    config = small_config(
        batch_size=8, negatives="same-video", same_video_share=0.5, empty_sound_share=0.5
    )
    stream = training_stream(Shards(long_path), config)
    others = []
    for index in range(4):
        place = divmod(index, stream.steps_per_epoch)
        choices = stream.choose(*place)
        assert (choices.empty_sound_seeds[:4] == NO_EMPTY_SOUND).all()
        others += (choices.empty_sound_seeds[4:] != NO_EMPTY_SOUND).tolist()
        in_parts = stream.choose(*place, parts=2)
        assert (in_parts.empty_sound_seeds[[0, 1, 4, 5]] == NO_EMPTY_SOUND).all()
    assert any(others)


def test_the_share_of_couples_grows(long_path):
    shards = Shards(long_path)
    config = small_config(
        negatives="same-video", same_video_share=1.0, same_video_steps=4, batch_size=8
    )
    stream = training_stream(shards, config)
    assert [8 - len(set(stream.batch(index).video_ids)) for index in range(5)] == [1, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "share"), [(8, 2, 0.5), (12, 3, 1.0), (16, 2, 0.4), (12, 2, 0.2)]
)
def test_couples_are_spread_over_the_parts(long_path, batch_size, accumulate, share):
    shards = Shards(long_path)
    config = small_config(
        negatives="same-video", same_video_share=share, batch_size=batch_size, accumulate=accumulate
    )
    stream = training_stream(shards, config)
    whole, parts = list(stream.batches(0, 3)), list(stream.batches(0, 3, parts=accumulate))
    for index, batch in enumerate(whole):
        own = parts[accumulate * index : accumulate * (index + 1)]
        assert sorted(video for part in own for video in part.video_ids) == sorted(batch.video_ids)
        couples = [len(part.video_ids) - len(set(part.video_ids)) for part in own]
        assert sum(couples) == round(share * batch_size / 2)
        assert max(couples) - min(couples) <= 1
        for part, count in zip(own, couples, strict=True):
            partners = part.pairing.partners
            assert sorted(partners.tolist()) == list(range(len(partners)))
            for row, partner in enumerate(partners.tolist()):
                assert (part.video_ids[row] == part.video_ids[partner]) == (row < 2 * count)


def test_clips_too_short_for_couples_are_refused(shards, shards_path):
    config = small_config(negatives="same-video")
    with pytest.raises(ConfigError, match="same-video negatives need clips of at least 3 s"):
        training_stream(shards, config)


def test_several_frames_are_neighbors(long_path):
    shards = Shards(long_path)
    one, three = (
        training_stream(
            shards,
            small_config(batch_size=4).changed("model", frames_per_pair=count),
        )
        for count in (1, 3)
    )
    assert isinstance(one, PairStream)
    for index in range(3):
        single, triple = one.batch(index), three.batch(index)
        assert triple.frames.shape == (4, 9, 48, 48)
        for row, (clip, frame) in enumerate(
            zip(single.choices.clips, single.choices.frames, strict=True)
        ):
            last = len(shards.frame_seconds(int(clip))) - 1
            middle = min(max(int(frame), 1), last - 1)
            place = int(frame) - (middle - 1)
            assert torch.equal(triple.frames[row, 3 * place : 3 * place + 3], single.frames[row])
