"""Voices: twelve timbre families, each with its rhythm. Pitch, tempo and loudness are free and
overlap between them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from looklisten.media.synth.sounds import Sound

Rhythm = Callable[[np.random.Generator, float, float], tuple[tuple[float, float], ...]]
"""(random numbers, beats per second, seconds) -> (onset, length) of each note, in seconds."""
Timbre = Callable[[np.random.Generator, float, Sound, float], Sound]
"""(random numbers, pitch in Hz, times since the onset, length in seconds) -> the note."""


@dataclass(frozen=True)
class Voice:
    timbre: Timbre
    rhythm: Rhythm


def _beats(pattern: tuple[float, ...], length: float, jitter: float = 0.0) -> Rhythm:
    """A bar that repeats: `pattern` are the onsets inside one bar of len(pattern) beats (as
    fractions of the bar).
    """

    def rhythm(
        rng: np.random.Generator, tempo: float, seconds: float
    ) -> tuple[tuple[float, float], ...]:
        bar = len(pattern) / tempo
        start = -bar * rng.random()
        onsets = [start + bar * (k + p) for k in range(int(seconds / bar) + 2) for p in pattern]
        onsets = [t + jitter * rng.uniform(-1, 1) / tempo for t in onsets]
        return tuple((t, length / tempo) for t in onsets if 0 <= t < seconds)

    return rhythm


def _scattered(rate: float, length: float) -> Rhythm:
    """Onsets at random, about `rate` a beat, each `length` seconds long whatever the tempo."""

    def rhythm(
        rng: np.random.Generator, tempo: float, seconds: float
    ) -> tuple[tuple[float, float], ...]:
        gaps = 0.3 / (rate * tempo) + rng.exponential(
            0.7 / (rate * tempo), int(3 * rate * tempo * seconds) + 20
        )
        return tuple((float(t), length) for t in np.cumsum(gaps) if t < seconds)

    return rhythm


def _decay(t: Sound, seconds: float) -> Sound:
    return np.exp(-t / seconds) * np.minimum(t / 0.002, 1)


def _held(t: Sound, length: float, attack: float) -> Sound:
    """An envelope that rises in `attack` seconds, holds and falls at the end of its length."""
    return np.clip(t / attack, 0, 1) * np.clip((length - t) / 0.04, 0, 1)


def _partials(pitch: float, t: Sound, weights: dict[float, float]) -> Sound:
    return sum(
        (w * np.sin(2 * np.pi * pitch * k * t) for k, w in weights.items()), np.zeros_like(t)
    )


def _bell(rng: np.random.Generator, pitch: float, t: Sound, length: float) -> Sound:
    partials = ((1, 1.0, 0.5), (2.76, 0.7, 0.3), (5.4, 0.45, 0.16), (8.93, 0.3, 0.08))
    return sum(
        (w * np.sin(2 * np.pi * pitch * k * t) * _decay(t, d) for k, w, d in partials),
        np.zeros_like(t),
    )


def _pluck(rng: np.random.Generator, pitch: float, t: Sound, length: float) -> Sound:
    return sum(
        (np.sin(2 * np.pi * pitch * k * t) / k * _decay(t, 0.5 / k) for k in range(1, 12)),
        np.zeros_like(t),
    )


def _reed(rng: np.random.Generator, pitch: float, t: Sound, length: float) -> Sound:
    return _partials(pitch, t, {k: 1 / k for k in (1, 3, 5, 7, 9, 11)}) * _held(t, length, 0.02)


def _siren(rng: np.random.Generator, pitch: float, t: Sound, length: float) -> Sound:
    sweep = 0.45 * np.sin(2 * np.pi * t / length)
    return np.sin(2 * np.pi * pitch * 1.5 * np.cumsum(1 + sweep) * (t[1] - t[0])) * _held(
        t, length, 0.02
    )


def _thump(rng: np.random.Generator, pitch: float, t: Sound, length: float) -> Sound:
    drop = 0.3 * pitch * (t + 0.05 * (1 - np.exp(-t / 0.02)))
    return np.sin(2 * np.pi * drop) * _decay(t, 0.09)


def _rise(rng: np.random.Generator, pitch: float, t: Sound, length: float) -> Sound:
    return np.sin(2 * np.pi * pitch * (t + 2.0 * t**2 / (2 * length))) * _held(t, length, 0.01)


def _fall(rng: np.random.Generator, pitch: float, t: Sound, length: float) -> Sound:
    return np.sin(2 * np.pi * pitch * 3 * length / 2.5 * (1 - np.exp(-2.5 * t / length))) * _held(
        t, length, 0.01
    )


def _rattle(rng: np.random.Generator, pitch: float, t: Sound, length: float) -> Sound:
    return (
        rng.standard_normal(len(t), dtype=np.float32) + np.sin(2 * np.pi * pitch * 6 * t)
    ) * _decay(t, 0.006)


def _hiss(rng: np.random.Generator, pitch: float, t: Sound, length: float) -> Sound:
    return (
        rng.standard_normal(len(t), dtype=np.float32)
        * np.sin(np.pi * np.clip(t / length, 0, 1)) ** 2
    )


def _whistle(rng: np.random.Generator, pitch: float, t: Sound, length: float) -> Sound:
    vibrato = 0.03 * np.sin(2 * np.pi * 6.5 * t) / 6.5
    tone = np.sin(2 * np.pi * pitch * 2 * (t + vibrato))
    return (tone + 0.12 * rng.standard_normal(len(t), dtype=np.float32)) * _held(t, length, 0.08)


def _brass(rng: np.random.Generator, pitch: float, t: Sound, length: float) -> Sound:
    tremolo = 1 + 0.6 * np.sin(2 * np.pi * 17 * t)
    return (
        _partials(pitch / 2, t, {k: 0.8**k for k in range(1, 16)})
        * tremolo
        * _held(t, length, 0.05)
    )


def _growl(rng: np.random.Generator, pitch: float, t: Sound, length: float) -> Sound:
    modulator = np.sin(2 * np.pi * pitch * 0.37 * t)
    return np.sin(2 * np.pi * pitch * t + 5 * modulator) * _held(t, length, 0.01)


VOICES: dict[str, Voice] = {
    "star": Voice(_bell, _beats((0,), 1.5)),
    "ring": Voice(_pluck, _beats((0, 0.5), 1.2, jitter=0.1)),
    "cross": Voice(_reed, _beats((0,), 0.6)),
    "crescent": Voice(_siren, _beats((0,), 1.0)),
    "heart": Voice(_thump, _beats((0, 0.3), 0.8)),
    "triangle": Voice(_rise, _beats((0,), 0.7)),
    "gear": Voice(_rattle, _scattered(9, 0.04)),
    "drop": Voice(_fall, _scattered(2, 0.12)),
    "hourglass": Voice(_hiss, _beats((0,), 0.9)),
    "flower": Voice(_whistle, _beats((0, 0.7), 1.2)),
    "arrow": Voice(_brass, _beats((0, 0.25), 0.45)),
    "spiral": Voice(_growl, _beats((0, 0.2, 0.4), 0.35)),
}
"""The voice of each look, under the look's name."""


def note(
    voice: Voice,
    rng: np.random.Generator,
    pitch_hz: float,
    length_seconds: float,
    sample_rate_hz: int,
) -> Sound:
    """One note and its ring-out, `[samples]`, about unit amplitude."""
    ring_out = 0.6
    t = (
        np.arange(int((length_seconds + ring_out) * sample_rate_hz), dtype=np.float32)
        / sample_rate_hz
    )
    return voice.timbre(rng, pitch_hz, t, length_seconds)
