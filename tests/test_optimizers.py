"""Muon: what it changes, that it is resumed to the bit, and that no other run can take its state."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from conftest import small_config
from looklisten.errors import CheckpointError, OptionError
from looklisten.model.checkpoint import saved_steps
from looklisten.training import loop
from looklisten.training.optimizers import (
    Muon,
    Optimizers,
    names_of_filters,
    with_equal_singular_values,
)


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


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (1, 4, 3, 3), (8, 1, 3, 3), (1, 1, 1, 1)])
def test_filters_without_a_gradient_stay(shape):
    """As those behind a ReLU that is never positive. They are not 0 / 0, which is not a number."""
    filters = nn.Parameter(torch.randn(shape))
    before = filters.detach().clone()
    optimizer = Muon([{"params": [filters]}], 0.02)
    for _ in range(2):
        filters.grad = torch.zeros(shape)
        optimizer.step()
    assert torch.allclose(filters, before, rtol=1e-6)


def test_filters_of_zeros_stay():
    filters = nn.Parameter(torch.zeros(4, 2, 3, 3))
    filters.grad = torch.randn(4, 2, 3, 3)
    Muon([{"params": [filters]}], 0.02).step()
    assert not filters.any()


def test_a_gradient_that_is_not_finite_is_not_hidden():
    """The loss is then not a number, and the training says so."""
    for value in (float("nan"), float("inf")):
        filters = nn.Parameter(torch.randn(4, 2, 3, 3))
        filters.grad = torch.full((4, 2, 3, 3), value)
        Muon([{"params": [filters]}], 0.02).step()
        assert filters.isnan().any()


def test_steps_look_ahead_along_a_moving_sum():
    """The direction of step t is g_t + 0.9 m_t, where m_t = g_t + 0.9 m_(t-1)."""
    generator = torch.Generator().manual_seed(5)
    filters = nn.Parameter(torch.randn(6, 2, 3, 3, generator=generator))
    optimizer = Muon([{"params": [filters]}], 0.02)
    momentum = torch.zeros(6, 18)
    for _ in range(3):
        before = filters.detach().flatten(1).clone()
        gradient = torch.randn(6, 18, generator=generator)
        filters.grad = gradient.view(filters.shape).clone()
        optimizer.step()
        momentum = gradient + 0.9 * momentum
        kept = optimizer.state[filters]["momentum"].flatten(1)
        assert torch.allclose(kept, momentum, atol=1e-6)
        left, _, right = torch.linalg.svd(gradient + 0.9 * momentum, full_matrices=False)
        change = filters.detach().flatten(1) - before
        # Of equal singular values, up to what keeps the norm.
        along = -(change * (left @ right)).sum() / (change.norm() * len(left) ** 0.5)
        assert along > 0.95


def test_only_filters_of_convolutions_are_for_muon():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    network(torch.randn(2, 3, 3, 3)).square().sum().backward()
    settings = small_config(optimizer="muon").train
    parameters = dict(network.named_parameters())
    optimizers = Optimizers(parameters, names_of_filters(network), settings, {})
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


class Gains(nn.Module):
    """Gains of four dimensions that begin at zero, as in ConvNeXt V2."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, 5))


def test_gains_of_four_dimensions_are_no_filters():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, groups=1), Gains(), nn.Conv2d(4, 4, 3, groups=4))
    assert names_of_filters(network) == {"0.weight", "2.weight"}
    parameters = dict(network.named_parameters())
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    settings = small_config(optimizer="muon").train
    optimizers = Optimizers(parameters, names_of_filters(network), settings, {})
    optimizers.step(settings.learning_rate)
    assert torch.allclose(parameters["1.weight"], torch.tensor(-settings.learning_rate))


def test_towers_whose_filters_would_change_by_more_than_their_norm_are_refused():
    with pytest.raises(OptionError, match=r"filter_step of the towers is 2 and not below 1"):
        small_config().changed(
            "train",
            optimizer="muon",
            filter_step=0.02,
            learning_rate=1e-3,
            tower_learning_rate=0.1,
        )


def test_the_schedule_and_the_factors_of_towers_count_for_both():
    """At half the rate, and at a tower's tenth of it, filters move by as much less."""
    settings = small_config(optimizer="muon", filter_step=0.04).train
    named = {name: nn.Parameter(torch.ones(4, 2, 3, 3)) for name in ("vision.conv", "audio.conv")}
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    for parameter in named.values():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    optimizers = Optimizers(named, named.keys(), settings, {"vision.": 0.1})
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
    adam = Optimizers(named, named.keys(), small_config().train, {})
    adam.step(1e-3)
    with pytest.raises(KeyError):
        muon = Optimizers(named, named.keys(), small_config(optimizer="muon").train, {})
        muon.restore(adam.tensors())
