"""Sound in arrays and files -> mono float32 at 48 kHz, chunk by chunk. Knows no network."""

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
from looklisten.media.decode.decode import continuous_audio
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import AudioChunk, DecodeReport, Frame
from looklisten.media.downmix import AMBIGUOUS_CHANNELS, PhaseGuard
from looklisten.media.isolation.readers import read_audio_chunks

BLOCK_SECONDS = 1.0
"""So much of an array is mixed and resampled at a time."""

MAX_CHANNELS = 64

LOUDEST = 100.0
"""Sound beyond this is not in -1..1: it was integers that have become floats."""

LOWEST_RATE_HZ = 1000.0
HIGHEST_RATE_HZ = 10_000_000.0
"""Rates outside are in another unit, or a mistake."""

HIGHEST_KHZ = 400.0

FULL_SCALE = {"int16": 2.0**15, "int32": 2.0**31, "uint8": 2.0**7}
"""The value of full scale in arrays of integers."""

if TYPE_CHECKING:
    Waveform = NDArray[Any] | Tensor | Sequence[float]
    SampleRate = float | np.generic | Tensor
else:
    # `plain_array` and `check_rate` look at what a user gives, and their errors are clearer than
    # those of a check of types.
    Waveform = SampleRate = Any


def checked_media(
    events: Iterable[Frame | AudioChunk],
) -> Iterator[Frame | Float32[np.ndarray, " samples"]]:
    """`continuous_audio` with a check of its samples. Raises SourceError for what is no sound."""
    samples_done = 0
    for event in continuous_audio(events):
        if not isinstance(event, Frame):
            check_samples(event, samples_done)
            samples_done += len(event)
        yield event


def read_waveform_chunks(
    path: str | Path, report: DecodeReport
) -> Iterator[Float32[np.ndarray, " samples"]]:
    """The sound of a file from its beginning on, checked, in chunks of about a second."""
    samples_done = 0
    for chunk in read_audio_chunks(path, DecodeOptions(), report):
        yield check_samples(chunk, samples_done)
        samples_done += len(chunk)


def samples_first(array: NDArray[Any], first_is_time: bool = False) -> NDArray[Any]:
    """An array as `[samples]` or `[samples, channels]`, not copied.

    Takes `[samples]`, `[samples, channels]` and `[channels, samples]`: the longer axis is time, or
    with `first_is_time` the first one. Raises SourceError for what cannot be sound.
    """
    shape = list(array.shape)
    if array.ndim not in (1, 2):
        raise SourceError(f"sound is [samples] or [samples, channels], and this array is {shape}")
    if array.ndim == 2 and not first_is_time and array.shape[0] < array.shape[1]:
        array = array.T
    if array.ndim == 2 and not 0 < array.shape[1] <= MAX_CHANNELS:
        raise SourceError(
            f"an array of {list(array.shape)} cannot be [samples, channels] "
            f"with 1 to {MAX_CHANNELS} channels"
        )
    if array.dtype.name not in FULL_SCALE and array.dtype.kind != "f":
        raise SourceError(
            f"sound of type {array.dtype.name} has no known full scale; "
            "give floats in -1..1, int16, int32 or uint8"
        )
    return array


def scaled(array: NDArray[Any]) -> NDArray[np.float32]:
    """Samples as floats of the same shape: integers are divided by their full scale."""
    scale = FULL_SCALE.get(array.dtype.name, 1.0)
    wave: NDArray[np.float32] = array.astype(np.float32, copy=False)
    if scale != 1:
        zero = np.float32(128 if array.dtype == np.uint8 else 0)
        wave = (wave - zero) / np.float32(scale)
    return wave


def to_mono(wave: NDArray[np.float32]) -> Float32[np.ndarray, " samples"]:
    """The mean of the channels of `[samples]` or `[samples, channels]`."""
    mono: NDArray[np.float32] = wave.mean(axis=1, dtype=np.float32) if wave.ndim == 2 else wave
    return mono


def check_samples(
    wave: Float32[np.ndarray, " samples"],
    samples_before: int,
    sample_rate_hz: float = SAMPLE_RATE_HZ,
) -> Float32[np.ndarray, " samples"]:
    """`wave` itself, if it can be sound. Raises SourceError with the time of a bad sample."""
    peak = float(np.abs(wave).max(initial=0.0))
    # For good sound this is all; only bad sound is searched for its first bad sample.
    if np.isfinite(peak) and peak <= LOUDEST:
        return wave
    # Written with "not", so that a sample that is not a number counts as bad.
    first_bad = int(np.argmax(~(np.abs(wave) <= LOUDEST)))
    bad_seconds = (samples_before + first_bad) / sample_rate_hz
    if np.isfinite(peak):
        raise SourceError(
            f"the sound reaches {peak:g} at {bad_seconds:.3f} s, where floats lie in -1..1; "
            "divide it, or give it as int16"
        )
    raise SourceError(
        f"the sound holds a value that is no number (NaN or infinite) at {bad_seconds:.3f} s; "
        "repair it, or put 0 in its place"
    )


def check_rate(sample_rate_hz: Any) -> float:
    """A sample rate in Hz, from a number of any library. Raises SourceError if it is impossible."""
    rate_hz = _as_number(sample_rate_hz)
    if not 0 < rate_hz < np.inf:
        raise SourceError(
            f"a sample rate of {rate_hz:g} Hz cannot be; give the rate of the array, such as 44100"
        )
    if rate_hz < LOWEST_RATE_HZ:
        if 1 <= rate_hz <= HIGHEST_KHZ:
            advice = f"{rate_hz:g} looks like kHz; give {rate_hz * 1000:.10g}"
        else:
            advice = "give samples a second, such as 44100"
        raise SourceError(f"a sample rate of {rate_hz:g} Hz is too low for sound; {advice}")
    if rate_hz > HIGHEST_RATE_HZ:
        raise SourceError(
            f"a sample rate of {rate_hz:.10g} Hz is too high for sound; "
            "give samples a second, such as 44100"
        )
    return rate_hz


def _as_number(sample_rate_hz: Any) -> float:
    """A number, or the only value of an array or a tensor."""
    number = sample_rate_hz
    has_one_value = math.prod(getattr(sample_rate_hz, "shape", (0,))) == 1
    if hasattr(sample_rate_hz, "item") and has_one_value:
        number = sample_rate_hz.item()
    is_text_or_bool = isinstance(number, (str, bytes, bool))
    if is_text_or_bool or hasattr(number, "shape") or not hasattr(number, "__float__"):
        name = type(sample_rate_hz).__name__
        raise SourceError(
            f"a sample rate is a number of Hz such as 44100, "
            f"and {sample_rate_hz!r} is of type {name}"
        )
    return float(number)


NO_SAMPLES = np.zeros(0, np.float32)
"""A sound of no length."""


class ArrayResampler:
    """Sound in arrays, whole or in pieces -> one channel at 48 kHz.

    Sound is mixed and resampled in blocks of BLOCK_SECONDS. The result does not depend on how it is
    cut into pieces. It uses soxr HQ, as decoding of files does, since the resampler is part of what
    makes a vector.

    Arrays are `[samples]` or have channels; the longer axis is time, or with `first_is_time` the
    first one.
    """

    def __init__(self, sample_rate_hz: SampleRate, first_is_time: bool = False) -> None:
        self._rate_hz = check_rate(sample_rate_hz)
        self._first_is_time = first_is_time
        self._block_samples = max(round(BLOCK_SECONDS * self._rate_hz), 1)
        self._block: list[NDArray[np.float32]] = []
        """The pieces of a block that is not complete."""
        self._missing_samples = self._block_samples
        """How many samples it still needs."""
        self._samples_before = 0
        """Samples before the block."""
        self._channels = 1
        self._guard: PhaseGuard | None = None
        """Finds channels that cancel; None for one channel."""
        self._stream: soxr.ResampleStream | None = None
        if self._rate_hz != SAMPLE_RATE_HZ:
            self._stream = soxr.ResampleStream(self._rate_hz, SAMPLE_RATE_HZ, 1, "float32", "HQ")

    @property
    def samples(self) -> int:
        """Number of samples that came, at their own rate."""
        return self._samples_before + self._block_samples - self._missing_samples

    def push(
        self, samples: Waveform = NO_SAMPLES, is_last: bool = False
    ) -> Iterator[Float32[np.ndarray, " samples"]]:
        """Take sound in an array of any library; yield what is known by now.

        Of several channels a block waits until it is complete: only then is it known whether they
        cancel. `is_last`: nothing follows, so nothing waits. Raises SourceError for what cannot be
        sound.
        """
        array = samples_first(plain_array(samples), self._first_is_time)
        channels = array.shape[1] if array.ndim == 2 else 1
        if len(array) and channels != self._channels:
            yield from self._finish_block()
            self._channels = channels
            self._guard = _phase_guard(channels, self._rate_hz)
        while len(array):
            part = scaled(array[: self._missing_samples])
            array = array[len(part) :]
            # Before the block is complete, so that an error comes with the part that holds it.
            check_samples(to_mono(part), self.samples, self._rate_hz)
            self._block.append(part)
            self._missing_samples -= len(part)
            if channels == 1 or not self._missing_samples:
                yield from self._finish_block()
        if is_last:
            yield from self._finish_block()
            if self._stream:
                yield self._stream.resample_chunk(NO_SAMPLES, last=True)

    def _finish_block(self) -> Iterator[Float32[np.ndarray, " samples"]]:
        """Mix and resample the block, however long it is by now."""
        if not self._block:
            return
        block = np.concatenate(self._block)
        mono = to_mono(block)
        if self._guard:
            mono = self._guard.guard(mono, list(np.ascontiguousarray(block.T)))
            # A channel that replaces the mean may be too loud where the mean was not.
            check_samples(mono, self._samples_before, self._rate_hz)
        self._block = []
        self._missing_samples = self._block_samples
        self._samples_before += len(mono)
        yield self._stream.resample_chunk(mono) if self._stream else mono


def _phase_guard(channels: int, sample_rate_hz: float) -> PhaseGuard | None:
    if channels == 1:
        return None
    weights = np.full(channels, 1 / channels, np.float32)
    return PhaseGuard(weights, sample_rate_hz, prefers_first=channels == AMBIGUOUS_CHANNELS)
