"""Randomly generated classes: each has a shape and a voice that its number alone determines.

The twelve fixed classes teach twelve timbres. Here a voice is a point in a space that natural
sounds lie in too: a source (tone, noise, clicks), resonances, a pitch contour, an envelope, a
rhythm. An audio tower has to learn these to tell hundreds of classes apart.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from looklisten.media.synth.shapes import Color, Field, Plane, Shape
from looklisten.media.synth.sound_effects import (
    SoundArray,
    fast_size,
    gains,
    octaves_from_center,
    rms,
)
from looklisten.media.synth.voices import Notes, Rhythm, Voice

PREFIX = "random-"
MAX_HARMONICS = 24
MAX_HARMONIC_HZ = 20_000.0

MIN_SOURCE_WEIGHT = 0.02
"""A part of the source below this weight is not computed."""


def class_names(count: int) -> tuple[str, ...]:
    """The labels of the first `count` random classes."""
    return tuple(f"{PREFIX}{number:04d}" for number in range(count))


def _generator(label: str, stream: int) -> np.random.Generator:
    """The random numbers of one class; shape and voice have streams of their own."""
    return np.random.default_rng((int(label.removeprefix(PREFIX)), stream))


@lru_cache(maxsize=4096)
def random_shape(label: str) -> Shape:
    """A smooth outline, a texture and two colors."""
    rng = _generator(label, 1)
    frequencies = range(2, 7)
    lobes = rng.normal(0, 1, 5) / np.arange(1, 6) ** 0.7
    phases = rng.uniform(0, 2 * np.pi, 5)
    # The lobes together are smaller than the radius, so the outline never crosses the center.
    depth = rng.uniform(0.15, 0.45) / np.abs(lobes).sum()

    def silhouette(x: Plane, y: Plane) -> Plane:
        angle = np.arctan2(y, x)
        waves: Any = 0
        for frequency, lobe, phase in zip(frequencies, lobes, phases, strict=True):
            waves = waves + depth * lobe * np.cos(frequency * angle + phase)
        distance: Plane = 0.55 + waves - np.hypot(x, y)
        return distance

    rgb = rng.random(3)
    texture = _random_texture(rng)
    opposite = 1 - rgb + rng.uniform(-0.2, 0.2, 3)
    return Shape(silhouette, texture, (_as_color(rgb), _as_color(opposite)))


def _as_color(values: NDArray[np.floating[Any]]) -> Color:
    red, green, blue = np.clip(values, 0.05, 0.95).tolist()
    return red, green, blue


def _random_texture(rng: np.random.Generator) -> Field:
    """Stripes, rings, sectors or waves."""
    a = rng.uniform(4, 22)
    b = rng.uniform(0, 14)
    sectors = int(rng.integers(2, 12))
    offset = rng.uniform(0, 2 * np.pi)
    pattern = int(rng.integers(4))

    def texture(x: Plane, y: Plane) -> Plane:
        if pattern == 0:
            phase = a * x + b * y
        elif pattern == 1:
            phase = a * np.hypot(x, y)
        elif pattern == 2:
            phase = sectors * np.arctan2(y, x)
        else:
            phase = a * x + 3 * np.sin(b * y)
        return np.clip(0.5 + 1.2 * np.cos(phase + offset), 0, 1)

    return texture


@dataclass(frozen=True)
class _VoiceParameters:
    """What distinguishes the voice of one random class from that of another."""

    source_weights: tuple[float, float, float]
    """Of tone, noise and clicks; they sum to 1."""
    base_hz: float
    roll_off: float
    """Harmonic k has the amplitude k ** -roll_off."""
    odd_harmonics_only: bool
    contour_semitones: NDArray[np.float64]
    """Deviation of the pitch at the start, the middle and the end of a note."""
    vibrato_hz: float
    vibrato_semitones: float
    clicks_per_second: float
    resonances: list[tuple[float, float, float]]
    """(Hz, width in octaves, gain in dB)."""
    tilt_db: float
    beat_hz: float
    beat_depth: float
    beat_is_pulsed: bool
    is_sustained: bool
    """Whether a note keeps its level, or decays like something that is struck."""
    attack_seconds: float
    decay_seconds: float


@lru_cache(maxsize=4096)
def random_voice(label: str) -> Voice:
    """A timbre and a rhythm.

    What varies from note to note is small compared with what varies between classes.
    """
    rng = _generator(label, 2)
    # The order of these lines is the order of the random numbers: it must not change.
    tone, noise, clicks = rng.dirichlet((0.5, 0.4, 0.3))
    base_hz = _log_uniform(rng, 60, 1600)
    roll_off = rng.uniform(0.2, 2.0)
    odd_harmonics_only = rng.random() < 0.25
    contour = rng.normal(0, rng.choice([0.0, 2.0, 6.0]), 3)
    vibrato_hz = rng.uniform(3, 9)
    vibrato_semitones = rng.choice([0.0, 0.3, 1.0])
    clicks_per_second = _log_uniform(rng, 8, 400)
    resonances = []
    for _ in range(rng.integers(0, 5)):
        frequency_hz = _log_uniform(rng, 200, 14_000)
        resonances.append((frequency_hz, rng.uniform(0.08, 0.8), rng.uniform(6, 26)))
    tilt_db = rng.uniform(-9, 3)
    beat_hz = _log_uniform(rng, 2, 40)
    beat_depth = rng.choice([0.0, 0.5, 1.0])
    beat_is_pulsed = rng.random() < 0.5
    rhythm, is_sustained = _random_rhythm(rng)
    attack_seconds = _log_uniform(rng, 0.002, 0.2)
    decay_seconds = _log_uniform(rng, 0.015, 0.8)
    parameters = _VoiceParameters(
        source_weights=(tone, noise, clicks),
        base_hz=base_hz,
        roll_off=roll_off,
        odd_harmonics_only=odd_harmonics_only,
        contour_semitones=contour,
        vibrato_hz=vibrato_hz,
        vibrato_semitones=vibrato_semitones,
        clicks_per_second=clicks_per_second,
        resonances=resonances,
        tilt_db=tilt_db,
        beat_hz=beat_hz,
        beat_depth=beat_depth,
        beat_is_pulsed=beat_is_pulsed,
        is_sustained=is_sustained,
        attack_seconds=attack_seconds,
        decay_seconds=decay_seconds,
    )

    def timbre(
        note_rng: np.random.Generator, pitch: float, times: SoundArray, length: float
    ) -> SoundArray:
        return _note(parameters, note_rng, pitch, times, length)

    return Voice(timbre, rhythm)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A random number whose logarithm is uniform, as pitches and times are perceived."""
    number: float = np.exp(rng.uniform(np.log(low), np.log(high)))
    return number


def _note(
    parameters: _VoiceParameters,
    rng: np.random.Generator,
    pitch: float,
    times: SoundArray,
    length: float,
) -> SoundArray:
    """One note of a random class, `[samples]`."""
    sample_seconds = float(times[1] - times[0])
    source = _source(parameters, rng, pitch, times, length)
    # Resonances differ a little from note to note.
    resonances = []
    for frequency_hz, width, gain_db in parameters.resonances:
        resonances.append((frequency_hz * 2 ** rng.normal(0, 0.05), width, gain_db))
    colored = _resonate(source, sample_seconds, parameters.tilt_db, resonances)
    beat = 0.5 + 0.5 * np.cos(2 * np.pi * parameters.beat_hz * times + rng.uniform(0, 6))
    if parameters.beat_is_pulsed:
        beat = beat**6
    tremolo = 1 - parameters.beat_depth * (1 - beat)
    attack = np.minimum(times / parameters.attack_seconds, 1)
    if parameters.is_sustained:
        fade = np.clip((length - times) / 0.03, 0, 1)
    else:
        after_attack = np.maximum(times - parameters.attack_seconds, 0)
        fade = np.exp(-after_attack / parameters.decay_seconds)
    shaped: SoundArray = colored * tremolo * attack * fade
    return shaped


def _source(
    parameters: _VoiceParameters,
    rng: np.random.Generator,
    pitch: float,
    times: SoundArray,
    length: float,
) -> SoundArray:
    """The mixture of tone, noise and clicks before resonances and envelope."""
    sample_seconds = float(times[1] - times[0])
    # The pitch of the scene counts little: a class has a pitch of its own.
    base_hz = parameters.base_hz * 2 ** (rng.normal(0, 1.5) / 12) * (pitch / 400) ** 0.15
    contour = np.interp(times, np.linspace(0, length, 3), parameters.contour_semitones)
    vibrato = np.sin(2 * np.pi * parameters.vibrato_hz * times)
    semitones = contour + parameters.vibrato_semitones * vibrato
    phase = 2 * np.pi * np.cumsum(base_hz * 2 ** (semitones / 12)) * sample_seconds
    highest_hz = float(base_hz * 2 ** (semitones.max() / 12))
    # Harmonics above the Nyquist frequency would come back as other tones.
    limit_hz = min(MAX_HARMONIC_HZ, 0.45 / sample_seconds)
    tone: SoundArray = np.zeros_like(times)
    for harmonic in range(1, MAX_HARMONICS + 1):
        is_even = harmonic % 2 == 0
        if harmonic * highest_hz >= limit_hz or (parameters.odd_harmonics_only and is_even):
            continue
        sine = np.sin(harmonic * phase + rng.uniform(0, 6))
        tone = tone + sine * harmonic**-parameters.roll_off
    # Clicks are single samples at random times, of random strength and sign.
    noise = rng.standard_normal(len(times), dtype=np.float32)
    is_click = rng.random(len(times)) < parameters.clicks_per_second * sample_seconds
    clicks = is_click * rng.lognormal(0, 1, len(times)) * np.sign(noise)
    source = 0.0 * times
    parts: tuple[SoundArray, ...] = (tone, noise, clicks)
    for weight, part in zip(parameters.source_weights, parts, strict=True):
        if weight > MIN_SOURCE_WEIGHT:
            source = source + weight * part / rms(part)
    return source


def _random_rhythm(rng: np.random.Generator) -> tuple[Rhythm, bool]:
    """(one long note, regular beats or random onsets; whether notes are sustained)."""
    kind = int(rng.integers(3))
    notes_per_second = _log_uniform(rng, 0.8, 7)
    jitter = rng.choice([0.0, 0.15])
    is_sustained = kind == 0 or rng.random() < 0.4

    def rhythm(note_rng: np.random.Generator, tempo: float, seconds: float) -> Notes:
        # One note that lasts as long as the video.
        if kind == 0:
            return ((0.0, seconds),)
        rate = notes_per_second * (tempo / 2.9) ** 0.3
        count = int(rate * seconds) + 2
        gaps = np.full(count, 1 / rate) * (1 + jitter * note_rng.uniform(-1, 1, count))
        if kind == 2:
            gaps = 0.25 / rate + note_rng.exponential(0.75 / rate, len(gaps) * 3)
        onsets = np.cumsum(gaps) - gaps[0] * note_rng.random()
        return tuple((float(onset), 0.6 / rate) for onset in onsets if 0 <= onset < seconds)

    return rhythm, is_sustained


def _resonate(
    source: SoundArray,
    sample_seconds: float,
    tilt_db: float,
    resonances: list[tuple[float, float, float]],
) -> SoundArray:
    """The source with a tilted spectrum (dB per octave) and resonances (Hz, octaves, dB)."""
    size = fast_size(len(source))
    octaves = octaves_from_center(size, round(1 / sample_seconds))
    peaks: Any = 0.0
    for frequency_hz, width, gain_db in resonances:
        distance = (octaves - np.log2(frequency_hz / 1000)) / width
        peaks = peaks + gain_db * np.exp(-(distance**2))
    spectrum = fft.rfft(source, size) * gains(tilt_db * octaves + peaks)
    return fft.irfft(spectrum, size)[: len(source)].astype(np.float32)
