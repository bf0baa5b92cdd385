"""The HEAR API (Holistic Evaluation of Audio Representations, 2021).

The HEAR evaluation and many other programs call these three functions:
`hear-validator looklisten.interop.hear --model RUN`. Names, arguments and milliseconds are HEAR's.
"""

import os
from collections.abc import Callable

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional

from looklisten.errors import ConfigError
from looklisten.inference.encoder import Encoder, choose_layer, encoder_of
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.model.networks import load

TIMESTAMP_HOP_SECONDS = 0.05
"""HEAR's tasks of events allow 50 ms of error."""
SCENE_HOP_SECONDS = 0.25
BATCH_WINDOWS = 32
MODEL_VARIABLE = "LOOKLISTEN_HEAR_MODEL"
"""Environment variable that names a network if `load_model` gets no path."""


class HearModel(nn.Module):
    """A network with an audio side, with the three attributes that HEAR reads."""

    def __init__(self, network: nn.Module | Encoder, layer: str = "") -> None:
        super().__init__()
        self.network = network  # an attribute, so that `to(device)` moves a network of PyTorch
        if "audio" not in self.encoder.layers:
            raise ConfigError(
                "this network embeds images only, and HEAR needs sound; "
                "give a network with an audio side"
            )
        self.layer = choose_layer(self.encoder, "audio", layer or None)
        silence = torch.zeros(1, WINDOW_SAMPLES, device=self.encoder.device)
        features = self.encode(silence).shape[1]
        self.sample_rate = SAMPLE_RATE_HZ
        self.scene_embedding_size = features
        self.timestamp_embedding_size = features

    @property
    def encoder(self) -> Encoder:
        return encoder_of(self.network)  # type: ignore[arg-type]

    @torch.no_grad()
    def encode(
        self, windows: Float[Tensor, "windows samples"]
    ) -> Float[Tensor, "windows features"]:
        """Vectors of windows of one second."""
        return self.encoder.encode("audio", windows, self.layer)


def load_model(model_file_path: str = "", layer: str = "") -> HearModel:
    """The network that `model_file_path` names, on the CPU; names are those of `looklisten.open`.

    Without a path the environment variable LOOKLISTEN_HEAR_MODEL names it. `layer` is a layer of
    the network, by default pool4; with `heareval`: `--model-options '{"layer": "conv4_2"}'`. Raises
    ConfigError if no network is named.
    """
    name = model_file_path or os.environ.get(MODEL_VARIABLE, "")
    if not name:
        raise ConfigError(
            "looklisten has no weights of its own to load: give --model RUN, "
            f"or set {MODEL_VARIABLE} to the folder of a run"
        )
    return HearModel(load(name), layer)


def get_timestamp_embeddings(
    audio: Num[Tensor, "..."], model: HearModel
) -> tuple[Float[Tensor, "sounds timestamps features"], Float[Tensor, "sounds timestamps"]]:
    """Vectors of the windows around every 50 ms from 0 to the end, and those times in milliseconds.

    `audio`: floats `[sounds, samples]` in -1..1 at 48 kHz, on the model's device. Beyond both ends
    of a sound there is silence. Raises ConfigError for other tensors.
    """
    _check_audio(audio)
    centers = timestamp_samples(audio.shape[1])
    half_window = WINDOW_SAMPLES // 2
    padded = functional.pad(audio, (half_window, half_window))
    vectors = _embed_windows(padded, centers.tolist(), model.encode)
    milliseconds = (centers / SAMPLE_RATE_HZ * 1000).to(audio.device)
    return vectors, milliseconds.expand(len(audio), -1).clone()


def timestamp_samples(samples: int) -> Num[Tensor, " timestamps"]:
    """The sample at every 50 ms of a sound with so many samples."""
    # Counted in whole samples, so that times do not drift over hours.
    return torch.arange(0, samples + 1, round(TIMESTAMP_HOP_SECONDS * SAMPLE_RATE_HZ))


def get_scene_embeddings(
    audio: Num[Tensor, "..."], model: HearModel
) -> Float[Tensor, "sounds features"]:
    """The mean vector of windows that lie evenly from the start to the end, at most 250 ms apart.

    `audio` is as for `get_timestamp_embeddings`. No window reaches beyond the sound. A sound that
    is shorter than a second is put into the middle of a second of silence.
    """
    _check_audio(audio)
    missing = max(WINDOW_SAMPLES - audio.shape[1], 0)
    audio = functional.pad(audio, (missing // 2, missing - missing // 2))
    last_start = audio.shape[1] - WINDOW_SAMPLES
    hop = round(SCENE_HOP_SECONDS * SAMPLE_RATE_HZ)
    hops = max(-(-last_start // hop), 1)  # rounded up, so that no hop is longer than 250 ms
    starts = [last_start * number // hops for number in range(hops + 1)] if last_start else [0]
    return _embed_windows(audio, starts, model.encode).mean(1)


def _embed_windows(
    audio: Float[Tensor, "sounds samples"],
    starts: list[int],
    encode: Callable[[Tensor], Tensor],
) -> Float[Tensor, "sounds windows features"]:
    """The vectors of the windows of one second that begin at the samples `starts`."""
    # A batch goes over the border of two sounds, so that many short sounds fill it too.
    addresses = [(sound, start) for sound in range(len(audio)) for start in starts]
    batches = []
    for first in range(0, len(addresses), BATCH_WINDOWS):
        windows = [
            audio[sound, start : start + WINDOW_SAMPLES]
            for sound, start in addresses[first : first + BATCH_WINDOWS]
        ]
        batches.append(encode(torch.stack(windows)))
    return torch.cat(batches).reshape(len(audio), len(starts), -1)


def _check_audio(audio: Tensor) -> None:
    if audio.ndim != 2 or not audio.numel() or not audio.is_floating_point():
        raise ConfigError(
            "HEAR's audio is a float tensor [n_sounds, n_samples] that is not empty, "
            f"and this is {audio.dtype} {[*audio.shape]}"
        )
    if not torch.isfinite(audio).all():
        raise ConfigError(
            "the audio holds values that are no numbers (NaN or infinity); "
            "repair or leave out that sound"
        )
