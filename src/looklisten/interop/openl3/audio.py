"""Embeds arrays of sound as OpenL3 does: windows of one second, then vectors. Knows no file."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, SupportsFloat, cast

import numpy as np
import torch
from numpy.typing import NDArray

from looklisten.interop.openl3.errors import OpenL3Error, OpenL3Warning
from looklisten.interop.openl3.models import load_audio_embedding_model
from looklisten.interop.openl3.networks import OpenL3Net
from looklisten.interop.openl3.resampling import (
    OPENL3_RATE_HZ,
    OPENL3_WINDOW_SAMPLES,
    Waveform,
    resampled,
)
from looklisten.interop.openl3.variants import variant
from looklisten.media.waveform import MAX_CHANNELS


def get_audio_embedding(
    audio: NDArray[Any] | list[NDArray[Any]],
    sr: SupportsFloat | Sequence[SupportsFloat],
    model: OpenL3Net | None = None,
    input_repr: str | None = None,
    content_type: str = "music",
    embedding_size: int = 6144,
    center: bool = True,
    hop_size: float = 0.1,
    batch_size: int = 32,
    frontend: str = "kapre",
    verbose: bool | int = True,  # noqa: ARG001 (OpenL3's; nothing is printed here)
) -> tuple[Any, Any]:
    """Vectors `[windows, size]`, float32, and their times in seconds.

    `audio` is `[samples]` or `[samples, channels]`; lists give lists. A time is the middle of its
    window with `center`, else its start. Warns (OpenL3Warning) of silence and of sound shorter than
    a second. Raises OpenL3Error for other arrays and for unknown parameters.
    """
    is_list = isinstance(audio, list)
    sounds = cast(list[NDArray[Any]], audio if is_list else [audio])
    rates = list(sr) if isinstance(sr, Sequence) else [sr] * len(sounds)
    if len(sounds) != len(rates):
        raise OpenL3Error(
            f"{len(sounds)} sounds came with {len(rates)} sample rates; "
            "give one for each, or one for all"
        )
    net = audio_model(model, input_repr, content_type, embedding_size, frontend)
    waveforms = [mono_at_48khz(sound, rate) for sound, rate in zip(sounds, rates, strict=True)]
    counts: list[int] = []

    def rows() -> Iterator[Waveform]:
        # One stream of windows, so that a batch may hold windows of several short sounds.
        for waveform in waveforms:
            counts.append(0)
            for window in cut_windows([waveform], hop_size, center):
                counts[-1] += 1
                yield window

    vectors = np.concatenate(list(embed_rows(net, rows(), batch_size, embedding_size)))
    vectors_of_each = np.split(vectors, np.cumsum(counts)[:-1])
    times_of_each = [np.arange(count) * hop_size for count in counts]
    return (vectors_of_each, times_of_each) if is_list else (vectors_of_each[0], times_of_each[0])


def audio_model(
    model: OpenL3Net | None,
    input_repr: str | None,
    content_type: str,
    embedding_size: int,
    frontend: str,
) -> OpenL3Net:
    """`model`, or the published network that the other parameters mean.

    Raises OpenL3Error for a model of another kind.
    """
    if model is None:
        return load_audio_embedding_model(
            input_repr or "mel256", content_type, embedding_size, frontend
        )
    if not isinstance(model, OpenL3Net) or model.variant.side != "audio":
        is_openl3 = isinstance(model, OpenL3Net)
        name = f"openl3:{model.variant.name}" if is_openl3 else type(model).__name__
        raise OpenL3Error(
            f"the model must be one of load_audio_embedding_model or looklisten.load, not {name}"
        )
    if frontend != model.frontend:
        raise OpenL3Error(
            f'the model was loaded with frontend="{model.frontend}", '
            f'and not with frontend="{frontend}"'
        )
    return model


def preprocess_audio(
    audio: NDArray[Any],
    sr: SupportsFloat,
    hop_size: float = 0.1,
    input_repr: str | None = None,
    center: bool = True,
    **kw: Any,
) -> NDArray[np.float32]:
    """The input of `model.predict`: windows `[n, 1, 48000]`.

    With `input_repr`: spectrograms `[n, bands, frames, 1]` as librosa computes them. Raises
    OpenL3Error, also for settings of the spectrogram (`kw`): only those of the training are known.
    """
    if kw:
        raise OpenL3Error(
            f"preprocess_audio has no setting {', '.join(kw)}: "
            "spectrograms are those that the weights were trained with"
        )
    windows = list(cut_windows([mono_at_48khz(audio, sr)], hop_size, center))
    if input_repr is None:
        return np.stack(windows)[:, None]
    # OpenL3 computes spectrograms outside of the network only for its front end librosa.
    front_end = OpenL3Net(variant("audio", input_repr, None), "librosa").front_end
    spectrograms = []
    for window in windows:
        spectrogram = front_end(torch.from_numpy(window)[None])[0, 0]
        spectrograms.append(spectrogram.numpy())
    return np.stack(spectrograms)[..., None]


def mono_at_48khz(audio: NDArray[Any], sr: SupportsFloat) -> Waveform:
    """The mean of the channels, floats in -1..1, resampled to 48 kHz.

    Warns and raises as `get_audio_embedding`.
    """
    samples = _mono(audio)
    if not 0.5 < float(sr) < np.inf:
        raise OpenL3Error(f"{sr!r} is no sample rate; give samples per second, such as 44100")
    is_finite = np.isfinite(samples)
    if not is_finite.all():
        raise OpenL3Error(
            f"the audio holds NaN or infinity, first at sample {int(np.argmin(is_finite))}; "
            "repair or cut it"
        )
    if not samples.any():
        warnings.warn(
            "the audio is all zeros; its vectors mean nothing", OpenL3Warning, stacklevel=3
        )
    samples = resampled(samples, round(float(sr)))
    if len(samples) < OPENL3_WINDOW_SAMPLES:
        warnings.warn(
            "the audio is shorter than a second; silence is added at its end",
            OpenL3Warning,
            stacklevel=3,
        )
    return samples


def _mono(audio: NDArray[Any]) -> Waveform:
    if not isinstance(audio, np.ndarray) or audio.dtype.kind not in "iuf":
        is_array = isinstance(audio, np.ndarray)
        kind = f"an array of {audio.dtype}" if is_array else type(audio).__name__
        raise OpenL3Error(f"audio must be a numpy array of numbers, or a list of such, not {kind}")
    if not audio.size:
        raise OpenL3Error("the audio is empty; give at least one sample")
    # More columns than channels can be: the array has time along the columns.
    if audio.ndim > 2 or (audio.ndim == 2 and audio.shape[1] > MAX_CHANNELS):
        raise OpenL3Error(
            "audio must be [samples] or [samples, channels]; "
            f"this has the shape {audio.shape}; transpose it?"
        )
    mono = audio.mean(axis=1, dtype=np.float64) if audio.ndim == 2 else audio.astype(np.float64)
    # The full range of an integer type becomes -1..1; unsigned types have silence in the middle.
    if audio.dtype.kind in "iu":
        half_range = 2.0 ** (8 * audio.dtype.itemsize - 1)
        zero = half_range if audio.dtype.kind == "u" else 0
        mono = (mono - zero) / half_range
    return mono.astype(np.float32)


def cut_windows(chunks: Iterable[Waveform], hop_seconds: float, center: bool) -> Iterator[Waveform]:
    """Windows of one second every `hop_seconds`, until one reaches the end of the sound.

    `chunks` are consecutive parts of the sound. Zeros fill up the last window. With `center` half a
    second of zeros comes first, so that the first window has the start of the sound in its middle.
    Holds two seconds and one chunk at a time.
    """
    if not 1 <= hop_seconds * OPENL3_RATE_HZ < np.inf:
        raise OpenL3Error(f"{hop_seconds!r} is no hop size; give seconds, such as 0.1")

    def window_start(number: int) -> int:
        # Rounded from the exact time, so that long sounds do not drift.
        return round(number * hop_seconds * OPENL3_RATE_HZ)

    buffer = np.zeros(OPENL3_WINDOW_SAMPLES // 2 if center else 0, np.float32)
    buffer_start = 0
    number = 0
    covered = 0
    for chunk in chunks:
        buffer = np.concatenate([buffer, chunk])
        start = window_start(number)
        while start + OPENL3_WINDOW_SAMPLES <= buffer_start + len(buffer):
            yield buffer[start - buffer_start :][:OPENL3_WINDOW_SAMPLES]
            covered = start + OPENL3_WINDOW_SAMPLES
            number += 1
            start = window_start(number)
        unused = min(max(start - buffer_start, 0), len(buffer))
        buffer = buffer[unused:]
        buffer_start += unused
    # `not number`: a sound that is shorter than a second has one window.
    while covered < buffer_start + len(buffer) or not number:
        start = window_start(number)
        remaining = buffer[max(start - buffer_start, 0) :]
        yield np.pad(remaining, (0, OPENL3_WINDOW_SAMPLES - len(remaining)))
        covered = start + OPENL3_WINDOW_SAMPLES
        number += 1


def embed_rows(
    net: OpenL3Net, rows: Iterable[NDArray[np.float32]], batch_size: int, embedding_size: int
) -> Iterator[NDArray[np.float32]]:
    """Vectors `[batch, features]` of windows or frames of one shape, a batch at a time.

    Raises OpenL3Error for an unknown embedding size and for a batch size below 1.
    """
    layer = net.layer_for(embedding_size)
    if batch_size < 1:
        raise OpenL3Error(f"the batch size {batch_size!r} must be at least 1")
    remaining_rows = iter(rows)
    while batch := list(islice(remaining_rows, batch_size)):
        # Entered for each batch: between two `yield`s the mode would hold for the caller too.
        with torch.inference_mode():
            tensor = torch.from_numpy(np.stack(batch)).to(net.device)
            image = net.front_end(tensor) if net.variant.side == "audio" else tensor
            vectors: NDArray[np.float32] = net.vectors(image, layer).cpu().numpy()
        yield vectors
