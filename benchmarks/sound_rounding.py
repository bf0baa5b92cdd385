"""How much the features change when sound is not rounded to 16 bits, as it is in training.

    python benchmarks/sound_rounding.py [--config l3] [--seed 0]

One second of noise is made at 44.1, 22.05 and 16 kHz and resampled to 48 kHz. It is heard twice:
rounded to 16 bits, as `prepare` stores it, and as the floats of the resampler. The features are
`pool4` of the untrained audio tower. Printed is the distance between the two, divided by the length
of the rounded one. "Floor" is the mean of the log-spectrogram above the source's Nyquist frequency,
where the source has no sound, only rounding errors.
"""

import argparse

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looklisten.config import Config
from looklisten.evaluation.untrained import untrained_network
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.spectrogram import WINDOW_SAMPLES, round_to_int16
from looklisten.media.waveform import ArrayResampler
from looklisten.model.l3net import L3Net

RATES_HZ = (44_100, 22_050, 16_000)
LOUDNESS = 0.1
"""RMS of the noise, relative to full scale."""


def noise_at(rate_hz: int, rng: np.random.Generator) -> Float[Tensor, "1 samples"]:
    """A second of noise, made at `rate_hz` and resampled to 48 kHz."""
    # Two seconds are made and the first is used, so the end of the resampled sound is left out.
    samples = rng.normal(0, LOUDNESS, 2 * rate_hz).astype(np.float32)
    resampled = np.concatenate(list(ArrayResampler(rate_hz).push(samples, is_last=True)))
    return torch.from_numpy(resampled[:WINDOW_SAMPLES])[None]


@torch.inference_mode()
def features_and_floor(
    network: L3Net, waveform: Float[Tensor, "1 samples"], rate_hz: int
) -> tuple[Float[Tensor, " features"], float]:
    """`pool4` of a second, and its floor: the mean above the source's Nyquist frequency."""
    spectrogram = network.front_end(waveform)
    bands = spectrogram.shape[2]
    # The bands are linear, from 0 to half of 48 kHz. The resampler's filter is not ideal, so some
    # bands above the Nyquist frequency, 2 % of all, are left out.
    first_empty = int(bands * rate_hz / SAMPLE_RATE_HZ) + bands // 50
    floor = float(spectrogram[0, 0, first_empty:].mean())
    return network.audio(spectrogram).vector[0], floor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="l3", help="a recipe with the paper's front end")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    network = untrained_network(Config.load(arguments.config).model, arguments.seed).eval()
    rng = np.random.default_rng(arguments.seed)
    print("| source | distance of pool4 | floor, 16-bit numbers | floor, floats |")
    for rate_hz in RATES_HZ:
        waveform = noise_at(rate_hz, rng)
        rounded, rounded_floor = features_and_floor(network, round_to_int16(waveform), rate_hz)
        exact, exact_floor = features_and_floor(network, waveform, rate_hz)
        distance = float((exact - rounded).norm() / rounded.norm())
        print(f"| {rate_hz} Hz | {distance:.2f} | {rounded_floor:.2f} | {exact_floor:.2f} |")


if __name__ == "__main__":
    main()
