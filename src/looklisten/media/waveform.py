"""Sound in arrays and files -> mono float32 at 48 kHz, a piece at a time. Knows no network."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from looklisten.errors import SourceError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.arrays import plain_array
from looklisten.media.decode import decode as decoding
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import AudioChunk, DecodeReport, Frame
from looklisten.media.downmix import AMBIGUOUS_CHANNELS, PhaseGuard
from looklisten.media.isolation import readers

PIECE_SECONDS = 10.0
"""An array is resampled by so much at a time."""

MIX_BLOCK_SECONDS = 1.0
"""Of arrays with several channels, so much at a time is mixed."""

MAX_CHANNELS = 64
LOUDEST = 100.0
"""Sound beyond this is not in -1..1 but in integers that have become floats."""

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1000.0, 10_000_000.0
"""Rates outside are given in another unit, or by mistake."""
HIGHEST_KHZ = 400.0

FULL_SCALE = {"int16": 2.0**15, "int32": 2.0**31, "uint8": 2.0**7}

if TYPE_CHECKING:
    Waveform = NDArray[Any] | Tensor | Sequence[float]
    SampleRate = float | np.generic | Tensor
else:
    # Whatever a user has is looked at by `plain_array` and `checked_rate`, which say more than a
    # check of types could.
    Waveform = SampleRate = Any


def checked_media(
    events: Iterable[Frame | AudioChunk],
) -> Iterator[Frame | Float32[np.ndarray, " samples"]]:
    """`decode.on_clock`, with a check of every piece. Raises SourceError, one sentence, for what
    cannot be sound.
    """
    done = 0
    for piece in decoding.continuous_audio(events):
        if not isinstance(piece, Frame):
            check_samples(piece, done)
            done += len(piece)
        yield piece


def read_waveform_chunks(
    path: str | Path, report: DecodeReport
) -> Iterator[Float32[np.ndarray, " samples"]]:
    """The sound of a file from the container's start on, in pieces of about a second."""
    done = 0
    for piece in readers.read_audio_chunks(path, DecodeOptions(), report):
        yield check_samples(piece, done)
        done += len(piece)


def samples_first(waveform: Waveform, fixed: bool = False) -> NDArray[Any]:
    """An array or tensor as `[samples]` or `[samples, channels]`, not copied. Raises SourceError,
    one sentence, for what cannot be sound.

    Given as `[samples]`, `[samples, channels]` or `[channels, samples]`: the longer axis is time;
    when `fixed`, the first.
    """
    array = plain_array(waveform)
    if array.ndim not in (1, 2):
        raise SourceError(
            f"sound is [samples] or [samples, channels], and this array is {list(array.shape)}"
        )
    if array.ndim == 2 and not fixed and array.shape[0] < array.shape[1]:
        array = array.T
    if array.ndim == 2 and not 0 < array.shape[1] <= MAX_CHANNELS:
        raise SourceError(
            f"an array of {list(array.shape)} cannot be [samples, channels] with 1 to {MAX_CHANNELS} channels"
        )
    if array.dtype.name not in FULL_SCALE and array.dtype.kind != "f":
        raise SourceError(
            f"sound of type {array.dtype.name} has no known full scale; give floats in -1..1, int16, int32 or uint8"
        )
    return array


def scaled(array: NDArray[Any]) -> NDArray[np.float32]:
    """What `oriented` gives as floats of the same shape: integers over their full scale."""
    scale = FULL_SCALE.get(array.dtype.name, 1.0)
    wave: NDArray[np.float32] = array.astype(np.float32, copy=False)
    if scale != 1:
        wave = (wave - np.float32(128 if array.dtype == np.uint8 else 0)) / np.float32(scale)
    return wave


def to_mono(wave: NDArray[np.float32]) -> Float32[np.ndarray, " samples"]:
    """The mean of the channels of `[samples]` or `[samples, channels]`."""
    mono: NDArray[np.float32] = wave.mean(axis=1, dtype=np.float32) if wave.ndim == 2 else wave
    return mono


class ArrayMixer:
    """Arrays of sound -> mono, piece after piece: the mean of the channels, or one of them where
    they cancel (`PhaseGuard`).

    It decides for blocks of MIX_BLOCK_SECONDS, counted from the first sample. So the result does
    not depend on how the sound is cut, and of several channels at most one block waits for more.
    """

    def __init__(self, sample_rate_hz: float) -> None:
        self._sample_rate_hz = sample_rate_hz
        self._block_samples = max(round(MIX_BLOCK_SECONDS * sample_rate_hz), 1)
        self._waiting: list[NDArray[np.float32]] = []
        self._waiting_samples = 0
        self._guard: PhaseGuard | None = None
        self._channels = 1
        self._mixed_samples = 0

    def push(self, wave: NDArray[np.float32]) -> Iterator[Float32[np.ndarray, " samples"]]:
        """What is decided of floats `[samples]` or `[samples, channels]`. Raises SourceError for
        what cannot be sound.
        """
        channels = wave.shape[1] if wave.ndim == 2 else 1
        if channels != self._channels:
            yield from self.finish()
            self._channels, self._guard = channels, None
        if channels == 1:
            yield self._checked(to_mono(wave))
            return
        check_samples(
            to_mono(wave), self._mixed_samples + self._waiting_samples, self._sample_rate_hz
        )
        while len(wave):
            missing = self._block_samples - self._waiting_samples
            self._waiting.append(wave[:missing])
            self._waiting_samples += len(wave[:missing])
            wave = wave[missing:]
            if self._waiting_samples == self._block_samples:
                yield from self.finish()

    def finish(self) -> Iterator[Float32[np.ndarray, " samples"]]:
        """What waits."""
        if not self._waiting:
            return
        block = np.concatenate(self._waiting)
        self._waiting, self._waiting_samples = [], 0
        if self._guard is None:
            weights = np.full(self._channels, 1 / self._channels, np.float32)
            prefers_first = self._channels == AMBIGUOUS_CHANNELS
            self._guard = PhaseGuard(weights, self._sample_rate_hz, prefers_first)
        channels = list(np.ascontiguousarray(block.T))
        yield self._checked(self._guard.guard(to_mono(block), channels))

    def _checked(self, mono: NDArray[np.float32]) -> NDArray[np.float32]:
        check_samples(mono, self._mixed_samples, self._sample_rate_hz)
        self._mixed_samples += len(mono)
        return mono


def check_samples(
    wave: Float32[np.ndarray, " samples"], before: int, sample_rate_hz: float = SAMPLE_RATE_HZ
) -> Float32[np.ndarray, " samples"]:
    """`wave`, when all of it can be sound; `before` so many samples have gone before it. Raises
    SourceError, one sentence, else.
    """
    peak = float(np.abs(wave).max(initial=0.0))
    if np.isfinite(peak) and peak <= LOUDEST:
        return wave
    at_seconds = (before + int(np.argmax(~(np.abs(wave) <= LOUDEST)))) / sample_rate_hz
    if np.isfinite(peak):
        raise SourceError(
            f"the sound reaches {peak:g} at {at_seconds:.3f} s, where floats lie in -1..1; divide it, or give it as int16"
        )
    raise SourceError(
        f"the sound holds a value that is no number (NaN or infinite) at {at_seconds:.3f} s; repair it, or put 0 in its place"
    )


def check_rate(sample_rate_hz: Any) -> float:
    """A sample rate in Hz, from a number of any library. Raises SourceError, one sentence, for what
    cannot be one.
    """
    is_array = (
        hasattr(sample_rate_hz, "item") and math.prod(getattr(sample_rate_hz, "shape", (0,))) == 1
    )
    number = sample_rate_hz.item() if is_array else sample_rate_hz
    if (
        isinstance(number, (str, bytes, bool))
        or hasattr(number, "shape")
        or not hasattr(number, "__float__")
    ):
        name = type(sample_rate_hz).__name__
        raise SourceError(
            f"a sample rate is a number of Hz such as 44100, and {sample_rate_hz!r} is of type {name}"
        )
    rate_hz = float(number)
    if not 0 < rate_hz < np.inf:
        raise SourceError(
            f"a sample rate of {rate_hz:g} Hz cannot be; give the rate of the array, such as 44100"
        )
    if rate_hz < LOWEST_RATE_HZ:
        is_khz = 1 <= rate_hz <= HIGHEST_KHZ
        looks = (
            f"{rate_hz:g} looks like kHz; give {rate_hz * 1000:.10g}"
            if is_khz
            else "give samples a second, such as 44100"
        )
        raise SourceError(f"a sample rate of {rate_hz:g} Hz is too low for sound; {looks}")
    if rate_hz > HIGHEST_RATE_HZ:
        raise SourceError(
            f"a sample rate of {rate_hz:.10g} Hz is too high for sound; give samples a second, such as 44100"
        )
    return rate_hz


class ArrayResampler:
    """Sound of one rate -> 48 kHz, in the pieces that it comes in; the result does not depend on
    how it is cut.

    soxr HQ, as decoding has it: part of what a vector is.
    """

    def __init__(self, sample_rate_hz: SampleRate) -> None:
        rate_hz = check_rate(sample_rate_hz)
        self._rate_hz = rate_hz
        self._mixer = ArrayMixer(rate_hz)
        self._stream = (
            soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, "float32", "HQ")
            if rate_hz != SAMPLE_RATE_HZ
            else None
        )

    def push(self, array: NDArray[Any]) -> Iterator[Float32[np.ndarray, " samples"]]:
        """What can be said so far of sound as `oriented` gives it. Raises SourceError for what
        cannot be sound.

        Of several channels up to MIX_BLOCK_SECONDS wait, until it is known whether they cancel.
        """
        step = max(round(PIECE_SECONDS * self._rate_hz), 1)
        for start in range(0, len(array), step):
            for mono in self._mixer.push(scaled(array[start : start + step])):
                yield self._stream.resample_chunk(mono) if self._stream else mono

    def finish(self) -> Iterator[Float32[np.ndarray, " samples"]]:
        """The rest."""
        for mono in self._mixer.finish():
            yield self._stream.resample_chunk(mono) if self._stream else mono
        if self._stream:
            yield self._stream.resample_chunk(np.zeros(0, np.float32), last=True)


def resample_array(
    waveform: Waveform, sample_rate_hz: SampleRate
) -> Iterator[Float32[np.ndarray, " samples"]]:
    """A whole array at 48 kHz, in pieces."""
    resampler = ArrayResampler(sample_rate_hz)
    yield from resampler.push(samples_first(waveform))
    yield from resampler.finish()
