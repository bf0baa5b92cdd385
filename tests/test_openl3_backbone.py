"""OpenL3's networks as the towers of a network: the same vectors, trained on or frozen."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

from conftest import SHARED, small_config
from looklisten.config import SIDES, ModelConfig
from looklisten.data.prepare import prepare
from looklisten.errors import ConfigError, LookListenError, PublishedFileError
from looklisten.inference.embedding.embed import embed
from looklisten.inference.encoder import encoder_of
from looklisten.interop import openl3
from looklisten.interop.openl3.published import MIRROR_VARIABLE
from looklisten.model.backbones import find_backbone
from looklisten.model.checkpoint import open_checkpoint
from looklisten.model.initial_towers import begin_published_towers
from looklisten.model.l3net import L3Net
from looklisten.model.networks import open_network
from looklisten.model.published_weights import state_sha256
from looklisten.training.loop import train

AUDIO, VISION = "openl3:audio-mel128-music", "openl3:image-mel256-music"
BOTH = {
    "audio_backbone": AUDIO,
    "vision_backbone": VISION,
    "front_end": "mel128",
    "fusion": "distance",
}


@pytest.fixture
def mirror(openl3_weights, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, str(openl3_weights))
    return openl3_weights


def as_keras(vectors, grid):
    """Vectors with the channels last, as OpenL3 has them."""
    rows, columns = grid
    return vectors.view(len(vectors), -1, rows, columns).permute(0, 2, 3, 1).flatten(1)


def relative_difference(vectors, expected):
    return float((vectors - expected).abs().max() / expected.abs().max())


def test_both_towers_give_the_vectors_of_openl3(mirror):
    network = L3Net(ModelConfig.model_validate(BOTH))
    begin_published_towers(network)
    encoder = encoder_of(network)
    rng = torch.Generator().manual_seed(2)
    sound = torch.randint(-(2**13), 2**13, (3, 48_000), generator=rng, dtype=torch.int16)
    frames = torch.randint(0, 256, (2, 3, 224, 224), generator=rng, dtype=torch.uint8)
    for side, name, batch, grid in (
        ("audio", AUDIO, sound, (4, 3)),
        ("vision", VISION, frames, (4, 4)),
    ):
        theirs = openl3.load(name)
        with torch.inference_mode():
            for layer, cells in (("pool4", (1, 1)), ("conv4_2", grid)):
                expected = theirs.encode(side, batch, layer)
                vectors = as_keras(encoder.encode(side, batch, layer), cells)
                assert relative_difference(vectors, expected) < 1e-4
            # The form that training computes with.
            output = network.look(batch) if side == "vision" else network.listen(batch)
            expected = theirs.encode(side, batch, "pool4")
            assert relative_difference(output.vector, expected) < 1e-4


@pytest.mark.skipif(not (SHARED / "openl3").exists(), reason="OpenL3's values are not here")
def test_the_towers_give_what_openl3_itself_computed(tmp_path, monkeypatch):
    from runpy import run_path

    expected = np.load(SHARED / "openl3" / "expected.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_weights.py", str(tmp_path)])
    run_path(str(SHARED / "openl3" / "make_weights.py"), run_name="__main__")
    (weights,) = {path.parent for path in tmp_path.rglob("*audio_mel256*")}
    monkeypatch.setenv(MIRROR_VARIABLE, str(weights))
    settings = {
        "audio_backbone": "openl3:audio-mel256-env",
        "vision_backbone": "openl3:image-mel256-env",
        "front_end": "mel256",
    }
    network = L3Net(ModelConfig.model_validate(BOTH | settings))
    begin_published_towers(network)
    rate, sound = wavfile.read(SHARED / "openl3" / "tone48.wav")
    # OpenL3 centers its windows on their times, so the first one begins with half a second of zeros.
    padded = np.concatenate([np.zeros(24_000, sound.dtype), sound])
    ours = embed(padded, network, sample_rate_hz=rate, layer="pool4", hop_seconds=0.25).vectors
    theirs = expected["mel256_512_tone48_hop025"]
    whole_windows = (len(padded) - 48_000) // 12_000 + 1
    assert whole_windows > 2
    assert ours[:whole_windows] == pytest.approx(theirs[:whole_windows], rel=1e-3, abs=1e-3)
    pixels = np.array(Image.open(SHARED / "openl3" / "texture224.png").convert("RGB"))
    frame = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with torch.inference_mode():
        vector = network.look(frame).vector
    assert relative_difference(vector, torch.from_numpy(expected["image224_512"])) < 1e-3


def test_frozen_towers_of_two_publishers_train_on_cached_features(
    published_towers, mirror, world, tmp_path, monkeypatch
):
    folder = tmp_path / "shards"
    prepare(sorted(world.rglob("*.mp4"))[:8], folder)
    settings = {"vision_backbone": "efficientnet-lite0", "audio_backbone": AUDIO}
    config = small_config(
        steps=3, batch_size=4, freeze="towers", cached_frames_per_second=0.5, probe_every=0
    )
    config = config.changed("model", **settings, front_end="mel128", fusion="distance")
    train(folder, config, tmp_path / "run", evaluated_pairs=8)
    assert list((folder / "features").glob("*/audio-*.npy"))
    # Nobody published the hash of these weights, so the checkpoint holds them.
    saved = open_checkpoint(tmp_path / "run")
    assert list(saved.published) == ["vision"]
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path / "gone"))
    tower = open_network(tmp_path / "run").l3net.audio
    monkeypatch.setenv(MIRROR_VARIABLE, str(mirror))
    published = find_backbone(AUDIO).published.load()
    assert state_sha256(tower.state_dict()) == state_sha256(published)


def test_a_tower_of_openl3_learns_where_it_is_not_frozen(mirror, shards_path, tmp_path):
    config = small_config(steps=2, batch_size=2, probe_every=0, evaluate_every=2)
    config = config.changed("model", vision_backbone=VISION, fusion="distance")
    train(shards_path, config, tmp_path, evaluated_pairs=4)
    before = find_backbone(VISION).published.load()
    after = open_network(tmp_path).l3net.vision.state_dict()
    for name in ("convs.0.weight", "norms.1.weight", "convs.7.bias", "input_norm.running_mean"):
        assert not torch.equal(before[name], after[name])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"front_end": "mel256"}, 'front end mel128.*set model.front_end to "mel128"'),
        ({"vision_backbone": AUDIO}, "openl3:audio-mel128-music is a backbone of sound"),
        ({"audio_backbone": "openl3:audio-mel128"}, "is no network that OpenL3 published"),
        ({"frames_per_pair": 2}, "takes one frame, and model.frames_per_pair is 2"),
    ],
)
def test_a_tower_of_openl3_refuses_other_settings(changes, sentence):
    with pytest.raises(LookListenError, match=sentence):
        L3Net(ModelConfig.model_validate(BOTH | changes))


def test_a_wrong_cut_or_missing_weight_file_is_one_sentence(mirror, tmp_path, monkeypatch):
    published = find_backbone(AUDIO).published
    file = mirror / "openl3_audio_mel128_music.h5"
    cut = tmp_path / "cut.h5"
    cut.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(LookListenError, match=r"no Keras weight file, or a damaged one"):
        published.load(cut)
    with pytest.raises(LookListenError, match=r"holds another network than openl3:audio-mel128"):
        published.load(mirror / "openl3_image_mel256_music.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(LookListenError, match=r"pip install 'looklisten\[openl3\]'"):
        published.load(file)
    monkeypatch.delenv(MIRROR_VARIABLE)
    monkeypatch.setenv("LOOKLISTEN_CACHE", str(tmp_path))
    monkeypatch.setenv("LOOKLISTEN_OFFLINE", "1")
    with pytest.raises(PublishedFileError, match="LOOKLISTEN_OFFLINE forbids the network"):
        published.load()


def test_the_refusal_of_an_unknown_backbone_names_the_families():
    with pytest.raises(ConfigError, match=r"names that begin with .*openl3:"):
        find_backbone("none")
    for side in SIDES:
        assert find_backbone(BOTH[f"{side}_backbone"]).sides == (side,)
