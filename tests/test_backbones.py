"""Backbones with published weights: equal to the networks of others, and how their weights come."""

import io
import shutil
import tarfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import SHARED, small_config
from looklisten.config import SIDES, ModelConfig
from looklisten.errors import ConfigError, PublishedFileError
from looklisten.evaluation.linear_probe.baselines import probed_layer
from looklisten.evaluation.units.naming import units
from looklisten.interop.publish import save_pretrained
from looklisten.media.spectrogram import LogSpectrogram
from looklisten.model.backbones import BACKBONES, register_backbone
from looklisten.model.backbones.efficientnet import (
    ARCHIVE_NAME,
    WEIGHTS_NAME,
    EfficientNetLite0,
    published_name,
    read_efficientnet,
)
from looklisten.model.backbones.same_padding import same_padding
from looklisten.model.backbones.vgg import Vgg
from looklisten.model.backbones.yamnet import Yamnet, read_yamnet
from looklisten.model.checkpoint import open_checkpoint
from looklisten.model.initial_towers import begin_published_towers
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run, open_network
from looklisten.model.published_weights import (
    WEIGHTS_MIRROR_VARIABLE,
    PublishedWeights,
    state_sha256,
)
from looklisten.system.published_files import PublishedFile, file_digest
from looklisten.training.frozen_towers.adapt import adapt
from looklisten.training.frozen_towers.options import AdaptOptions
from looklisten.training.loop import train

YAMNET = SHARED / "media" / "models" / "yamnet.tflite"
needs_yamnet = pytest.mark.skipif(not YAMNET.exists(), reason="the shared models are not here")

TWO_SIDES = {
    "vision_backbone": "efficientnet-lite0",
    "audio_backbone": "yamnet",
    "front_end": "yamnet",
    "fusion": "distance",
    "resize_pixels": 64,
    "crop_pixels": 64,
}


@pytest.fixture
def weights_folder(tmp_path, monkeypatch):
    """A folder with random weights of EfficientNet-Lite0 in the published file's form."""
    torch.manual_seed(3)
    folder = tmp_path / "weights"
    folder.mkdir()
    state = EfficientNetLite0().state_dict()
    torch.save(
        {published_name(name): value for name, value in state.items()}, folder / WEIGHTS_NAME
    )
    monkeypatch.setenv(WEIGHTS_MIRROR_VARIABLE, str(folder))
    return folder


# EfficientNet-Lite0.


def test_efficientnet_weights_come_from_the_file_or_its_package(weights_folder):
    state = read_efficientnet(weights_folder / WEIGHTS_NAME)
    archive = weights_folder / ARCHIVE_NAME
    with tarfile.open(archive, "w:gz") as file:
        file.add(weights_folder / WEIGHTS_NAME, f"package-0.1.0/models/{WEIGHTS_NAME}")
    from_archive = read_efficientnet(archive)
    assert state_sha256(state) == state_sha256(from_archive)
    network = EfficientNetLite0()
    network.load_state_dict(state)
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_371_008


def as_pickle(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class RunsCode:
    """A pickle that would run code."""

    def __reduce__(self):
        return print, ("code of a pickle ran",)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (WEIGHTS_NAME, lambda data: data[: len(data) // 2]),
        (WEIGHTS_NAME, lambda data: b""),
        (WEIGHTS_NAME, lambda data: bytes(2000)),
        (WEIGHTS_NAME, lambda data: b"<html>not found</html>"),
        (WEIGHTS_NAME, lambda data: as_pickle([1, 2])),
        (WEIGHTS_NAME, lambda data: as_pickle({"weight": torch.zeros(3)})),
        (WEIGHTS_NAME, lambda data: as_pickle(RunsCode())),
        (ARCHIVE_NAME, lambda data: data[:1000]),
    ],
)
def test_a_wrong_or_cut_efficientnet_file_is_one_sentence(weights_folder, capsys, name, change):
    path = weights_folder / name
    path.write_bytes(change((weights_folder / WEIGHTS_NAME).read_bytes()))
    sentence = r"does not hold the weights of efficientnet-lite0 \(.*\); give eff"
    with pytest.raises(PublishedFileError, match=sentence) as raised:
        EfficientNetLite0.published.load(path)
    # PyTorch advises to run the code of a pickle.
    assert "weights_only" not in str(raised.value)
    assert "code of a pickle" not in capsys.readouterr().out


def test_the_maps_of_efficientnet_have_the_sizes_of_the_paper():
    network = EfficientNetLite0().eval()
    with torch.inference_mode():
        output = network(torch.rand(2, 3, 224, 224) * 2 - 1)
        wide = network(torch.rand(1, 3, 100, 333) * 2 - 1)
    assert output.map.shape == (2, 1280, 7, 7)
    assert output.named_maps["stage5"].shape == (2, 112, 14, 14)
    assert torch.equal(output.vector, output.map.mean((2, 3)))
    assert wide.map.shape[2:] == (network.map_columns(100), network.map_columns(333))


def test_padding_is_that_of_tensorflow():
    assert same_padding(224, 3, 2) == (0, 1)
    assert same_padding(112, 5, 2) == (1, 2)
    assert same_padding(7, 3, 2) == (1, 1)
    assert same_padding(14, 3, 1) == (1, 1)


# YAMNet.


def front_end_at_16_khz():
    """The front end of YAMNet for sound that has 16 kHz already."""

    class Direct(LogSpectrogram):
        def resampled(self, waves):
            return waves

    return Direct("yamnet")


def test_a_second_of_sound_gives_the_96_columns_that_yamnet_was_trained_on():
    front_end = LogSpectrogram("yamnet")
    assert front_end(torch.zeros(2, 48_000)).shape == (2, 1, 64, 96)
    assert front_end(torch.zeros(1, 480_000)).shape == (1, 1, 64, 992)
    # The 0.96 s are the middle of the second: a click 5 ms after its start is not in them.
    click = torch.zeros(1, 48_000)
    click[0, 240] = 1
    silence = front_end(torch.zeros(1, 48_000))
    assert (front_end(click)[..., 1:] - silence[..., 1:]).abs().max() < 0.05


def test_the_front_end_of_yamnet_keeps_what_lies_below_7_5_khz_and_no_alias():
    front_end = LogSpectrogram("yamnet")
    seconds = torch.arange(48_000) / 48_000

    def loudest(hz):
        return float(front_end(0.5 * torch.sin(2 * torch.pi * hz * seconds)[None]).max())

    assert loudest(7000) == pytest.approx(loudest(1000), abs=0.7)
    # 10 kHz would appear at 6 kHz.
    assert loudest(10_000) < loudest(6000) - 4


def test_mel_bands_are_triangles_over_mel_with_peaks_of_one():
    filters = LogSpectrogram("yamnet").mel
    assert filters.shape == (257, 64)
    assert 0.9 < float(filters.max()) <= 1
    assert not filters[0].any()
    # 7,500 Hz is bin 240.
    assert not filters[240:].any()


@needs_yamnet
def test_yamnet_is_equal_to_the_interpreter_of_its_publisher():
    """The interpreter rounds activations to 8 bits, and we do not: a cosine of 0.998 remains.

    With the interpreter's own input, each layer of ours has a cosine of at least 0.999 with its
    output, and the layers that it computes in floats agree to 3e-6.
    """
    network = Yamnet().eval()
    network.load_state_dict(read_yamnet(YAMNET))
    seconds = torch.arange(15_600) / 16_000
    noise = np.random.default_rng(0).normal(0, 0.3, 15_600)
    sound = torch.from_numpy(noise * np.exp(-8 * seconds.numpy())).float()
    with torch.inference_mode():
        output = network(front_end_at_16_khz()(sound[None]))
        scores = network.class_scores(output.vector)[0]
    assert output.map.shape == (1, 1024, 2, 3)
    assert output.named_maps["block11"].shape == (1, 512, 4, 6)
    # The largest units of the interpreter (ai-edge-litert 2.3.0), its values and ours.
    units = [976, 389, 909, 553, 926, 321, 877, 999, 1017, 538, 297, 378, 187, 193, 430, 146]
    theirs = [2.822, 2.101, 2.073, 1.838, 1.747, 1.675, 1.605, 1.601]
    theirs += [1.391, 1.353, 1.196, 1.151, 1.098, 0.893, 0.869, 0.858]
    ours = [2.84, 2.076, 2.084, 1.886, 1.75, 1.692, 1.727, 1.689]
    ours += [1.34, 1.467, 1.298, 1.128, 1.111, 0.84, 0.952, 1.033]
    vector = output.vector[0, units]
    assert vector.tolist() == pytest.approx(ours, abs=2e-3)
    assert torch.cosine_similarity(vector, torch.tensor(theirs), dim=0) > 0.998
    assert scores.topk(3).indices.tolist() == [438, 420, 428]


@needs_yamnet
def test_a_wrong_or_cut_yamnet_file_is_one_sentence(tmp_path):
    data = YAMNET.read_bytes()
    cut, other, empty = tmp_path / "cut.tflite", tmp_path / "other.tflite", tmp_path / "empty"
    cut.write_bytes(data[: len(data) // 2])
    other.write_bytes(b"PK" + data)
    empty.write_bytes(b"")
    for path in (cut, other, empty):
        with pytest.raises(
            PublishedFileError, match=r"does not hold .*yamnet .*; give yamnet\.tfl"
        ):
            Yamnet.published.load(path)


# Settings.


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"front_end": "compact"},
            'trained with the front end yamnet.*set model.front_end to "yam',
        ),
        ({"vision_backbone": "yamnet"}, "yamnet is a backbone of sound, not of frames"),
        ({"audio_backbone": "efficientnet-lite0"}, "efficientnet-lite0 is a backbone of frames"),
        ({"frames_per_pair": 2}, "takes one frame, and model.frames_per_pair is 2"),
        (
            {"audio_backbone": "none"},
            r"there is no backbone 'none' .* efficientnet-lite0, resnet, vgg, yam",
        ),
    ],
)
def test_a_backbone_refuses_what_it_was_not_trained_for(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        L3Net(ModelConfig.model_validate(TWO_SIDES | changes))


@pytest.mark.parametrize(("model", "layer"), [(TWO_SIDES, "mean"), ({}, "conv4_2")])
def test_a_probe_takes_the_papers_layer_where_there_is_one(model, layer):
    run = Run("network", L3Net(ModelConfig.model_validate(model)).eval())
    for side in SIDES:
        assert probed_layer(run, side, None) == layer
        assert probed_layer(run, side, "pool4") == "pool4"


def test_each_side_has_its_own_number_of_features():
    for fusion in ("concat", "distance", "similarity", "dense"):
        network = L3Net(ModelConfig.model_validate(TWO_SIDES | {"fusion": fusion})).eval()
        assert network.features == {"vision": 1280, "audio": 1024}
        frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
        with torch.inference_mode():
            logits = network(frames, torch.rand(2, 48_000) - 0.5)
        assert logits.shape == (2, 2)
        assert torch.isfinite(logits).all()


# How weights come.


class Small(Vgg):
    """A small backbone with published weights."""

    published: PublishedWeights

    @classmethod
    def from_config(cls, config, side, in_channels, normalized_input):
        return cls(in_channels, (4, 8), 2, normalized_input, 0, side)


def read_small(path):
    return load_file(path)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The published state of `Small`, which is registered and whose file is in a mirror."""
    torch.manual_seed(5)
    state = Small(3, (4, 8), 2).state_dict()
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    save_file(state, mirror / "small.safetensors")
    monkeypatch.setenv("LOOKLISTEN_TEST_MIRROR", str(mirror))
    file = PublishedFile(
        name="small.safetensors",
        title="small",
        address="http://127.0.0.1:9/",
        digest=file_digest(mirror / "small.safetensors", "sha256"),
        size_mb=0.01,
        license="Apache-2.0",
        cache_name="backbones",
        mirror_variable="LOOKLISTEN_TEST_MIRROR",
    )
    Small.published = PublishedWeights(file, read_small, state_sha256(state), "us", "nothing")
    register_backbone("small", Small)
    yield state
    del BACKBONES["small"]


def small_run(**settings):
    config = small_config(steps=2, checkpoint_every=1, schedule="constant", **settings)
    return config.changed("model", vision_backbone="small")


def vision_state(run):
    return open_checkpoint(run).model().vision.state_dict()


def test_training_begins_with_published_weights_and_stores_them_once(
    small, shards_path, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    train(shards_path, small_run(freeze="vision"), run, evaluated_pairs=8)
    saved = open_checkpoint(run)
    assert saved.published == {"vision": state_sha256(small)}
    card = save_pretrained(run, tmp_path / "published") / "README.md"
    row = "| vision tower | small, trained by us on nothing; Apache-2.0 |"
    assert row in card.read_text(encoding="utf-8")
    stored = load_file(saved.path / "model.safetensors")
    assert {name.partition(".")[0] for name in stored} == {"audio", "fusion"}
    assert state_sha256(vision_state(run)) == state_sha256(small)
    longer = small_run(freeze="vision").changed("train", steps=3)
    assert train(shards_path, longer, run, evaluated_pairs=8).resumed_from == 2

    mirror = tmp_path / "mirror" / "small.safetensors"
    save_file({name: value + 1 for name, value in small.items()}, mirror)
    with pytest.raises(PublishedFileError, match=r"small\.safetensors is damaged or holds other"):
        open_network(run)
    mirror.unlink()
    with pytest.raises(PublishedFileError, match=r"mirror holds no small\.safetensors"):
        open_network(run)


def test_a_tower_that_was_trained_on_is_stored_and_needs_no_published_file(
    small, shards_path, tmp_path, monkeypatch
):
    train(shards_path, small_run(), tmp_path / "run", evaluated_pairs=8)
    assert not open_checkpoint(tmp_path / "run").published
    monkeypatch.setenv("LOOKLISTEN_TEST_MIRROR", str(tmp_path / "nothing here"))
    trained = vision_state(tmp_path / "run")["blocks.0.conv1.weight"]
    published = small["blocks.0.conv1.weight"]
    # Two steps of Adam move a weight by at most twice the learning rate.
    assert 0 < (trained - published).abs().max() < 0.1


def test_weights_that_are_not_the_published_ones_are_refused_unless_they_are_named(
    small, tmp_path, caplog
):
    other = {name: value + 1 for name, value in small.items()}
    mirror = tmp_path / "mirror" / "small.safetensors"
    save_file(other, mirror)
    network = L3Net(small_run().model)
    with pytest.raises(
        PublishedFileError, match=r"small\.safetensors is damaged .*; replace the file"
    ):
        begin_published_towers(network)
    assert not caplog.messages
    state = Small.published.load(mirror)
    assert state_sha256(state) == state_sha256(other)
    (warning,) = caplog.messages
    assert str(mirror) in warning and "used as they are" in warning


@pytest.mark.parametrize("name", [WEIGHTS_NAME, "yamnet.tflite"])
def test_a_changed_byte_in_the_folder_of_the_mirror_is_found(
    published_towers, tmp_path, monkeypatch, name
):
    folder = tmp_path / "changed"
    shutil.copytree(published_towers, folder)
    changed = bytearray((folder / name).read_bytes())
    changed[len(changed) // 5] ^= 64
    (folder / name).unlink()
    (folder / name).write_bytes(changed)
    monkeypatch.setenv(WEIGHTS_MIRROR_VARIABLE, str(folder))
    for network in ("start", "untrained:start"):
        with pytest.raises(PublishedFileError, match=f"{name} is damaged or holds other weights"):
            open_network(network)


def test_a_changed_layer_of_classes_is_found(published_towers, tmp_path, monkeypatch):
    stored = torch.load(published_towers / WEIGHTS_NAME, weights_only=True)
    stored["_fc.bias"][7] += 1
    torch.save(stored, tmp_path / WEIGHTS_NAME)
    monkeypatch.setenv(WEIGHTS_MIRROR_VARIABLE, str(tmp_path))
    EfficientNetLite0.published.load()
    with pytest.raises(PublishedFileError, match="is damaged or holds other weights"):
        EfficientNetLite0.published.load_classes()


def test_a_run_can_begin_from_scratch_or_with_a_given_file(small, shards_path, tmp_path):
    config = small_run(freeze="vision", vision_from="scratch")
    train(shards_path, config, tmp_path / "scratch", evaluated_pairs=8)
    assert not open_checkpoint(tmp_path / "scratch").published
    given = tmp_path / "given.safetensors"
    save_file({name: value * 2 for name, value in small.items()}, given)
    config = small_run(freeze="vision", vision_from=str(given))
    train(shards_path, config, tmp_path / "given", evaluated_pairs=8)
    weight = vision_state(tmp_path / "given")["blocks.0.conv1.weight"]
    assert torch.equal(weight, 2 * small["blocks.0.conv1.weight"])


def test_a_network_is_adapted_and_opened_with_the_given_file_of_its_tower(
    small, shards_path, tmp_path, monkeypatch
):
    given = tmp_path / "given.safetensors"
    save_file(small, given)
    config = small_run(freeze="vision", vision_from=str(given))
    train(shards_path, config, tmp_path / "run", evaluated_pairs=8)
    monkeypatch.setenv("LOOKLISTEN_TEST_MIRROR", str(tmp_path / "nothing here"))
    adapt(shards_path, tmp_path / "run", tmp_path / "adapted", AdaptOptions(steps=1))
    assert state_sha256(vision_state(tmp_path / "adapted")) == state_sha256(small)


def test_units_of_sides_with_other_numbers_of_features(small, held_out):
    network = L3Net(small_run().model).eval()
    assert network.features["vision"] != network.features["audio"]
    result = units(network, held_out, top=2)
    assert {side: len(result.of(side)) for side in SIDES} == network.features


def test_an_untrained_network_has_the_published_weights(small, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(small_run().toml(), encoding="utf-8")
    network = open_network(f"untrained:{recipe}").network
    assert state_sha256(network.vision.state_dict()) == state_sha256(small)
    own = L3Net(small_run().model)
    assert state_sha256(own.vision.state_dict()) != state_sha256(small)
    begin_published_towers(own)
    assert state_sha256(own.vision.state_dict()) == state_sha256(small)
