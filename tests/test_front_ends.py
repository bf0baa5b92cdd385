"""OpenL3's front ends are the published formulas, computed here again in numpy, and networks can be
trained on them.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import small_config
from looklisten.media.front_ends import FRONT_ENDS
from looklisten.media.spectrogram import LogSpectrogram
from looklisten.model.checkpoint import save_checkpoint
from looklisten.model.l3net import L3Net
from looklisten.model.networks import load

RATE_HZ, HOP = 48_000, 242
OPENL3 = {
    "linear": (512, 0, (257, 197)),
    "mel128": (2048, 128, (128, 199)),
    "mel256": (2048, 256, (256, 199)),
}
"""FFT, mel bands and shape, as openl3/models.py has them (0.4.2)."""


def sound(seconds=1.0):
    rng = np.random.default_rng(7)
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    wave = 0.5 * np.sin(2 * np.pi * (300 * t + 4000 * t**2)) + 0.01 * rng.normal(size=len(t))
    wave[-9_000:] = 0  # so that the floor of the range is met
    return wave


def slaney(hz):
    return np.where(
        hz < 1000, hz * 3 / 200, 15 + np.log(np.maximum(hz, 1) / 1000) * 27 / np.log(6.4)
    )


def slaney_to_hz(mel):
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def mel_weights(bands, fft):
    """librosa.filters.mel(sr=48000, n_fft=fft, n_mels=bands), written from its documentation:
    Slaney's scale and norm.
    """
    edges = slaney_to_hz(np.linspace(slaney(np.array(0.0)), slaney(np.array(24_000.0)), bands + 2))
    bins = np.arange(fft // 2 + 1) * RATE_HZ / fft
    weights = np.zeros((len(bins), bands))
    for band in range(bands):
        low, peak, high = edges[band : band + 3]
        triangle = np.interp(bins, [low, peak, high], [0, 1, 0], left=0, right=0)
        weights[:, band] = triangle * 2 / (high - low)
    return weights


def by_hand(wave, name, padding):
    """In float64: periodic Hann window, magnitude, mel, 10 log10 with floor 1e-10, maximum
    subtracted, floor -80.
    """
    fft, bands, _ = OPENL3[name]
    if padding == "end":  # tf.signal.stft(pad_end=True): as many frames as hops
        wave = np.pad(wave, (0, fft))
        starts = range(0, RATE_HZ, HOP)
    else:
        wave = np.pad(wave, fft // 2) if padding == "center" else wave
        starts = range(0, len(wave) - fft + 1, HOP)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(fft) / fft)
    image = np.stack([np.abs(np.fft.rfft(wave[start : start + fft] * window)) for start in starts])
    if bands:
        image = image @ mel_weights(bands, fft)
    levels = 10 * np.log10(np.maximum(image, 1e-10))
    return np.maximum(levels - levels.max(), -80).T


@pytest.mark.parametrize(
    ("name", "padding"),
    [("linear", "none"), ("mel128", "end"), ("mel256", "end"), ("mel256", "center")],
)
def test_openl3s_spectrograms_by_hand(name, padding):
    wave = sound()
    image = LogSpectrogram(replace(FRONT_ENDS[name], padding=padding))(
        torch.from_numpy(wave).float()[None]
    )[0, 0].numpy()
    hand = by_hand(wave, name, padding)
    assert image.shape == hand.shape == OPENL3[name][2]
    assert np.abs(image - hand).max() < 0.05, "decibels; float32 near the floor of the range"
    assert np.abs(image - hand).mean() < 1e-3
    assert FRONT_ENDS[name].padding in (padding, "end")


def test_decibels_are_relative_to_each_row_of_a_batch():
    front_end = LogSpectrogram("mel128")
    wave = torch.from_numpy(sound()).float()
    both = front_end(torch.stack([wave, wave * 0.01]))
    assert torch.allclose(both[0], both[1], atol=1e-2)
    assert both.amax((1, 2, 3)).tolist() == [0, 0]
    assert both.min() == -80


def test_a_network_with_a_decibel_front_end_learns_its_norm_and_comes_back_from_a_checkpoint(
    tmp_path,
):
    config = small_config().changed("model", front_end="mel128")
    network = L3Net(config.model).train()
    waves = torch.from_numpy(np.stack([sound(), sound() ** 2])).float()
    network.listen(waves).vector.sum().backward()
    assert network.audio.input_norm.weight.grad.abs() > 0
    assert network.audio.input_norm.running_mean < 0, (
        "decibels below the loudest place are negative"
    )
    save_checkpoint(tmp_path, 1, config, network.state_dict(), {}, {})
    with torch.inference_mode():
        assert torch.equal(
            load(tmp_path).listen(waves).vector,
            network.eval().listen(waves).vector,
        )


def test_the_papers_front_end_has_no_norm_before_the_tower():
    assert not [name for name in L3Net(small_config().model).state_dict() if "input_norm" in name]
