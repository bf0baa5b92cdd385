"""Adapting a network to own footage: what it keeps, what it refuses, what it says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import small_config
from looklisten.app.cli import main
from looklisten.app.verbs.training.adapt import gain_in_words
from looklisten.data.shards import Shards
from looklisten.errors import CheckpointError, ConfigError, LookListenError, OptionError
from looklisten.evaluation.ranking import ScoreMatrix, rank
from looklisten.inference.moments import moments
from looklisten.model.calibration import Calibration
from looklisten.model.checkpoint import save_calibration
from looklisten.model.networks import load, open_network
from looklisten.model.objectives.contrastive import INITIAL_SCALE
from looklisten.training.frozen_towers.adapt import HeldOutMoments, adapt, paired_gain
from looklisten.training.frozen_towers.cache import open_features
from looklisten.training.frozen_towers.options import AdaptOptions
from looklisten.training.loop import train
from noise_shards import a_clip, write_clips


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A network with untrained towers and the fusion `linear`."""
    recipe = tmp_path_factory.mktemp("recipe") / "linear.toml"
    config = small_config(objective="contrastive").changed("model", fusion="linear", sharpness=3.0)
    recipe.write_text(config.toml(), encoding="utf-8")
    return open_network(f"untrained:{recipe}")


def test_adapting_trains_the_fusion_alone_and_the_run_can_be_opened(base, shards_path, tmp_path):
    result = adapt(shards_path, base, tmp_path / "run", AdaptOptions(steps=40, learning_rate=1e-2))

    assert result.measured_videos >= 2 and result.trained_videos >= 20
    assert result.gain == pytest.approx(result.one_of_two_after - result.one_of_two_before)
    assert result.gain_ci95[0] <= result.gain <= result.gain_ci95[1]
    adapted, before = load(result.path).state_dict(), base.network.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, adapted[name])}
    assert all(name.startswith("fusion.") for name in changed)
    assert bool(changed) == result.is_better
    held_out = open_network(result.path).held_out_videos
    assert len(held_out) >= result.measured_videos


@pytest.mark.parametrize(("rate", "steps"), [(1e-12, 20), (100.0, 20)])
def test_a_network_that_gets_no_better_stays_as_it_was(base, shards_path, tmp_path, rate, steps):
    options = AdaptOptions(steps=steps, learning_rate=rate)
    result = adapt(shards_path, base, tmp_path / "run", options)

    if not result.is_better:
        kept = load(result.path).state_dict()
        for name, value in base.network.state_dict().items():
            assert torch.equal(value, kept[name]), name
    assert result.is_better == (result.gain > 0)


def test_the_weights_of_the_best_step_are_taken(base, shards_path, tmp_path):
    options = AdaptOptions(steps=60, learning_rate=3e-2)
    result = adapt(shards_path, base, tmp_path / "longer", options)
    assert 0 < result.steps < options.steps
    until_best = adapt(shards_path, base, tmp_path / "run", replace(options, steps=result.steps))
    assert until_best.steps == result.steps
    assert until_best.one_of_two_after == result.one_of_two_after


def test_it_is_measured_on_the_held_out_videos(base, shards, shards_path, tmp_path):
    result = adapt(shards_path, base, tmp_path / "run", AdaptOptions(steps=1))
    features = open_features(base.l3net, shards, 1.0)
    held_out = HeldOutMoments.of(features, shards.select(shards.held_out_mask(0.2)))
    assert result.one_of_two_before == rank(held_out.scores(base.l3net)).one_of_two.value


def test_it_begins_with_the_temperature_of_the_network(shards_path, tmp_path):
    config = small_config(objective="contrastive", negatives="all", steps=2, learning_rate=1e-2)
    train(
        shards_path,
        config.changed("model", fusion="distance"),
        tmp_path / "base",
        evaluated_pairs=8,
    )
    options = AdaptOptions(steps=1, learning_rate=1e-12)
    adapt(shards_path, tmp_path / "base", tmp_path / "run", options)
    scales = {
        name: open_network(tmp_path / name).objective().log_scale.item() for name in ("base", "run")
    }
    assert scales["run"] == pytest.approx(scales["base"], abs=1e-6)
    assert scales["base"] != pytest.approx(np.log(INITIAL_SCALE), abs=1e-4)


def test_the_same_command_twice_is_refused_the_second_time(base, shards_path, tmp_path):
    options = AdaptOptions(steps=1)
    adapt(shards_path, base, tmp_path / "run", options)
    with pytest.raises(CheckpointError, match="holds checkpoints already; give another folder"):
        adapt(shards_path, base, tmp_path / "run", options)


def test_the_command_line_says_before_and_after(run_path, shards_path, tmp_path, capsys):
    arguments = ["adapt", str(shards_path), "--checkpoint", str(run_path), "--steps", "2"]
    assert main([*arguments, "--run", str(tmp_path / "run"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {"is_better", "one_of_two_before", "one_of_two_after_ci95", "gain_ci95"} <= set(printed)


def test_videos_that_the_network_was_trained_on_are_named_and_recorded(tmp_path, caplog):
    folder = write_clips(tmp_path / "shards", [a_clip(number, "") for number in range(16)])
    train(folder, small_config(steps=1), tmp_path / "base", evaluated_pairs=8)
    base = open_network(tmp_path / "base")
    options = AdaptOptions(steps=1, measured_fraction=0.5)
    adapted = open_network(adapt(folder, base, tmp_path / "run", options).path)

    assert f"videos have the same ids as videos that {base.name} was trained on" in caplog.text
    assert base.trained_videos
    assert adapted.trained_videos >= base.trained_videos
    assert not adapted.held_out_videos & base.trained_videos


@pytest.mark.parametrize("rate", [1e-12, 1e-2])
def test_a_calibrated_network_stays_calibrated(base, shards_path, tmp_path, rate):
    before = Calibration(temperature=2.0, threshold=0.5, videos=7)
    base.l3net.calibration = before
    options = AdaptOptions(steps=40, learning_rate=rate)
    try:
        result = adapt(shards_path, base, tmp_path / "run", options)
    finally:
        base.l3net.calibration = None
    after = load(result.path).calibration
    assert after is not None
    assert (after == before) != result.is_better


@pytest.mark.parametrize("videos", [1, 5])
def test_too_few_videos_are_counted_by_part(base, tmp_path, videos):
    folder = write_clips(tmp_path / "few", [a_clip(number, "") for number in range(videos)])
    with pytest.raises(
        ConfigError, match=r"at least 6 videos: 2 to train on.* has \d, \d and \d for"
    ):
        adapt(folder, base, tmp_path / "run")


def test_a_clip_without_a_second_of_sound_is_refused(base, tmp_path):
    clips = [a_clip(number, "") for number in range(8)]
    clips[3] = replace(clips[3], waveform=clips[3].waveform[:40_000])
    folder = write_clips(tmp_path / "short", clips)
    sentence = r"a clip of 0\.833 s is shorter than the 1 s .*--min-clip-seconds 1"
    with pytest.raises(ConfigError, match=sentence):
        adapt(folder, base, tmp_path / "run")
    with pytest.raises(ConfigError, match=sentence):
        list(moments(clips[3], base.l3net.config, 2))


def test_moments_of_many_held_out_clips_are_sampled(base, shards, shards_path):
    features = open_features(base.l3net, Shards(shards_path), 1.0)
    assert len(HeldOutMoments.of(features, shards).videos) > 60
    assert 30 < len(HeldOutMoments.of(features, shards, max_moments=60).videos) <= 60


@pytest.fixture(scope="module")
def measured_well(base, shards_path, tmp_path_factory):
    """A result of 10 measured videos and of one step, which was not the best."""
    run = tmp_path_factory.mktemp("adapted") / "run"
    result = adapt(shards_path, base, run, AdaptOptions(steps=1))
    return replace(result, measured_videos=10, stopped_early=False, improved_to_the_end=False)


def test_a_gain_that_may_be_chance_is_said_to_be_so(measured_well):
    better = replace(measured_well, is_better=True, gain=0.1, gain_ci95=(0.05, 0.15))
    assert gain_in_words(better) == ""
    assert "may be chance" in gain_in_words(replace(better, gain_ci95=(-0.05, 0.25)))
    assert "as it was" in gain_in_words(replace(better, is_better=False))


def test_too_few_measured_videos_are_said_to_tell_nothing(measured_well):
    few = replace(measured_well, is_better=True, gain_ci95=(0.1, 0.3), measured_videos=9)
    assert gain_in_words(few).startswith("the 9 measured videos are too few to tell")


def test_why_it_stopped_is_said(base, shards_path, tmp_path):
    calls = []
    options = AdaptOptions(steps=400, learning_rate=1e-12)
    result = adapt(
        shards_path,
        base,
        tmp_path / "run",
        options,
        progress=lambda done, total, **facts: calls.append((done, total)),
    )
    assert result.stopped_early and not result.improved_to_the_end
    assert (result.steps, result.steps_taken) == (0, 160)
    assert calls[-1] == (160, 160)
    assert gain_in_words(result).startswith("it stopped after step 160: the ")
    assert "got no better in 160 steps" in gain_in_words(result)
    assert result.checkpoint.is_dir() and result.choosing_videos >= 2


def test_training_that_still_gets_better_at_its_last_step_says_so(base, shards_path, tmp_path):
    result = adapt(shards_path, base, tmp_path / "run", AdaptOptions(steps=40, learning_rate=3e-2))
    assert result.steps == result.steps_taken == 40
    assert result.improved_to_the_end
    assert "still got better at the last of the 40 steps; more --steps" in gain_in_words(result)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"measured_fraction": 1.0},
        {"batch_size": 1},
        {"frames_per_second": float("inf")},
        {"frames_per_second": float("nan")},
        {"frames_per_second": 1e9},
        {"learning_rate": float("nan")},
        {"weight_decay": float("nan")},
        {"weight_decay": -1.0},
        {"seed": -1},
    ],
)
def test_impossible_options_are_refused(settings):
    with pytest.raises(OptionError, match=next(iter(settings))):
        AdaptOptions(**settings)


@pytest.mark.parametrize("rate", [float("inf"), float("nan"), 1e9])
def test_impossible_rates_of_kept_frames_are_refused_in_training_too(rate):
    with pytest.raises(OptionError, match="cached_frames_per_second"):
        small_config().changed("train", cached_frames_per_second=rate)


@pytest.mark.parametrize("rate", [1e30, 1e38])
def test_a_loss_that_is_not_finite_is_said(base, shards_path, tmp_path, rate):
    sentence = "at step .*; nothing was saved; lower the learning rate"
    with pytest.raises(ConfigError, match=sentence):
        adapt(shards_path, base, tmp_path / "run", AdaptOptions(steps=40, learning_rate=rate))
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


@pytest.mark.parametrize(
    "mode",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)],
)
def test_modes_of_the_caller_do_not_change_training(base, shards_path, tmp_path, mode):
    options = AdaptOptions(steps=20, learning_rate=1e-2)
    expected = adapt(shards_path, base, tmp_path / "outside", options)
    with mode():
        result = adapt(shards_path, base, tmp_path / "inside", options)
    assert result.one_of_two_after == expected.one_of_two_after
    assert result.steps == expected.steps
    weights = load(result.path).state_dict()
    for name, value in load(expected.path).state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_the_folder_of_the_shards_is_no_run(base, tmp_path):
    folder = write_clips(tmp_path / "shards", [a_clip(number, "") for number in range(12)])
    files = set(folder.iterdir())
    with pytest.raises(ConfigError, match="holds the shards; give another folder"):
        adapt(folder, base, folder)
    with pytest.raises(ConfigError, match="holds the shards; give another folder"):
        train(folder, small_config(steps=1), folder)
    assert set(folder.iterdir()) == files


def test_wrong_shards_are_named_before_a_run_that_is_there(base, shards_path, tmp_path):
    adapt(shards_path, base, tmp_path / "run", AdaptOptions(steps=1))
    with pytest.raises(LookListenError, match="nowhere"):
        adapt(tmp_path / "nowhere", base, tmp_path / "run")


def test_the_default_batch_is_lowered_without_a_warning(base, shards_path, tmp_path, caplog):
    adapt(shards_path, base, tmp_path / "default", AdaptOptions(steps=1))
    assert "the batch is lowered" not in caplog.text
    adapt(shards_path, base, tmp_path / "asked for", AdaptOptions(steps=1, batch_size=100))
    assert "the batch is lowered from 100" in caplog.text


def test_a_run_of_adapt_is_not_resumed_by_train(base, shards_path, tmp_path):
    run = adapt(shards_path, base, tmp_path / "run", AdaptOptions(steps=20)).path
    config = open_network(run).config.changed("train", steps=30)
    with pytest.raises(CheckpointError, match=r"`adapt` wrote it.*give another run folder, or"):
        train(shards_path, config, run)


def test_a_network_that_stays_as_it_was_keeps_its_objective(base, shards_path, tmp_path):
    result = adapt(shards_path, base, tmp_path / "run", AdaptOptions(steps=120, learning_rate=3e-3))
    assert not result.is_better
    scale = open_network(result.path).objective().log_scale.item()
    assert scale == pytest.approx(np.log(INITIAL_SCALE), abs=1e-6)


def test_resuming_says_that_a_calibration_is_lost(shards_path, tmp_path, caplog):
    config = small_config(steps=1, schedule="constant")
    train(shards_path, config, tmp_path / "run", evaluated_pairs=8)
    checkpoint = open_network(tmp_path / "run").checkpoint
    save_calibration(checkpoint, Calibration(temperature=2.0, threshold=0.5, videos=7))
    train(shards_path, config.changed("train", steps=2), tmp_path / "run", evaluated_pairs=8)
    assert "later checkpoints have none" in " ".join(caplog.text.split())


def test_the_gain_is_paired_over_videos():
    videos = np.repeat(np.arange(6), 3).astype(str)
    scores = np.random.default_rng(0).normal(size=(18, 18)).astype(np.float32)
    before = rank(ScoreMatrix(scores, videos))
    after = rank(ScoreMatrix(scores + 5 * np.eye(18, dtype=np.float32), videos))

    assert paired_gain(before, before) == (0.0, (0.0, 0.0))
    gain, (low, high) = paired_gain(before, after)
    assert gain == pytest.approx(after.one_of_two.value - before.one_of_two.value)
    assert 0 < low < gain < high
