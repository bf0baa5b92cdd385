"""Training: golden first losses, exact resume (law 6), clear words when something is off."""

import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import small_config
from looklisten.config import Config
from looklisten.errors import CheckpointError, ConfigError
from looklisten.evaluation.correspondence import evaluate
from looklisten.model.checkpoint import open_checkpoint, saved_steps
from looklisten.model.networks import load
from looklisten.system.devices import names_bfloat16
from looklisten.training import loop
from looklisten.training.augmentation import tower_inputs
from looklisten.training.held_out import EVALUATED_PAIRS
from looklisten.training.metrics_log import read_metrics
from looklisten.training.optimizers import learning_rate
from noise_shards import a_clip, write_clips

GOLDEN = Path(__file__).parent / "golden_losses.txt"


def train(*args, **kwargs):
    """Measures little on held-out videos, so that the tests are quick."""
    return loop.train(*args, evaluated_pairs=24, **kwargs)


def weights(run):
    return {name: value.clone() for name, value in load(run).state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def losses(run):
    return [row["loss"] for row in read_metrics(run) if "loss" in row]


def test_first_losses_are_the_golden_ones(run_path):
    """A change that should not alter numbers shows the same numbers; write the file anew only with
    the reason in LOG.md.
    """
    golden = [float(line) for line in GOLDEN.read_text().split()]
    assert losses(run_path) == pytest.approx(golden, abs=2e-3)
    assert len(golden) == 20


def test_a_run_folder_has_config_checkpoints_and_metrics(run_path, shards):
    assert Config.load(run_path / "config.toml") == small_config()
    assert [path.name for path in saved_steps(run_path / "checkpoints")] == [
        "step-000000010",
        "step-000000015",
        "step-000000020",
    ]
    rows = read_metrics(run_path)
    assert {"loss", "accuracy", "learning_rate", "pairs_per_second", "data_wait"} <= rows[0].keys()
    assert any("held_out_accuracy" in row for row in rows)
    assert list((run_path / "tensorboard").glob("events.out.tfevents.*"))
    measured = open_checkpoint(run_path).results["held_out_accuracy"]
    logged = [row["held_out_accuracy"] for row in rows if "held_out_accuracy" in row][-1]
    held_out = shards.select(shards.held_out_mask(0.1))
    again = evaluate(load(run_path), held_out, EVALUATED_PAIRS)
    assert measured == logged == pytest.approx(again.accuracy, abs=2e-3)


def test_twice_the_same_is_the_same(shards_path, run_path, tmp_path):
    train(shards_path, small_config(), tmp_path)
    assert same(weights(tmp_path), weights(run_path))
    assert losses(tmp_path) == losses(run_path)


def test_stopped_and_resumed_is_the_same(shards_path, run_path, tmp_path):
    shutil.copytree(run_path, tmp_path / "run")
    for path in saved_steps(tmp_path / "run" / "checkpoints")[1:]:
        shutil.rmtree(path)
    run = train(shards_path, small_config(), tmp_path / "run")
    assert run.resumed_from == 10
    assert same(weights(tmp_path / "run"), weights(run_path))
    assert losses(tmp_path / "run") == losses(run_path)


def test_killed_and_run_again_is_the_same(shards_path, tmp_path):
    recipe = tmp_path / "small.toml"
    recipe.write_text(small_config(steps=60).toml())
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = ["train", str(shards_path), "--config", str(recipe), "--run", str(killed)]
    process = subprocess.Popen(
        [sys.executable, "-m", "looklisten", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # As many threads as here, so that sums are added in the same order.
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    while not (killed / "checkpoints/step-000000005").exists() and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.wait()
    step = open_checkpoint(killed).step
    assert step < 60, "the kill came too late to test anything"
    again = train(shards_path, Config.load(recipe), killed)
    assert again.resumed_from == step >= 5
    train(shards_path, Config.load(recipe), whole)
    assert same(weights(killed), weights(whole))
    assert losses(killed) == losses(whole)


def test_a_damaged_checkpoint_is_passed_over(shards_path, run_path, tmp_path):
    shutil.copytree(run_path, tmp_path / "run")
    newest = saved_steps(tmp_path / "run" / "checkpoints")[-1] / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    assert open_checkpoint(tmp_path / "run").step == 15
    assert train(shards_path, small_config(), tmp_path / "run").resumed_from == 15
    assert same(weights(tmp_path / "run"), weights(run_path))


def test_damage_is_reported(run_path, tmp_path):
    shutil.copytree(run_path, tmp_path / "run")
    only = saved_steps(tmp_path / "run" / "checkpoints")[-1]
    (only / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(
        CheckpointError,
        match=r"model.safetensors is damaged: its bytes are not those that were written",
    ):
        open_checkpoint(only)
    (only / "checkpoint.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"checkpoint.json is damaged"):
        open_checkpoint(only)
    with pytest.raises(CheckpointError, match="is not there; give the folder of a run"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        open_checkpoint(tmp_path)


def test_another_config_is_refused_and_the_run_left_alone(shards_path, run_path, tmp_path):
    shutil.copytree(run_path, tmp_path / "run")
    before = weights(tmp_path / "run")
    with pytest.raises(
        CheckpointError,
        match=r"was trained with another config: train.seed was 0 and is 1; "
        r"give another run folder",
    ):
        train(shards_path, small_config(seed=1), tmp_path / "run")
    assert same(weights(tmp_path / "run"), before)


def test_a_small_set_lowers_the_batch_with_a_warning(shards_path, tmp_path, caplog):
    train(shards_path, small_config(steps=1, batch_size=64), tmp_path)
    assert "only 36 videos to train on: the batch is lowered from 64 to 36" in caplog.text
    assert Config.load(tmp_path / "config.toml").train.batch_size == 36


def test_one_video_is_too_few(world, tmp_path):
    from looklisten.data.prepare import prepare

    prepare([world / f"{i:06d}.mp4" for i in range(3)], tmp_path / "shards", workers=1)
    with pytest.raises(
        ConfigError,
        match="training needs at least 2 videos in addition to the held-out ones, and there are 1",
    ):
        train(tmp_path / "shards", small_config(), tmp_path / "run")


def test_held_out_videos_are_never_trained_on(tmp_path):
    """Whatever they show and sound like, the weights are the same."""

    def trained(name, changed=()):
        clips = []
        for number in range(12):
            split = "train" if number < 8 else "test"
            clips.append(a_clip(number, split, content=number + 100 * (number in changed)))
        path = write_clips(tmp_path / name, clips)
        train(path, small_config(steps=2), tmp_path / f"{name}-run")
        return weights(tmp_path / f"{name}-run")

    usual = trained("usual")
    assert same(usual, trained("held-out", range(8, 12)))
    for number in (0, 7):
        assert not same(usual, trained(f"training-{number}", [number]))


def test_the_network_can_learn(shards_path, tmp_path):
    """Some steps on a few videos: the loss leaves ln 2 behind. A wrong sign anywhere would keep it
    there.
    """
    train(shards_path, small_config(steps=150, learning_rate=5e-3, warmup_steps=10), tmp_path)
    rows = [row for row in read_metrics(tmp_path) if "loss" in row][-40:]
    assert sum(row["loss"] for row in rows) / 40 < math.log(2) - 0.04
    assert sum(row["accuracy"] for row in rows) / 40 > 0.58


def test_learning_rate_schedules():
    constant = small_config(
        steps=100, warmup_steps=10, schedule="constant", learning_rate=1.0
    ).train
    assert [learning_rate(constant, step) for step in (1, 5, 10, 11, 100)] == [0.1, 0.5, 1, 1, 1]
    cosine = small_config(steps=100, warmup_steps=10, schedule="cosine", learning_rate=1.0).train
    rates = [learning_rate(cosine, step) for step in range(11, 101)]
    assert rates[0] == 1
    assert rates[45] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001
    assert rates == sorted(rates, reverse=True)


def test_augmentation_depends_on_the_step_alone_and_stays_in_range(shards):
    from looklisten.data.pairs import FrameTransform, PairStream

    config = small_config()
    batch = PairStream(
        shards.select(~shards.held_out_mask(0.1)), 8, 0, FrameTransform(64, 48, random=True)
    ).batch(0)
    frames, waves = tower_inputs(batch, config, 3, "cpu")
    again = tower_inputs(batch, config, 3, "cpu")
    other = tower_inputs(batch, config, 4, "cpu")
    assert torch.equal(frames, again[0])
    assert torch.equal(waves, again[1])
    assert not torch.equal(frames, other[0])
    assert frames.min() >= -1 and frames.max() <= 1
    gains = waves.norm(dim=1) / (batch.waveforms.float() / 2**15).norm(dim=1)
    assert ((gains > 0.9) & (gains < 1.1)).all()
    assert gains.std() > 0.01


@pytest.mark.parametrize(
    ("cpuinfo", "multiplies"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_tile\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd i8mm bf16 dgh\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd svebf16\n", False),
        ("processor\t: 0\nflags\t\t: fpu avx2\nmodel name\t: bf16 for beginners\n", False),
        ("", False),
    ],
)
def test_processors_that_multiply_bfloat16_are_known_by_their_flags(cpuinfo, multiplies):
    assert names_bfloat16(cpuinfo) == multiplies
