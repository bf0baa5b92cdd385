"""Before a long run: a grid of short ones, and a few videos memorized."""

import json
import math

import pytest

from conftest import small_config
from looklisten.app.cli import main
from looklisten.errors import ConfigError
from looklisten.training import sweep as module
from looklisten.training.overfit import overfit

FITTING = small_config(batch_size=8, learning_rate=3e-3, negatives="all").changed(
    "model", widths=(8, 16, 16, 32)
)


def sweep(*args, **kwargs):
    """Measures little on held-out videos, so that the tests are quick."""
    return module.sweep(*args, evaluated_pairs=48, **kwargs)


def test_a_sweep_takes_the_best_trial_and_reuses_finished_ones(shards_path, tmp_path):
    result = sweep(
        shards_path, small_config(), tmp_path, ["lr=1e-9,3e-3", "negatives=all,roll"], steps=4
    )
    assert [trial.name for trial in result.trials] == [
        f"lr={rate} negatives={kind}" for rate in ("1e-9", "3e-3") for kind in ("all", "roll")
    ]
    best = max(result.trials, key=lambda trial: (trial.held_out_accuracy, -trial.loss))
    rate, kind = (setting.split("=")[1] for setting in best.name.split())
    assert result.best_options == f"--train.learning-rate {rate} --train.negatives {kind}"
    assert len(list((tmp_path / "sweep").iterdir())) == 4
    again = sweep(
        shards_path, small_config(), tmp_path, ["lr=1e-9,3e-3", "negatives=all,roll"], steps=4
    )
    assert [trial.held_out_accuracy for trial in again.trials] == [
        trial.held_out_accuracy for trial in result.trials
    ]
    assert again.best_options == result.best_options


def test_a_diverging_trial_is_not_the_best(shards_path, tmp_path):
    result = sweep(shards_path, small_config(), tmp_path, ["lr=1e30,1e-3"], steps=6)
    assert math.isnan(result.trials[0].loss)
    assert result.best_options == "--train.learning-rate 1e-3"
    with pytest.raises(ConfigError, match="the loss of every run of the sweep became not a number"):
        sweep(shards_path, small_config(), tmp_path, ["lr=1e30"], steps=6)


@pytest.mark.parametrize(
    ("axis", "sentence"),
    [
        ("lr", "a sweep is a setting and its values"),
        ("optimism=1", "there is no setting train.optimism"),
        ("lr=-1", "learning_rate"),
    ],
)
def test_an_impossible_grid_is_refused_before_the_first_run(shards_path, tmp_path, axis, sentence):
    with pytest.raises(ConfigError, match=sentence):
        sweep(shards_path, small_config(), tmp_path, ["lr=1e-3", axis], steps=1)
    assert not (tmp_path / "sweep").exists()


def test_a_few_videos_can_be_memorized(shards_path):
    result = overfit(shards_path, FITTING, videos=8, seconds=60)
    assert result.memorized
    assert result.accuracy >= 0.95
    assert result.videos == 8


def test_empty_sounds_are_left_out_of_what_is_memorized(shards_path):
    with_empty = FITTING.changed("train", empty_sound_share=0.5)
    results = [overfit(shards_path, config, videos=2) for config in (FITTING, with_empty)]
    assert results[0].steps == results[1].steps
    assert results[0].loss == results[1].loss


def test_a_network_that_memorizes_nothing_gets_advice(shards_path):
    result = overfit(shards_path, FITTING.changed("train", learning_rate=1e-9), videos=8, seconds=2)
    assert not result.memorized
    assert "--sweep" in result.advice
    assert result.seconds < 20


def test_sweep_and_overfit_are_options_of_train(shards_path, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(FITTING.toml())
    verb = ["train", str(shards_path), "--config", str(recipe), "--run", str(tmp_path / "run")]
    assert main([*verb, "--sweep", "lr=1e-3,3e-3", "--sweep-steps", "2"]) == 0
    assert len(json.loads(capsys.readouterr().out)["trials"]) == 2
    assert main([*verb, "--overfit", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == 4
    assert main([*verb, "--overfit", "4", "--sweep", "lr=1e-3"]) == 2
