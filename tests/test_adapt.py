"""Adapting a network to own footage: what it keeps, what it refuses, what it says."""

import json

import numpy as np
import pytest
import torch

from conftest import small_config
from looklisten.app.cli import main
from looklisten.errors import CheckpointError, ConfigError
from looklisten.evaluation.ranking import ScoreMatrix, rank
from looklisten.model.networks import load, open_network
from looklisten.training.frozen_towers.adapt import adapt, paired_gain
from looklisten.training.frozen_towers.options import AdaptOptions


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A network with untrained towers and the fusion `general`."""
    recipe = tmp_path_factory.mktemp("recipe") / "general.toml"
    config = small_config(objective="contrastive").changed("model", fusion="general", sharpness=3.0)
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


def test_the_same_command_twice_is_refused_the_second_time(base, shards_path, tmp_path):
    options = AdaptOptions(steps=1)
    adapt(shards_path, base, tmp_path / "run", options)
    with pytest.raises(CheckpointError, match="holds checkpoints already"):
        adapt(shards_path, base, tmp_path / "run", options)


def test_the_command_line_says_before_and_after(run_path, shards_path, tmp_path, capsys):
    arguments = ["adapt", str(shards_path), "--checkpoint", str(run_path), "--steps", "2"]
    assert main([*arguments, "--run", str(tmp_path / "run"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {"is_better", "one_of_two_before", "one_of_two_after_ci95", "gain_ci95"} <= set(printed)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"measured_fraction": 1.0}, {"batch_size": 1}])
def test_impossible_options_are_refused(settings):
    with pytest.raises(ConfigError):
        AdaptOptions(**settings)


def test_the_gain_is_paired_over_videos():
    videos = np.repeat(np.arange(6), 3).astype(str)
    scores = np.random.default_rng(0).normal(size=(18, 18)).astype(np.float32)
    before = rank(ScoreMatrix(scores, videos))
    after = rank(ScoreMatrix(scores + 5 * np.eye(18, dtype=np.float32), videos))

    assert paired_gain(before, before) == (0.0, (0.0, 0.0))
    gain, (low, high) = paired_gain(before, after)
    assert gain == pytest.approx(after.one_of_two.value - before.one_of_two.value)
    assert 0 < low < gain < high
