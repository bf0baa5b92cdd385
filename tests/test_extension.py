"""A backbone and an objective from outside the package, each registered by one call."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from conftest import small_config
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.linear_probe.shards import probe
from looklisten.inference.embedding.embed import embed
from looklisten.interop.pretrained import describe
from looklisten.model.backbones import (
    BACKBONES,
    Backbone,
    Layer,
    TowerOutput,
    register_backbone,
)
from looklisten.model.checkpoint import open_checkpoint
from looklisten.model.l3net import L3Net
from looklisten.model.networks import load
from looklisten.model.objectives import OBJECTIVES, Objective, register_objective
from looklisten.model.objectives.objective import LossAndAccuracy
from looklisten.training.loop import train
from looklisten.training.metrics_log import read_metrics


class OneConvolution(Backbone):
    """A single convolution with a large stride."""

    weight_settings = ("widths",)

    def __init__(self, in_channels, width, normalized_input):
        super().__init__()
        self._settings = {
            "in_channels": in_channels,
            "width": width,
            "normalized_input": normalized_input,
        }
        self.norm = nn.BatchNorm2d(in_channels) if normalized_input else nn.Identity()
        self.convolution = nn.Conv2d(in_channels, width, 8, stride=8)
        self.features, self.stride = width, 8
        self.layers = {"top": Layer(width), "quarters": Layer(width, (2, 2), "raw")}
        self.peak_values_per_pixel = width / 64

    @staticmethod
    def check(config):
        if config.crop_pixels < 8:
            raise ConfigError(f"model.crop_pixels {config.crop_pixels} is smaller than 8")

    @classmethod
    def from_config(cls, config, side, in_channels, normalized_input):
        return cls(in_channels, config.widths[-1], normalized_input)

    def settings(self):
        return dict(self._settings)

    def forward(self, x):
        raw = self.convolution(self.norm(x))
        map_ = functional.relu(raw)
        return TowerOutput(map_, map_.amax((2, 3)), {"raw": raw})

    def map_columns(self, columns):
        return columns // 8


class CosineObjective(Objective):
    """Pulls the vectors of a positive pair together, and nothing else."""

    @staticmethod
    def check(config):
        if config.model.fusion != "distance":
            raise ConfigError('the objective "cosine" needs model.fusion = "distance"')

    @staticmethod
    def chance_loss(settings):
        return 1.0

    def forward(self, fusion, vision, audio, targets, gather=lambda rows: rows):
        similarities = fusion.similarities(*fusion.project(vision, audio))
        positive = similarities[targets.positives].mean()
        return LossAndAccuracy(1 - positive, (positive > 0).float())

    def held_out_metrics(self, videos):
        return super().held_out_metrics(videos) | {"answer": 42.0}


@pytest.fixture
def registered():
    register_backbone("one-convolution", OneConvolution)
    register_objective("cosine", CosineObjective)
    yield
    del BACKBONES["one-convolution"], OBJECTIVES["cosine"]


def config_of(**settings):
    config = small_config(steps=12, learning_rate=5e-3, evaluate_every=12, **settings)
    return config.changed("model", backbone="one-convolution")


def test_a_registered_backbone_and_objective_train_probe_and_embed(
    registered, shards_path, tmp_path
):
    run = train(shards_path, config_of(objective="cosine"), tmp_path, evaluated_pairs=24)
    assert run.step == 12
    losses = [row["loss"] for row in read_metrics(tmp_path) if "loss" in row]
    assert losses[-1] < losses[0] < 2
    assert open_checkpoint(tmp_path).results["answer"] == 42
    assert isinstance(open_checkpoint(tmp_path).objective(), CosineObjective)

    network, shards = load(tmp_path), Shards(shards_path)
    assert isinstance(network.vision, OneConvolution)
    assert probe(network, shards, per_clip=1, held_out_fraction=0.1)["audio"].n > 0

    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 96_000).astype(np.float32)
    vectors = {
        layer: embed(sound, network, sample_rate_hz=48_000, layer=layer).vectors
        for layer in (None, "quarters", "aligned")
    }
    assert vectors[None].shape[1] == 16
    assert vectors["quarters"].shape[1] == 4 * 16
    assert np.allclose(np.linalg.norm(vectors["aligned"], axis=1), 1, atol=1e-5)
    with pytest.raises(ConfigError, match="there is no layer 'conv4_2'; the layers are top, quar"):
        embed(sound, network, sample_rate_hz=48_000, layer="conv4_2")
    with pytest.raises(ConfigError, match="OneConvolution cannot read a long spectrogram"):
        embed(sound, network, sample_rate_hz=48_000, dense=True)


def test_a_registered_backbone_is_built_again_from_its_settings(registered):
    network = L3Net(config_of().model).eval()
    settings = describe(network, None)["towers"]["audio"]
    tower = OneConvolution(**settings)
    tower.load_state_dict(network.audio.state_dict())
    columns = torch.rand(1, 1, 64, 96)
    assert torch.equal(tower(columns).vector, network.audio(columns).vector)


def test_the_own_checks_of_a_backbone_and_an_objective_are_asked(registered, shards_path, tmp_path):
    without_space = config_of(objective="cosine").changed("model", fusion="concat")
    with pytest.raises(ConfigError, match="needs model"):
        train(shards_path, without_space, tmp_path / "run")
    small = config_of().changed("model", resize_pixels=7, crop_pixels=7)
    with pytest.raises(ConfigError, match="crop_pixels 7 is smaller than 8"):
        train(shards_path, small, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_name_is_registered_once(registered):
    register_backbone("one-convolution", OneConvolution)
    with pytest.raises(ConfigError, match="there is a backbone 'vgg' already"):
        register_backbone("vgg", OneConvolution)
    with pytest.raises(ConfigError, match="there is an objective 'avc' already"):
        register_objective("avc", CosineObjective)
