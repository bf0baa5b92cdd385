"""A backbone, an objective and a front end from outside the package, each registered by one call."""

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
from looklisten.inference.localization.localize import localize
from looklisten.interop.pretrained import describe
from looklisten.media.front_ends import FRONT_ENDS, FrontEnd, register_front_end
from looklisten.media.spectrogram import LogSpectrogram
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

    def forward(self, fusion, vision, audio, batch, gather=lambda rows: rows):
        similarities = fusion.similarities(*fusion.project(vision, audio))
        positive = similarities[batch.pairing.masks(self.compares_all)[0]].mean()
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


AT_22_KHZ = FrontEnd(
    sample_rate_hz=22_050,
    window_samples=512,
    hop_samples=220,
    fft_samples=512,
    floor=5e-5,
    offset=6.5,
    scale=2.0,
    mel_bands=64,
    unit_window=True,
)
"""22,050 Hz is 147/320 of the rate of all sound, so that no stored sample is simply kept."""


@pytest.fixture
def heard_at_22_khz():
    register_front_end("at-22-khz", AT_22_KHZ)
    yield small_config(steps=6, evaluate_every=6).changed("model", front_end="at-22-khz")
    del FRONT_ENDS["at-22-khz"]


def test_a_network_that_hears_another_rate_is_one_call(
    heard_at_22_khz, shards_path, world, tmp_path
):
    train(shards_path, heard_at_22_khz, tmp_path / "run", evaluated_pairs=24)
    network = load(tmp_path / "run")
    # A second has 1 + (22,050 - 512) // 220 columns.
    assert network.spectrogram(torch.zeros(1, 48_000)).shape == (1, 1, 64, 98)
    assert probe(network, Shards(shards_path), per_clip=1, held_out_fraction=0.1)["audio"].n > 0
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 96_000).astype(np.float32)
    assert embed(sound, network, sample_rate_hz=48_000).vectors.shape[1] == 16
    video = sorted(world.rglob("*.mp4"))[0]
    assert next(iter(localize(video, network))).sound_map.values.size > 0
    with pytest.raises(ConfigError, match="columns that are a whole number of samples apart at 48"):
        embed(sound, network, sample_rate_hz=48_000, dense=True)


def test_a_front_end_hears_a_tone_at_its_own_rate_and_nothing_above_it():
    front_end = LogSpectrogram(AT_22_KHZ)
    seconds = torch.arange(48_000, dtype=torch.float64) / 48_000
    at_own_rate = torch.arange(22_050, dtype=torch.float64) / 22_050

    def tone(hz, times):
        return (0.5 * torch.sin(2 * torch.pi * hz * times)).float()[None]

    for hz in (300, 3000, 8000):
        # The filter sees silence before and after the second.
        resampled = front_end.resampled(tone(hz, seconds))[:, 50:-50]
        assert resampled.shape == (1, 22_050 - 100)
        assert torch.allclose(resampled, tone(hz, at_own_rate)[:, 50:-50], atol=0.02)
    assert front_end.resampled(tone(18_000, seconds))[:, 50:-50].abs().max() < 0.01


def test_an_unknown_front_end_is_refused_before_anything_is_written(shards_path, tmp_path):
    config = small_config().changed("model", front_end="papre")
    with pytest.raises(ConfigError, match=r"there is no front end 'papre'.*are compact, kaldi128"):
        train(shards_path, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="there is a front end 'paper' already"):
        register_front_end("paper", AT_22_KHZ)
    with pytest.raises(ConfigError, match=r"at most 48000 Hz.*sample_rate_hz is 96000"):
        FrontEnd(480, 240, 512, 1e-12, sample_rate_hz=96_000)
