"""One run of the tower over a long sound gives the map that windows share; where a window differs
from itself alone is known.
"""

import numpy as np
import pytest
import torch

from looklisten.config import ModelConfig
from looklisten.errors import ConfigError
from looklisten.inference.embedding.dense import DenseAudio, check_dense
from looklisten.inference.embedding.embed import embed
from looklisten.inference.embedding.options import EmbedOptions
from looklisten.inference.embedding.records import concatenate
from looklisten.inference.embedding.windows import WindowGrid
from looklisten.inference.encoder import encoder_of
from looklisten.media.spectrogram import LogSpectrogram
from looklisten.model.backbones.vgg_streaming import StreamingVgg
from looklisten.model.l3net import L3Net

RATE_HZ = 48_000
PAPER_GRID_SAMPLES = 8 * 240
"""Three poolings of columns that lie 240 samples apart."""


def lookahead_columns(tower):
    return tower.streaming(tower.layers["pool4"], torch.float32).lookahead_columns


def network(**settings):
    """A small one, its batch-norm as after some training: neither 0 nor 1."""
    torch.manual_seed(0)
    model = L3Net(
        ModelConfig(**{"widths": (4, 8, 8, 16), "resize_pixels": 64, "crop_pixels": 48} | settings)
    ).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.uniform_(-0.5, 0.5)
    return model


TINY = {"first_stride": 2, "front_end": "compact"}
KINDS = {
    "paper": {},
    "ave": {"first_stride": 2},
    "tiny": TINY,
    "moments": TINY | {"pools_keeping_time": 2},
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def model(request):
    return network(**request.param)


def noise(seconds):
    rng = np.random.default_rng(0)
    samples = round(seconds * RATE_HZ)
    return (rng.standard_normal(samples) * 0.2 * np.sin(np.arange(samples) / 5000) ** 2).astype(
        np.float32
    )


def cosines(a, b):
    return (
        (a.vectors * b.vectors).sum(1)
        / np.linalg.norm(a.vectors, axis=1)
        / np.linalg.norm(b.vectors, axis=1)
    )


@torch.inference_mode()
def test_a_streaming_tower_gives_the_map_of_the_whole_spectrogram(model):
    picture = torch.randn(1, 1, 40, 400)
    whole = model.audio(picture)
    sizes = [150, 61, 100, 89]
    for raw, image in ((True, whole.named_maps["conv4_2"]), (False, whole.map)):
        rolling = StreamingVgg(model.audio, torch.float32, raw)
        rolled = torch.cat([rolling.push(strip) for strip in picture.split(sizes, dim=3)], 3)
        # The right border of the whole picture has zeros beside it, which no strip knows.
        known = (400 - lookahead_columns(model.audio) - 1) // model.audio.stride + 1
        assert known > 10
        assert rolled.shape[3] == known
        assert torch.allclose(rolled, image[..., :known], atol=1e-4 * float(image.abs().max()))


@torch.inference_mode()
def test_reach_is_the_input_that_a_position_depends_on(model):
    """A change beyond the reach changes nothing; a change at its end does."""
    torch.manual_seed(1)
    picture = torch.randn(1, 1, 32, 500)
    place, reduction = 8, model.audio.stride
    last = place * reduction + lookahead_columns(model.audio)
    before = model.audio(picture).named_maps["conv4_2"][..., place]
    for column, changes in ((last + 1, False), (last, True)):
        other = picture.clone()
        other[..., column:] += 100
        assert (
            bool((model.audio(other).named_maps["conv4_2"][..., place] != before).any()) == changes
        )


def test_the_number_of_positions_is_that_of_the_tower(model):
    for columns in (98, 199, 200, 207):
        assert (
            model.audio.map_columns(columns)
            == model.audio(torch.zeros(1, 1, 32, columns)).map.shape[3]
        )


@torch.inference_mode()
@pytest.mark.parametrize("layer", ["pool4", "conv4_2"])
def test_a_window_is_pooled_from_its_own_positions(layer):
    """Over the long spectrogram at once, by the plain tower: the windows are its places, 24 at a
    time.
    """
    model, wave = network(), noise(4)
    found = embed(wave, model, sample_rate_hz=RATE_HZ, hop_seconds=0.1, dense=True, layer=layer)
    tower = model.listen(torch.from_numpy(np.pad(wave, (0, RATE_HZ)))[None])
    starts = np.round(found.start_seconds * RATE_HZ).astype(int)
    assert (starts % PAPER_GRID_SAMPLES == 0).all()
    for row, place in zip(found.vectors, starts // PAPER_GRID_SAMPLES, strict=True):
        inside = (tower.named_maps["conv4_2"] if layer == "conv4_2" else tower.map)[
            0, :, :, place : place + 24
        ]
        own = (
            inside.reshape(16, 4, 8, 3, 8).amax((2, 4))
            if layer == "conv4_2"
            else inside.amax((1, 2))
        )
        assert np.allclose(row, own.flatten().numpy(), atol=1e-4 * float(own.abs().max()))


def test_starts_are_the_positions_nearest_to_the_exact_starts(model):
    grid = WindowGrid.of(0.1)
    sound = DenseAudio(encoder_of(model), EmbedOptions(hop_seconds=0.1), "noise")
    assert sound.step_samples <= grid.hop_samples
    for number in range(200):
        assert abs(sound.start(number) - number * grid.hop_samples) <= sound.step_samples / 2
        assert sound.start(number) % sound.step_samples == 0


def test_dense_windows_are_close_to_separate_windows(model):
    wave = noise(3.3)
    for center in (False, True):
        plain = embed(wave, model, sample_rate_hz=RATE_HZ, hop_seconds=0.16, center=center)
        shared = embed(
            wave, model, sample_rate_hz=RATE_HZ, hop_seconds=0.16, center=center, dense=True
        )
        assert len(plain) == len(shared)
        assert np.abs(plain.start_seconds - shared.start_seconds).max() <= 0.08
        assert cosines(plain, shared).mean() > 0.9


@torch.inference_mode()
def test_dense_windows_differ_from_separate_windows_only_near_edges():
    """Inside, where the zeros beside a window do not reach, its places are the same ones."""
    model, wave = network(), noise(4)
    tower = model.listen(torch.from_numpy(wave)[None]).map[0]
    place = 30
    alone = model.listen(torch.from_numpy(wave[place * PAPER_GRID_SAMPLES :][:RATE_HZ])[None]).map[
        0
    ]
    within = tower[..., place : place + 24]
    far = -(-lookahead_columns(model.audio) // 8) - 1
    assert far == 4
    tolerance = 1e-4 * float(alone.abs().max())
    assert torch.allclose(alone[..., far:-far], within[..., far:-far], atol=tolerance)
    assert not torch.allclose(alone[..., far - 1], within[..., far - 1], atol=tolerance)


def test_the_length_of_chunks_changes_vectors_only_by_rounding(model):
    waveform = noise(4)
    options = EmbedOptions(hop_seconds=0.2, dense=True)
    short, long = (
        DenseAudio(encoder_of(model), options, "noise", chunk_seconds=chunk_seconds)
        for chunk_seconds in (1, 1.7)
    )
    short_vectors = concatenate(short.embed([waveform], is_last=True)).vectors
    long_vectors = concatenate(long.embed([waveform], is_last=True)).vectors
    assert np.allclose(short_vectors, long_vectors, atol=1e-5 * np.abs(short_vectors).max())


def test_aligned_vectors_and_bfloat16_can_be_dense():
    model, wave = network(fusion="distance"), noise(2)
    plain = embed(wave, model, sample_rate_hz=RATE_HZ, layer="aligned", hop_seconds=0.2)
    for precision in ("float32", "bfloat16"):
        found = embed(
            wave,
            model,
            sample_rate_hz=RATE_HZ,
            layer="aligned",
            hop_seconds=0.2,
            dense=True,
            precision=precision,
        )
        assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
        assert cosines(plain, found).mean() > 0.9


def test_errors_of_dense_embedding():
    model = network()
    with pytest.raises(ConfigError, match=r"a hop of at least 0\.005 s; choose a longer hop, or"):
        embed(noise(1), model, sample_rate_hz=RATE_HZ, hop_seconds=0.004, dense=True)

    class Relative(LogSpectrogram):
        """Relative to the loudest value of its second, as in OpenL3."""

        def forward(self, waveforms):
            image = super().forward(waveforms)
            return image - image.amax((2, 3), keepdim=True)

    model.front_end = Relative("paper")
    with pytest.raises(ConfigError, match="this network scales each second by its loudest value"):
        check_dense(encoder_of(model))
