"""Muon: what it changes, that it is resumed to the bit, and that no other run can take its state."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from conftest import small_config
from looklisten.errors import CheckpointError
from looklisten.model.checkpoint import saved_steps
from looklisten.training import loop
from looklisten.training.optimizers import Muon, Optimizers, with_equal_singular_values


@pytest.mark.parametrize("shape", [(16, 9), (16, 144), (64, 576), (32, 32)])
def test_singular_values_become_equal_and_directions_stay(shape):
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(shape, generator=generator)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    # Values from 1 down to a hundredth.
    matrix = left * torch.logspace(0, -2, len(values)) @ right

    result = with_equal_singular_values(matrix)

    in_directions = left.T @ result @ right.T
    diagonal = in_directions.diagonal()
    assert diagonal.min() > 0.6
    assert diagonal.max() < 1.25
    rest = in_directions - torch.diag(diagonal)
    assert rest.abs().max() < 1e-4


def test_a_matrix_of_zeros_stays():
    assert not with_equal_singular_values(torch.zeros(3, 4)).any()


def test_a_step_moves_filters_by_a_share_of_their_norm_and_keeps_it():
    torch.manual_seed(0)
    filters = nn.Parameter(torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last))
    before = filters.detach().clone()
    filters.grad = torch.randn_like(filters) * 1e-3
    Muon([{"params": [filters]}], 0.02).step()
    after = filters.detach()
    assert float(after.norm()) == pytest.approx(float(before.norm()), rel=1e-5)
    change = float((after - before).norm() / before.norm())
    assert change == pytest.approx(0.02, rel=0.05)
    assert float((after - before).flatten() @ filters.grad.flatten()) < 0


def test_only_filters_of_convolutions_are_for_muon():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    network(torch.randn(2, 3, 3, 3)).square().sum().backward()
    settings = small_config(optimizer="muon").train
    optimizers = Optimizers(dict(network.named_parameters()), settings, {})
    optimizers.step(settings.learning_rate)
    keys: dict[str, set[str]] = {}
    for name in optimizers.tensors():
        parameter, _, key = name.rpartition("/")
        keys.setdefault(parameter, set()).add(key)
    adam = {"step", "exp_avg", "exp_avg_sq"}
    assert keys == {
        "0.weight": {"momentum"},
        "0.bias": adam,
        "1.weight": adam,
        "1.bias": adam,
        "3.weight": adam,
        "3.bias": adam,
    }


def test_the_schedule_and_the_factors_of_towers_count_for_both():
    """At half the rate, and at a tower's tenth of it, filters move by as much less."""
    settings = small_config(optimizer="muon", filter_step=0.04).train
    named = {name: nn.Parameter(torch.ones(4, 2, 3, 3)) for name in ("vision.conv", "audio.conv")}
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    for parameter in named.values():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    optimizers = Optimizers(named, settings, {"vision.": 0.1})
    optimizers.step(settings.learning_rate / 2)
    moved = {
        name: float((parameter.detach() - before[name]).norm() / before[name].norm())
        for name, parameter in named.items()
    }
    assert moved["audio.conv"] == pytest.approx(0.02, rel=0.05)
    assert moved["vision.conv"] == pytest.approx(0.002, rel=0.05)


def test_a_run_is_resumed_to_the_bit(shards_path, tmp_path):
    config = small_config(optimizer="muon", steps=10)
    loop.train(shards_path, config, tmp_path / "whole", evaluated_pairs=48)
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(saved_steps(tmp_path / "resumed/checkpoints")[-1])
    resumed = loop.train(shards_path, config, tmp_path / "resumed", evaluated_pairs=48)
    assert resumed.resumed_from == 5
    for file in ("model", "optimizer"):
        whole, again = [
            load_file(tmp_path / run / f"checkpoints/step-000000010/{file}.safetensors")
            for run in ("whole", "resumed")
        ]
        assert whole.keys() == again.keys()
        for name, value in whole.items():
            assert torch.equal(value, again[name]), name


def test_the_optimizer_of_a_run_cannot_change(shards_path, run_path):
    with pytest.raises(CheckpointError, match="optimizer"):
        loop.train(shards_path, small_config(optimizer="muon"), run_path, evaluated_pairs=48)


def test_the_state_of_another_optimizer_is_refused():
    named = {"conv": nn.Parameter(torch.randn(4, 2, 3, 3))}
    named["conv"].grad = torch.randn(4, 2, 3, 3)
    adam = Optimizers(named, small_config().train, {})
    adam.step(1e-3)
    with pytest.raises(KeyError):
        Optimizers(named, small_config(optimizer="muon").train, {}).restore(adam.tensors())
