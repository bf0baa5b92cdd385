"""Features of frozen towers: computed once, kept beside the shards, and what is trained on them."""

import errno
import io
import platform
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import small_config
from looklisten.data.pairs import FULL_BATCH
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.frames import crop, decode_jpeg, stack
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.model.fusions import correspondence_logit
from looklisten.model.fusions.linear import LinearFusion, Standardized
from looklisten.model.l3net import L3Net
from looklisten.model.networks import load
from looklisten.training.frozen_towers.batches import FeatureStream
from looklisten.training.frozen_towers.cache import feature_rows, features_key, open_features
from looklisten.training.frozen_towers.feature_files import FeatureFiles
from looklisten.training.loop import train
from noise_shards import a_clip, write_clips


def frozen_config(**train_settings):
    """Untrained towers, frozen, and the fusion `linear` on their features."""
    settings = {
        "freeze": "towers",
        "objective": "contrastive",
        "probe_every": 0,
        "schedule": "constant",
    }
    config = small_config(**(settings | train_settings))
    return config.changed("model", fusion="linear", sharpness=3.0, fusion_dropout=0.2)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return L3Net(frozen_config().model).eval()


@pytest.fixture(scope="module")
def own_shards(shards_path, tmp_path_factory):
    """A copy, so that features beside it are of this file alone."""
    folder = tmp_path_factory.mktemp("features") / "shards"
    shutil.copytree(shards_path, folder)
    return Shards(folder)


@pytest.fixture(scope="module")
def cache(network, own_shards):
    return open_features(network, own_shards, 2.0)


def test_cached_features_are_those_of_the_towers(network, own_shards, cache):
    row = 7
    clip, frame = int(cache.rows.frame_clips[row]), int(cache.rows.frames[row])
    pixels = decode_jpeg(own_shards.jpeg(clip, frame), network.config.resize_pixels)
    square = stack([crop(pixels, network.config.crop_pixels, 0.5, 0.5)])
    start = int(cache.rows.window_starts[row])
    waveform = own_shards.waveform(int(cache.rows.window_clips[row]))
    sound = torch.from_numpy(waveform[start : start + WINDOW_SAMPLES].copy())[None]
    with torch.inference_mode():
        vision, audio = network.fusion.features(network.look(square), network.listen(sound))

    rows = np.array([row, 0, row])
    torch.testing.assert_close(cache.vision.take(rows)[0], vision[0], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(cache.audio.take(rows)[2], audio[0], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("frames_per_second", [0.3, 1.0, 4.0])
def test_every_frame_lies_in_a_window_of_its_clip(own_shards, frames_per_second):
    rows = feature_rows(own_shards, frames_per_second)

    for clip, seconds in zip(rows.frame_clips, rows.frame_seconds, strict=True):
        starts = rows.window_starts[rows.window_clips == clip] / SAMPLE_RATE_HZ
        assert np.any((starts <= seconds) & (seconds < starts + 1))
    assert set(rows.frame_clips) == set(range(len(own_shards)))


def test_an_interrupted_computation_goes_on_with_the_same_bytes(network, own_shards, cache):
    files = sorted(cache.folder.glob("*.npy"))
    before = {path: path.read_bytes() for path in files}
    dates = {path: path.stat().st_mtime_ns for path in files}
    files[0].unlink()

    open_features(network, own_shards, 2.0)

    assert {path: path.read_bytes() for path in files} == before
    assert all(path.stat().st_mtime_ns == dates[path] for path in files[1:])


def test_other_towers_and_other_crops_have_other_features(network, own_shards):
    key = features_key(network, own_shards, 2.0)
    torch.manual_seed(1)
    other_weights = L3Net(network.config)
    other_crop = L3Net(network.config.model_copy(update={"crop_pixels": 40}))
    other_crop.load_state_dict(network.state_dict())
    other_head = L3Net(network.config)
    other_head.load_state_dict(network.state_dict())
    torch.nn.init.zeros_(other_head.fusion.fc3.weight)

    assert features_key(other_weights, own_shards, 2.0) != key
    assert features_key(other_crop, own_shards, 2.0) != key
    assert features_key(network, own_shards, 1.0) != key
    assert features_key(other_head, own_shards, 2.0) == key


def test_other_shards_have_other_features(network, tmp_path):
    keys = set()
    for first in (0, 1):
        folder = write_clips(tmp_path / f"from {first}", [a_clip(n, "") for n in (first, 2)])
        keys.add(features_key(network, Shards(folder), 2.0))
    assert len(keys) == 2


def test_the_window_of_a_held_out_moment_is_the_nearest_one(cache):
    rows = cache.rows
    middles = rows.window_starts / SAMPLE_RATE_HZ + 0.5
    for frame in range(0, len(rows.frames), 7):
        distances = np.abs(middles - rows.frame_seconds[frame])
        of_clip = rows.window_clips == rows.frame_clips[frame]
        nearest = cache.nearest_window(frame)
        assert of_clip[nearest]
        assert distances[nearest] == distances[of_clip].min()


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "backwards": lambda data: data[::-1],
    "zeroed values": lambda data: data[:-400] + bytes(400),
    "empty": lambda data: b"",
    "a zip file": lambda data: b"PK\x03\x04",
    "one number": lambda data: saved(np.float16(1)),
    "one row": lambda data: saved(np.zeros(256, np.float16)),
    "fewer positions": lambda data: saved(np.load(io.BytesIO(data))[:, :1]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_computed_again(network, own_shards, cache, damage, caplog):
    path = cache.audio.path(0)
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    open_features(network, own_shards, 2.0)
    assert path.read_bytes() == whole
    assert f"such as {path}; they are computed again" in " ".join(caplog.text.split())


def test_a_file_of_other_features_is_computed_again(network, own_shards, cache, tmp_path):
    path = cache.vision.path(0)
    whole = path.read_bytes()
    others = FeatureFiles(tmp_path, "vision", cache.vision.rows)
    others.write(0, np.zeros_like(np.load(path)))
    path.write_bytes(others.path(0).read_bytes())
    open_features(network, own_shards, 2.0)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "mode",
    [
        torch.no_grad,
        torch.inference_mode,
        torch.enable_grad,
        lambda: torch.autocast("cpu", torch.bfloat16),
    ],
)
def test_modes_of_the_caller_do_not_change_features(network, own_shards, cache, mode):
    path = cache.vision.path(0)
    whole = path.read_bytes()
    path.unlink()
    with mode():
        open_features(network, own_shards, 2.0)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            1e6,
            r"the vision tower \(vgg\) gives features up to .* must be below 65504; take another",
        ),
        (float("nan"), r"the vision tower \(vgg\) gives features that are infinite or no numbers"),
    ],
)
def test_features_that_float16_cannot_hold_are_refused(own_shards, value, sentence):
    network = L3Net(frozen_config().model).eval()
    for norm in network.vision.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(norm.bias, value)
    with pytest.raises(ConfigError, match=sentence):
        open_features(network, own_shards, 0.5)


def test_a_full_disk_is_an_error_with_a_number(cache):
    resource = pytest.importorskip("resource")
    values = cache.audio.take(np.array(cache.audio.rows_of(0))).half().numpy()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Beyond the limit a write fails as on a full disk, with another number.
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (values.nbytes // 2, limits[1]))
    try:
        with pytest.raises(OSError) as raised:
            cache.audio.write(0, values)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert raised.value.errno == errno.EFBIG


def test_scratch_of_a_killed_computation_is_removed(network, own_shards, cache):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = platform.node().replace("-", "_")
    for folder in (cache.folder, cache.folder.parent):
        (folder / f".aside-{host}-{ended.pid}-x").mkdir()
    open_features(network, own_shards, 2.0)
    assert not list(cache.folder.parent.rglob(".aside-*"))


def test_batches_pair_a_frame_with_a_window_that_holds_it(network, own_shards, cache):
    stream = FeatureStream(own_shards, 8, 0, network, cache)
    batch = stream.batch(3, FULL_BATCH)

    rows = cache.rows
    frames, windows = batch.choices.frames, batch.choices.sound_starts
    assert np.array_equal(rows.frame_clips[frames], batch.choices.clips)
    assert np.array_equal(rows.window_clips[windows], batch.choices.clips)
    after_start = rows.frame_seconds[frames] - rows.window_starts[windows] / SAMPLE_RATE_HZ
    assert np.all((after_start >= 0) & (after_start < 1))
    again = stream.batch(3, FULL_BATCH)
    assert torch.equal(batch.vision, again.vision) and torch.equal(batch.audio, again.audio)


def test_a_run_on_features_is_resumed_exactly_and_leaves_the_towers_alone(own_shards, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(own_shards.path, frozen_config(steps=10), whole)
    train(own_shards.path, frozen_config(steps=5), parts)
    train(own_shards.path, frozen_config(steps=10), parts)

    last = "checkpoints/step-000000010/model.safetensors"
    weights, resumed = load_file(whole / last), load_file(parts / last)
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())
    torch.manual_seed(0)
    untrained = L3Net(frozen_config().model).state_dict()
    for name, value in weights.items():
        is_trained = name.startswith("fusion.") and "num_batches" not in name
        assert torch.equal(value, untrained[name]) != is_trained, name


def test_features_can_be_switched_off(own_shards, tmp_path):
    before = set(own_shards.path.glob("features/*"))
    train(own_shards.path, frozen_config(steps=2, cached_frames_per_second=0, seed=5), tmp_path)
    assert set(own_shards.path.glob("features/*")) == before


def test_towers_can_have_a_learning_rate_of_their_own(own_shards, tmp_path):
    config = frozen_config(steps=3, freeze="none", learning_rate=1e-3)
    for name, rate in (("same", 0.0), ("slow", 1e-9)):
        train(own_shards.path, config.changed("train", tower_learning_rate=rate), tmp_path / name)
    torch.manual_seed(0)
    start = L3Net(config.model).state_dict()
    for name in ("vision.blocks.0.conv1.weight", "audio.blocks.0.conv1.weight"):
        moved = {}
        for run in ("same", "slow"):
            trained = load(tmp_path / run).state_dict()[name]
            moved[run] = float((trained - start[name]).abs().max())
        assert moved["slow"] < 1e-6 < moved["same"]


def test_standardized_features_have_mean_0_and_nearly_deviation_1():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 3, generator=generator) * torch.tensor([1.0, 2.0, 4.0]) + 5
    layer = Standardized(3)
    assert torch.equal(layer(rows), rows)
    layer.fit(rows)
    torch.testing.assert_close(layer(rows).mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    assert torch.all((layer(rows).std(0) > 0.8) & (layer(rows).std(0) < 1))


def test_general_scores_all_pairs_as_it_scores_rows(network):
    assert isinstance(network.fusion, LinearFusion)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (3, 3, 48, 48), generator=generator, dtype=torch.uint8)
    sounds = torch.randint(-9999, 9999, (3, 48_000), generator=generator, dtype=torch.int16)
    with torch.inference_mode():
        features = network.fusion.features(network.look(frames), network.listen(sounds))
        by_row = correspondence_logit(network.fusion(*features))
        all_pairs = network.fusion.all_pairs_logits(*network.fusion.project(*features))
    torch.testing.assert_close(by_row, correspondence_logit(all_pairs).diagonal())
