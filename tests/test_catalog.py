"""The list of what can be named, and the residual backbone."""

import pytest
import torch

from conftest import small_config
from looklisten.app.output import emit
from looklisten.app.verbs.interop.models import run_models
from looklisten.config import ModelConfig, recipes
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.interop.catalog import models
from looklisten.interop.openl3.variants import BLOB_IDS
from looklisten.model.backbones import BACKBONES, build_tower
from looklisten.model.backbones.efficientnet import EfficientNetLite0
from looklisten.model.l3net import L3Net
from looklisten.model.published_weights import WEIGHTS_MIRROR_VARIABLE
from looklisten.training.loop import train


def test_the_list_has_every_backbone_network_and_recipe(monkeypatch, tmp_path):
    monkeypatch.setenv("LOOKLISTEN_CACHE", str(tmp_path))
    monkeypatch.delenv(WEIGHTS_MIRROR_VARIABLE, raising=False)
    listed = models()
    names = {"backbone": set(BACKBONES), "recipe": set(recipes())}
    for use, expected in names.items():
        assert {card.name for card in listed if card.use == use} == expected
    networks = {card.name: card for card in listed if card.use.startswith("network")}
    assert networks.keys() >= {"start", "hf:NAME"}
    assert len(networks) == len(BLOB_IDS) + 2
    assert networks["start"].is_local is False
    assert 20 < networks["start"].download_mb < 25
    cards = {card.name: card for card in listed if card.use != "recipe"}
    yamnet = cards["yamnet"]
    assert (yamnet.sides, yamnet.license, yamnet.is_local) == ("audio", "Apache-2.0", False)
    assert yamnet.million_parameters == 3.2
    assert "AudioSet" in yamnet.trained_on
    assert cards["vgg"].sides == "vision and audio"
    assert cards["vgg"].is_local is None
    assert cards["openl3:audio-mel256-env"].million_parameters == 4.7

    file = EfficientNetLite0.published.file
    (tmp_path / file.cache_name).mkdir()
    (tmp_path / file.cache_name / file.name).touch()
    assert {card.name: card for card in models()}["efficientnet-lite0"].is_local


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_every_name_whole_and_what_it_is_for(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    output = run_models()
    emit(output.terminal_values, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    uses = {}
    for line in lines:
        words = line.split()
        if words and words[0].rstrip("s,") in ("network", "backbone", "recipe"):
            title = words[0]
        elif words:
            uses.setdefault(words[0], []).append(title)
    cards = output.values["models"]
    assert {card["name"] for card in cards} <= uses.keys()
    assert uses["start"] == ["networks,", "recipes,"]
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize("first_stride", [1, 2])
def test_a_residual_tower_has_the_sizes_that_it_says(first_stride):
    settings = {"backbone": "resnet", "widths": (4, 8, 16), "first_stride": first_stride}
    config = ModelConfig.model_validate(settings | {"pools_keeping_time": 1})
    for side, channels in (("vision", 3), ("audio", 1)):
        tower = build_tower(config, side).eval()
        for rows, columns in ((64, 96), (57, 199), (41, 50)):
            output = tower(torch.rand(2, channels, rows, columns))
            assert output.map.shape[:2] == (2, 16)
            assert output.map.shape[3] == tower.map_columns(columns)
            assert torch.equal(output.vector, output.map.amax((2, 3)))


def test_a_residual_network_trains_and_refuses_strips(shards_path, tmp_path):
    config = small_config(steps=6, evaluate_every=6).changed("model", backbone="resnet")
    assert train(shards_path, config, tmp_path, evaluated_pairs=8).step == 6
    assert len(Shards(shards_path))
    network = L3Net(config.model)
    with pytest.raises(ConfigError, match="ResNet cannot read a long spectrogram"):
        network.audio.streaming(network.audio.layers["pool4"], torch.float32)
    too_many = config.changed("model", pools_keeping_time=4)
    with pytest.raises(ConfigError, match="4 blocks have 3 strides"):
        L3Net(too_many.model)
