"""Before a long run: a grid of short ones, and a few videos by heart."""

import json
import math

import pytest

from conftest import small_config
from looklisten.app.cli import main
from looklisten.errors import ConfigError
from looklisten.training import checkpointing
from looklisten.training.overfit import overfit
from looklisten.training.sweep import sweep

FITTING = small_config(batch_size=8, learning_rate=3e-3, negatives="all").changed(
    "model", widths=(8, 16, 16, 32)
)


@pytest.fixture(autouse=True)
def _few_pairs(monkeypatch):
    """The loop's looks at held-out videos are quick ones here."""
    monkeypatch.setattr(checkpointing, "EVALUATED_PAIRS", 48)


def test_a_sweep_takes_the_best_and_is_not_done_twice(shards_path, tmp_path):
    found = sweep(
        shards_path, small_config(), tmp_path, ["lr=1e-9,3e-3", "negatives=all,roll"], steps=4
    )
    assert [trial.name for trial in found.trials] == [
        f"lr={rate} negatives={kind}" for rate in ("1e-9", "3e-3") for kind in ("all", "roll")
    ]
    best = max(found.trials, key=lambda trial: (trial.held_out_accuracy, -trial.loss))
    rate, kind = (setting.split("=")[1] for setting in best.name.split())
    assert found.take == f"--train.learning-rate {rate} --train.negatives {kind}"
    assert len(list((tmp_path / "sweep").iterdir())) == 4
    again = sweep(
        shards_path, small_config(), tmp_path, ["lr=1e-9,3e-3", "negatives=all,roll"], steps=4
    )
    assert [trial.held_out_accuracy for trial in again.trials] == [
        trial.held_out_accuracy for trial in found.trials
    ]
    assert again.take == found.take


def test_a_diverging_run_is_not_taken(shards_path, tmp_path):
    found = sweep(shards_path, small_config(), tmp_path, ["lr=1e30,1e-3"], steps=6)
    assert math.isnan(found.trials[0].loss)
    assert found.take == "--train.learning-rate 1e-3"
    with pytest.raises(ConfigError, match="every run of the sweep ended in no number"):
        sweep(shards_path, small_config(), tmp_path, ["lr=1e30"], steps=6)


@pytest.mark.parametrize(
    ("axis", "sentence"),
    [
        ("lr", "a sweep is a setting and its values"),
        ("optimism=1", "there is no setting train.optimism"),
        ("lr=-1", "learning_rate"),
    ],
)
def test_a_grid_that_cannot_be_is_said_before_the_first_run(shards_path, tmp_path, axis, sentence):
    with pytest.raises(ConfigError, match=sentence):
        sweep(shards_path, small_config(), tmp_path, ["lr=1e-3", axis], steps=1)
    assert not (tmp_path / "sweep").exists()


def test_a_few_videos_can_be_learnt_by_heart(shards_path):
    found = overfit(shards_path, FITTING, videos=8, seconds=60)
    assert found.learnt
    assert found.accuracy >= 0.95
    assert found.videos == 8


def test_what_cannot_be_learnt_is_said(shards_path):
    found = overfit(shards_path, FITTING.changed("train", learning_rate=1e-9), videos=8, seconds=2)
    assert not found.learnt
    assert "--sweep" in found.advice
    assert found.seconds < 20


def test_both_are_options_of_train(shards_path, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(FITTING.toml())
    verb = ["train", str(shards_path), "--config", str(recipe), "--run", str(tmp_path / "run")]
    assert main([*verb, "--sweep", "lr=1e-3,3e-3", "--sweep-steps", "2"]) == 0
    assert len(json.loads(capsys.readouterr().out)["trials"]) == 2
    assert main([*verb, "--overfit", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == 4
    assert main([*verb, "--overfit", "4", "--sweep", "lr=1e-3"]) == 2
