"""Models of the Hugging Face Hub as towers: their own input, their own values, and refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from conftest import small_config
from hf_models import save_ast, save_pictures
from hub_server import HubServer
from looklisten.config import ModelConfig
from looklisten.errors import ConfigError, LookListenError, PublishedFileError
from looklisten.inference.embedding.embed import embed
from looklisten.interop.catalog import models
from looklisten.interop.hf.pictures import picture_input
from looklisten.interop.hf.source import hf_source
from looklisten.interop.onnx import ConvolvedSpectrogram
from looklisten.interop.publish import save_pretrained
from looklisten.media.spectrogram import LogSpectrogram
from looklisten.model.backbones import build_tower, find_backbone
from looklisten.model.initial_towers import begin_published_towers
from looklisten.model.l3net import L3Net
from looklisten.model.networks import load, open_network
from looklisten.model.published_weights import state_sha256
from looklisten.training.loop import train

# Of AST's own feature extractor, which the tests call too.
pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter")

SIZES = {"resize_pixels": 64, "crop_pixels": 56}
PICTURES = ("convnextv2", "resnet", "dinov2", "mobilenet_v2")


@pytest.fixture
def folder(tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    return out


def vision_config(folder, **settings):
    model = {"vision_backbone": f"hf:{folder}", "audio_backbone": "vgg", "widths": (4, 8)}
    return ModelConfig.model_validate(model | SIZES | {"fusion": "distance"} | settings)


def audio_config(folder, **settings):
    model = {"audio_backbone": f"hf:{folder}", "front_end": "kaldi128", "widths": (4, 8)}
    return ModelConfig.model_validate(model | {"fusion": "distance"} | settings)


def published(config):
    network = L3Net(config)
    begin_published_towers(network)
    return network.eval()


# Pictures.


@pytest.mark.parametrize("kind", PICTURES)
def test_a_model_of_pictures_gives_its_own_map(folder, kind):
    model = save_pictures(folder, kind)
    network = published(vision_config(folder))
    rng = np.random.default_rng(0)
    square = rng.integers(0, 256, (56, 56, 3), np.uint8)
    with torch.inference_mode():
        ours = network.look(torch.from_numpy(square).permute(2, 0, 1)[None])
        pixels = transformers.AutoImageProcessor.from_pretrained(folder)(
            Image.fromarray(square), do_resize=False, return_tensors="pt"
        )["pixel_values"]
        theirs = model(pixels)[0]
    if kind == "dinov2":  # its tokens are one for the class, then those of 4 x 4 positions
        theirs = theirs[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    if kind == "convnextv2":  # AutoBackbone normalizes its map over the channels
        theirs = torch.nn.functional.layer_norm(theirs.permute(0, 2, 3, 1), [16], eps=1e-6)
        theirs = theirs.permute(0, 3, 1, 2)
    assert torch.allclose(ours.map, theirs, atol=1e-4)
    assert ours.map.std() > 0.01
    assert torch.allclose(ours.vector, theirs.mean((2, 3)), atol=1e-4)
    tower = network.vision
    assert tower.features == ours.map.shape[1]
    assert tower.map_columns(56) == ours.map.shape[3]
    wide = network.look(torch.zeros(1, 3, 56, 112, dtype=torch.uint8))
    assert tower.map_columns(112) == wide.map.shape[3]
    assert tower.peak_values_per_pixel > 0.1


def test_the_sizes_are_those_of_the_image_processor(folder):
    for processor, sizes in (
        (transformers.ConvNextImageProcessorPil(size={"shortest_edge": 224}), (256, 224, "crop")),
        (
            transformers.ConvNextImageProcessorPil(size={"shortest_edge": 384}),
            (384, 384, "squeeze"),
        ),
        (transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}), (32, 32, "squeeze")),
        (transformers.BitImageProcessorPil(), (224, 224, "crop")),
    ):
        save_pictures(folder, "resnet", processor)
        picture = picture_input(hf_source(f"hf:{folder}"))
        assert (picture.resize_pixels, picture.crop_pixels, picture.frame_fit) == sizes
        white = picture.normalized(torch.ones(1, 3, 2, 2))[0, :, 0, 0]
        expected = (1 - np.array(processor.image_mean)) / np.array(processor.image_std)
        assert white.tolist() == pytest.approx(expected.tolist())


# Sound.


def test_the_front_end_of_kaldi_is_that_of_the_feature_extractor():
    extractor = transformers.ASTFeatureExtractor(max_length=98, do_normalize=False)
    rng = np.random.default_rng(1)
    sound = (0.1 * rng.standard_normal(16_000) + 0.05).astype(np.float32)
    theirs = extractor(sound, sampling_rate=16_000, return_tensors="pt")["input_values"]

    class At16Khz(LogSpectrogram):
        def resampled(self, waves):
            return waves

    class ConvolvedAt16Khz(ConvolvedSpectrogram):
        def resampled(self, waves):
            return waves

    for front_end in (At16Khz("kaldi128"), ConvolvedAt16Khz("kaldi128")):
        ours = front_end(torch.from_numpy(sound)[None])
        assert ours.shape == (1, 1, 128, 98)
        assert torch.allclose(ours[0, 0].T, theirs[0], atol=2e-3)
    assert LogSpectrogram("kaldi128")(torch.zeros(1, 48_000)).shape == (1, 1, 128, 98)


def test_an_audio_spectrogram_transformer_gives_its_own_tokens(folder):
    model = save_ast(folder, mean=-3.0, std=4.0)
    network = published(audio_config(folder))
    rng = np.random.default_rng(2)
    # Little above 8 kHz, so that resampling changes little.
    slow = np.repeat(rng.standard_normal(1000), 48).astype(np.float32)
    sound = torch.from_numpy(np.convolve(slow, np.ones(96) / 400, "same").astype(np.float32))
    with torch.inference_mode():
        ours = network.listen(sound[None])
        at_16_khz = network.front_end.resampled(sound[None])[0, :16_000]
        values = transformers.AutoFeatureExtractor.from_pretrained(folder)(
            at_16_khz.numpy(), sampling_rate=16_000, return_tensors="pt"
        )["input_values"]
        theirs = model.audio_spectrogram_transformer(values)
    tokens = theirs.last_hidden_state[0, 2:].T.unflatten(1, (12, 12))
    # Nine of twelve columns of tokens lie within the second.
    assert ours.map.shape == (1, 16, 12, 9) and network.audio.map_columns(98) == 9
    assert torch.allclose(ours.map[0], tokens[:, :, :9], atol=0.05)
    pooled = embed(sound, network, sample_rate_hz=48_000, layer="pooled").vectors
    assert pooled == pytest.approx(theirs.pooler_output.numpy(), abs=0.05)
    assert abs(theirs.pooler_output).max() > 0.5


def test_a_frozen_transformer_of_the_hub_trains_on_cached_features(
    folder, shards_path, tmp_path, monkeypatch
):
    save_pictures(folder, "dinov2")
    sound = tmp_path / "sound"
    sound.mkdir()
    save_ast(sound)
    config = small_config(steps=4, freeze="towers", probe_every=0)
    settings = {"vision_backbone": f"hf:{folder}", "audio_backbone": f"hf:{sound}"}
    config = config.changed("model", **settings, **SIZES, front_end="kaldi128", fusion="distance")
    train(shards_path, config, tmp_path / "run", evaluated_pairs=8)
    run = open_network(tmp_path / "run")
    state = run.l3net.vision.state_dict()
    expected = find_backbone(f"hf:{folder}").published.load()
    assert state_sha256(state) == state_sha256(expected)
    card = save_pretrained(tmp_path / "run", tmp_path / "published") / "README.md"
    assert f"hf:{folder}, trained by the publisher" in card.read_text(encoding="utf-8")
    assert load(tmp_path / "published").vision.features == 16


def test_a_model_of_the_hub_learns_where_it_is_not_frozen(folder, shards_path, tmp_path):
    save_pictures(folder, "resnet")
    config = small_config(steps=2, probe_every=0, vision_from="scratch")
    config = config.changed("model", vision_backbone=f"hf:{folder}", **SIZES, fusion="distance")
    train(shards_path, config, tmp_path / "run", evaluated_pairs=8)
    after = open_network(tmp_path / "run").l3net.vision.state_dict()
    before = find_backbone(f"hf:{folder}").published.load()
    name = "model.embedder.embedder.convolution.weight"
    assert not torch.allclose(after[name], before[name], atol=0.01)


# Refusals.


def test_a_model_refuses_another_input(folder):
    save_pictures(folder, "resnet")
    sentence = r"model.crop_pixels is 48, model.frame_fit is squeeze; set model.crop_pixels to 56"
    with pytest.raises(ConfigError, match=sentence):
        build_tower(vision_config(folder, crop_pixels=48, frame_fit="squeeze"), "vision")
    with pytest.raises(ConfigError, match="is a backbone of frames, not of sound"):
        build_tower(vision_config(folder, audio_backbone=f"hf:{folder}"), "audio")
    with pytest.raises(PublishedFileError, match="name its folder as the backbone"):
        find_backbone(f"hf:{folder}").published.load(folder / "model.safetensors")


def test_an_ast_refuses_another_front_end(folder):
    save_ast(folder)
    with pytest.raises(ConfigError, match=r'set model\.front_end to "kaldi128"'):
        build_tower(audio_config(folder, front_end="paper"), "audio")
    other = folder.parent / "other"
    save_ast(other, sampling_rate=8000)
    with pytest.raises(ConfigError, match="hears 8000 Hz in 128 mel bands"):
        find_backbone(f"hf:{other}")


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_a_model_without_a_map_is_no_backbone(folder, kind):
    save_pictures(folder, kind)
    with pytest.raises(ConfigError, match=f"is a {kind}, which cannot be a tower"):
        find_backbone(f"hf:{folder}")


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def take_weights_of_another(folder):
    other = folder.parent / "other"
    save_pictures(other, "dinov2")
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())


def leave_a_pickle(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def change_config(folder, **values):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | values))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut, r"cannot be loaded \(.*check that its files are complete"),
        (take_weights_of_another, r"are not those of a resnet: .* are missing, such as"),
        (leave_a_pickle, r"cannot be loaded \(.*safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), r"cannot be loaded \("),
        (lambda folder: (folder / "config.json").unlink(), r"cannot be loaded \("),
        (lambda folder: change_config(folder, model_type="none"), r"cannot be loaded \("),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), r"cannot be loaded \("),
    ],
)
def test_a_wrong_or_cut_file_is_one_sentence(folder, damage, sentence):
    save_pictures(folder, "resnet")
    damage(folder)
    with pytest.raises(PublishedFileError, match=sentence) as raised:
        find_backbone(f"hf:{folder}").published.load()
    assert "\n" not in str(raised.value)


def test_a_missing_folder_and_a_missing_extra_are_one_sentence(folder, monkeypatch):
    with pytest.raises(PublishedFileError, match=r"there is no folder \./none; give hf: and"):
        find_backbone("hf:./none")
    monkeypatch.setenv("LOOKLISTEN_OFFLINE", "1")
    with pytest.raises(LookListenError, match=r"org/none is not .* downloads are off"):
        find_backbone("hf:org/none")
    save_pictures(folder, "resnet")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'looklisten\[hf\]'"):
        find_backbone(f"hf:{folder}")


# The Hub.

LOAD_FROM_HUB = """
import sys
import looklisten as ll
assert "transformers" not in sys.modules
from looklisten.config import ModelConfig
from looklisten.model.backbones import find_backbone
assert "transformers" not in sys.modules
backbone = find_backbone("hf:org/small")
print(backbone.published.file.license, len(backbone.published.load()))
"""


def run_python(code, **environ):
    environ = os.environ | {"PYTHONWARNINGS": "default"} | environ
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False
    )


def test_a_name_on_the_hub_is_downloaded_once(folder, tmp_path):
    model = save_pictures(folder, "resnet")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "pytorch_model.bin").write_bytes(b"nobody needs this")
    hub = HubServer()
    hub.models["org/small"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    environ = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "cache")}
    first = run_python(LOAD_FROM_HUB, **environ)
    assert first.stdout == f"apache-2.0 {len(model.state_dict())}\n", first.stderr
    assert not any("pytorch_model.bin" in request for request in hub.asked)
    hub.shutdown()
    hub.server_close()
    again = run_python(LOAD_FROM_HUB, **environ, LOOKLISTEN_OFFLINE="1")
    assert again.stdout == first.stdout, again.stderr


def test_the_list_says_what_a_name_of_the_hub_can_be():
    (card,) = [card for card in models() if card.name.startswith("hf:")]
    assert card.use == "network, backbone"
    assert "card" in card.license


def test_the_package_does_not_import_transformers():
    for file in Path(sys.modules["looklisten"].__file__).parent.rglob("*.py"):
        assert "\nimport transformers" not in file.read_text(encoding="utf-8")
