"""The HEAR API (Holistic Evaluation of Audio Representations, 2021): three functions that its
evaluation and many others call.

`hear-validator looklisten.interop.hear --model RUN`; the names, arguments and milliseconds are
HEAR's.
"""

import os
from collections.abc import Iterator

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional

from looklisten.errors import ConfigError
from looklisten.inference.encoder import Encoder, encoder_of
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.model.networks import load

TIMESTAMP_HOP_SECONDS = 0.05
"""HEAR's tasks of events allow 50 ms of error."""
SCENE_HOP_SECONDS = 0.25
BATCH = 32
DEFAULT_MODEL = "LOOKLISTEN_HEAR_MODEL"


class HearModel(nn.Module):
    """A network that encodes sound, with the three numbers that HEAR asks for."""

    def __init__(self, network: nn.Module | Encoder, layer: str = "") -> None:
        super().__init__()
        self.network = network  # `to(device)` moves it if it is a module
        if "audio" not in self.encoder.layers:
            raise ConfigError(
                "this network encodes pictures alone, and HEAR is about sound; give one that has a side for sound"
            )
        self.layer = layer or self.encoder.layers["audio"][0]
        width = self.encode(torch.zeros(1, WINDOW_SAMPLES, device=self.encoder.device)).shape[1]
        self.sample_rate = SAMPLE_RATE_HZ
        self.scene_embedding_size = width
        self.timestamp_embedding_size = width

    @property
    def encoder(self) -> Encoder:
        return encoder_of(self.network)  # type: ignore[arg-type]

    @torch.no_grad()
    def encode(
        self, windows: Float[Tensor, "windows samples"]
    ) -> Float[Tensor, "windows features"]:
        """Vectors of windows of a second."""
        return self.encoder.encode("audio", windows, self.layer)


def load_model(model_file_path: str = "", layer: str = "") -> HearModel:
    """The network at `model_file_path`, on the CPU: whatever `looklisten.load` takes, so a run, a
    folder, a name on the Hub.

    Without a path the environment variable LOOKLISTEN_HEAR_MODEL names it. `layer` (with
    `heareval`: `--model-options '{"layer": "conv4_2"}'`) is one of the network's, by default pool4.
    """
    where = model_file_path or os.environ.get(DEFAULT_MODEL, "")
    if not where:
        raise ConfigError(
            f"looklisten has no weights of its own to load: give --model RUN, or set {DEFAULT_MODEL} to a run's folder"
        )
    return HearModel(load(where), layer)


def get_timestamp_embeddings(
    audio: Num[Tensor, "..."], model: HearModel
) -> tuple[Float[Tensor, "sounds timestamps features"], Float[Tensor, "sounds timestamps"]]:
    """Vectors of the seconds around every 50 ms, from 0 to the end, and those times in
    milliseconds; silence lies beyond both ends.

    `audio`: floats `[sounds, samples]` in -1..1 at 48 kHz, on the model's device; else ConfigError.
    """
    _check(audio)
    sounds, samples = audio.shape
    hop = round(TIMESTAMP_HOP_SECONDS * SAMPLE_RATE_HZ)
    half = WINDOW_SAMPLES // 2
    centers = torch.arange(0, samples + 1, hop)
    vectors = _embed(functional.pad(audio, (half, half)), centers.tolist(), model)
    milliseconds = (centers / SAMPLE_RATE_HZ * 1000).to(audio.device)
    return vectors, milliseconds.expand(sounds, -1).clone()


def get_scene_embeddings(
    audio: Num[Tensor, "..."], model: HearModel
) -> Float[Tensor, "sounds features"]:
    """The mean vector of seconds spread evenly from the first to the last, at most 250 ms apart.

    None of them reaches over an end of the sound; one shorter than a second is put into the middle
    of a second of silence.
    """
    _check(audio)
    lack = max(WINDOW_SAMPLES - audio.shape[1], 0)
    audio = functional.pad(audio, (lack // 2, lack - lack // 2))
    room = audio.shape[1] - WINDOW_SAMPLES
    steps = -(-room // round(SCENE_HOP_SECONDS * SAMPLE_RATE_HZ))
    starts = [room * step // steps for step in range(steps + 1)] if steps else [0]
    return _embed(audio, starts, model).mean(1)


def _embed(
    audio: Float[Tensor, "sounds samples"], starts: list[int], model: HearModel
) -> Float[Tensor, "sounds windows features"]:
    """The vectors of the seconds that begin at `starts`, a batch at a time."""

    def batches() -> Iterator[Tensor]:
        places = [(sound, start) for sound in range(len(audio)) for start in starts]
        for first in range(0, len(places), BATCH):
            yield torch.stack(
                [
                    audio[sound, start : start + WINDOW_SAMPLES]
                    for sound, start in places[first : first + BATCH]
                ]
            )

    vectors = torch.cat([model.encode(windows) for windows in batches()])
    return vectors.reshape(len(audio), len(starts), -1)


def _check(audio: Tensor) -> None:
    if audio.ndim != 2 or not audio.numel() or not audio.is_floating_point():
        raise ConfigError(
            f"HEAR's audio is a float tensor [n_sounds, n_samples] that is not empty, and this is {audio.dtype} {[*audio.shape]}"
        )
    if not torch.isfinite(audio).all():
        raise ConfigError(
            "the audio holds values that are no numbers (NaN or infinity); mend or leave out that sound"
        )
