"""Sound as OpenL3 takes it -> windows of a second -> vectors. Knows arrays and networks; no file."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, SupportsFloat, cast

import numpy as np
import torch
from numpy.typing import NDArray

from looklisten.interop.openl3.errors import OpenL3Error, OpenL3Warning
from looklisten.interop.openl3.models import load_audio_embedding_model
from looklisten.interop.openl3.networks import OpenL3Net
from looklisten.interop.openl3.resampling import resampled
from looklisten.interop.openl3.variants import variant
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.spectrogram import WINDOW_SAMPLES

MAX_CHANNELS = 64
"""More columns than this are time: the array lies on its side."""

Samples = NDArray[np.float32]


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
    """Vectors `[windows, size]`, float32, and their times in seconds, of sound `[samples]` or
    `[samples, channels]`.

    A time is the middle of its window with `center`, else its beginning. Lists give lists. Warns
    (OpenL3Warning) of silence and of sound shorter than a second; raises OpenL3Error for what is no
    sound, and for words that OpenL3 has not.
    """
    several = isinstance(audio, list)
    sounds = cast(list[NDArray[Any]], audio if several else [audio])
    rates = list(sr) if isinstance(sr, Sequence) else [sr] * len(sounds)
    if len(sounds) != len(rates):
        raise OpenL3Error(
            f"{len(sounds)} sounds came with {len(rates)} sample rates; give one for each, or one for all"
        )
    net = audio_model(model, input_repr, content_type, embedding_size, frontend)
    heard = [mono_at_48khz(sound, rate) for sound, rate in zip(sounds, rates, strict=True)]
    counts: list[int] = []
    rows = chain.from_iterable(_counted(windows([one], hop_size, center), counts) for one in heard)
    vectors = np.concatenate(list(embedded(net, rows, batch_size, embedding_size)))
    vectors_of_each = np.split(vectors, np.cumsum(counts)[:-1])
    times_of_each = [np.arange(count) * hop_size for count in counts]
    return (vectors_of_each, times_of_each) if several else (vectors_of_each[0], times_of_each[0])


def _counted(rows: Iterator[Samples], counts: list[int]) -> Iterator[Samples]:
    counts.append(0)
    for row in rows:
        counts[-1] += 1
        yield row


def audio_model(
    model: OpenL3Net | None,
    input_repr: str | None,
    content_type: str,
    embedding_size: int,
    frontend: str,
) -> OpenL3Net:
    """`model`, or the one that the words name; raises OpenL3Error when it is of another kind."""
    if model is None:
        return load_audio_embedding_model(
            input_repr or "mel256", content_type, embedding_size, frontend
        )
    if not isinstance(model, OpenL3Net) or model.variant.side != "audio":
        raise OpenL3Error(
            f"the model must be one of load_audio_embedding_model or looklisten.load, not {_kind(model)}"
        )
    if frontend != model.frontend:
        raise OpenL3Error(
            f'the model was loaded with frontend="{model.frontend}", and frontend="{frontend}" was asked for'
        )
    return model


def _kind(model: object) -> str:
    return f"openl3:{model.variant.name}" if isinstance(model, OpenL3Net) else type(model).__name__


def preprocess_audio(
    audio: NDArray[Any],
    sr: SupportsFloat,
    hop_size: float = 0.1,
    input_repr: str | None = None,
    center: bool = True,
    **kw: Any,
) -> NDArray[np.float32]:
    """What `model.predict` takes: windows `[n, 1, 48000]`, or with `input_repr` spectrograms `[n,
    bands, frames, 1]` as librosa's.

    Raises OpenL3Error; also for settings of the spectrogram (`kw`), which are those that the
    weights were trained with.
    """
    if kw:
        raise OpenL3Error(
            f"preprocess_audio has no setting {', '.join(kw)}: spectrograms are those that the weights were trained with"
        )
    rows = windows([mono_at_48khz(audio, sr)], hop_size, center)
    if input_repr is None:
        return np.stack(list(rows))[:, None]
    front_end = OpenL3Net(variant("audio", input_repr, None), "librosa").front_end
    images = [front_end(torch.from_numpy(row)[None])[0, 0].numpy() for row in rows]
    return np.stack(images)[..., None]


def mono_at_48khz(audio: NDArray[Any], sr: SupportsFloat) -> Samples:
    """The mean of the channels, floats in -1..1, resampled; warns and raises as
    `get_audio_embedding`.
    """
    samples = _mono(audio)
    if not 0.5 < float(sr) < np.inf:
        raise OpenL3Error(f"the sample rate {sr!r} is none; give samples a second, such as 44100")
    if not np.isfinite(samples).all():
        raise OpenL3Error(
            f"the audio holds NaN or infinity, first at sample {int(np.argmin(np.isfinite(samples)))}; mend or cut it"
        )
    if not samples.any():
        warnings.warn(
            "the audio is all zeros; its vectors say nothing", OpenL3Warning, stacklevel=3
        )
    samples = resampled(samples, round(float(sr)))
    if len(samples) < WINDOW_SAMPLES:
        warnings.warn(
            "the audio is shorter than a second; silence is added at its end",
            OpenL3Warning,
            stacklevel=3,
        )
    return samples


def _mono(audio: NDArray[Any]) -> Samples:
    if not isinstance(audio, np.ndarray) or audio.dtype.kind not in "iuf":
        what = (
            f"an array of {audio.dtype}" if isinstance(audio, np.ndarray) else type(audio).__name__
        )
        raise OpenL3Error(f"audio must be a numpy array of numbers, or a list of such, not {what}")
    if not audio.size:
        raise OpenL3Error("the audio is empty; give at least one sample")
    if audio.ndim > 2 or (audio.ndim == 2 and audio.shape[1] > MAX_CHANNELS):
        raise OpenL3Error(
            f"audio must be [samples] or [samples, channels]; this has the shape {audio.shape}; transpose it?"
        )
    mono = audio.mean(axis=1, dtype=np.float64) if audio.ndim == 2 else audio.astype(np.float64)
    if audio.dtype.kind in "iu":
        half = 2.0 ** (8 * audio.dtype.itemsize - 1)
        mono = (mono - (half if audio.dtype.kind == "u" else 0)) / half
    return mono.astype(np.float32)


def windows(chunks: Iterable[Samples], hop_seconds: float, center: bool) -> Iterator[Samples]:
    """Windows of a second every `hop_seconds` of sound that comes in pieces, until one reaches its
    end; zeros fill the last.

    With `center` half a second of zeros goes before, so that the first window's middle is the
    beginning. The beginning of window i is i times the hop, rounded once to a sample. Holds two
    seconds and one piece at a time.
    """
    if not 1 <= hop_seconds * SAMPLE_RATE_HZ < np.inf:
        raise OpenL3Error(f"the hop size {hop_seconds!r} is none; give seconds, such as 0.1")
    held, held_from, number = np.zeros(WINDOW_SAMPLES // 2 if center else 0, np.float32), 0, 0
    reached = 0
    for chunk in chunks:
        held = np.concatenate([held, chunk])
        while (
            start := round(number * hop_seconds * SAMPLE_RATE_HZ)
        ) + WINDOW_SAMPLES <= held_from + len(held):
            yield held[start - held_from :][:WINDOW_SAMPLES]
            number, reached = number + 1, start + WINDOW_SAMPLES
        drop = min(max(start - held_from, 0), len(held))
        held, held_from = held[drop:], held_from + drop
    while reached < held_from + len(held) or not number:
        start = round(number * hop_seconds * SAMPLE_RATE_HZ)
        rest = held[max(start - held_from, 0) :]
        yield np.pad(rest, (0, WINDOW_SAMPLES - len(rest)))
        number, reached = number + 1, start + WINDOW_SAMPLES


def embedded(
    net: OpenL3Net, rows: Iterable[Samples], batch_size: int, embedding_size: int
) -> Iterator[NDArray[np.float32]]:
    """Vectors of windows or frames (`[features]` arrays of one shape), a batch at a time; raises
    OpenL3Error for sizes that are none.
    """
    layer = net.layer_for(embedding_size)
    if batch_size < 1:
        raise OpenL3Error(f"the batch size {batch_size!r} must be at least 1")
    rest = iter(rows)
    while batch := list(islice(rest, batch_size)):
        with (
            torch.inference_mode()
        ):  # entered for each batch, so that it does not leak into whoever takes them
            given = torch.from_numpy(np.stack(batch)).to(net.device)
            image = net.front_end(given) if net.variant.side == "audio" else given
            vectors: NDArray[np.float32] = net.vectors(image, layer).cpu().numpy()
        yield vectors
