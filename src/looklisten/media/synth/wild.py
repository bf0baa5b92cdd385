"""Wild kinds: as many as wanted, each a look and a voice drawn from its number. Easy to tell apart
by eye, subtle by ear.

The twelve kinds of the plain world teach twelve timbres. Here a voice is a point in a space that
natural sounds lie in too: a source (tone, noise, crackle), resonances, a contour of pitch, an
envelope, a rhythm; an ear that tells hundreds of them apart has learnt it.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from looklisten.media.synth.looks import Field, Look, Plane
from looklisten.media.synth.sounds import Sound, rms
from looklisten.media.synth.voices import Rhythm, Voice

PREFIX = "wild-"
MAX_PARTIALS = 24
TOP_HZ = 20_000.0


def names(count: int) -> tuple[str, ...]:
    """The labels of the first `count` kinds."""
    return tuple(f"{PREFIX}{number:04d}" for number in range(count))


@lru_cache(maxsize=4096)
def wild_look(label: str) -> Look:
    """A smooth outline of its own, a texture and two colours."""
    rng = np.random.default_rng((int(label.removeprefix(PREFIX)), 1))
    lobes, phases = rng.normal(0, 1, 5) / np.arange(1, 6) ** 0.7, rng.uniform(0, 2 * np.pi, 5)
    swing = rng.uniform(0.15, 0.45) / np.abs(lobes).sum()

    def silhouette(x: Plane, y: Plane) -> Plane:
        angle = np.arctan2(y, x)
        outline = sum(
            swing * lobe * np.cos(k * angle + phase)
            for k, (lobe, phase) in enumerate(zip(lobes, phases, strict=True), 2)
        )
        return 0.55 + outline - np.hypot(x, y)

    hue = rng.random(3)
    return Look(silhouette, _texture(rng), (_rgb(hue), _rgb(1 - hue + rng.uniform(-0.2, 0.2, 3))))


def _rgb(values: NDArray[np.floating[Any]]) -> tuple[float, float, float]:
    red, green, blue = np.clip(values, 0.05, 0.95).tolist()
    return red, green, blue


def _texture(rng: np.random.Generator) -> Field:
    a, b, k, turn = (
        rng.uniform(4, 22),
        rng.uniform(0, 14),
        int(rng.integers(2, 12)),
        rng.uniform(0, 2 * np.pi),
    )
    kind = int(rng.integers(4))

    def texture(x: Plane, y: Plane) -> Plane:
        phase = (
            a * x + b * y,
            a * np.hypot(x, y),
            k * np.arctan2(y, x),
            a * x + 3 * np.sin(b * y),
        )[kind]
        return np.clip(0.5 + 1.2 * np.cos(phase + turn), 0, 1)

    return texture


@lru_cache(maxsize=4096)
def wild_voice(label: str) -> Voice:
    """A voice of its own; what varies from one sounding to the next is small against what varies
    between kinds.
    """
    rng = np.random.default_rng((int(label.removeprefix(PREFIX)), 2))
    tone, noise, crackle = rng.dirichlet((0.5, 0.4, 0.3))
    base_hz = np.exp(rng.uniform(np.log(60), np.log(1600)))
    roll_off, odd_only = rng.uniform(0.2, 2.0), rng.random() < 0.25
    contour = rng.normal(0, rng.choice([0.0, 2.0, 6.0]), 3)
    vibrato_hz, vibrato = rng.uniform(3, 9), rng.choice([0.0, 0.3, 1.0])
    clicks_per_second = np.exp(rng.uniform(np.log(8), np.log(400)))
    peaks = [
        (
            np.exp(rng.uniform(np.log(200), np.log(14_000))),
            rng.uniform(0.08, 0.8),
            rng.uniform(6, 26),
        )
        for _ in range(rng.integers(0, 5))
    ]
    tilt_db = rng.uniform(-9, 3)
    beat_hz, depth, pulses = (
        np.exp(rng.uniform(np.log(2), np.log(40))),
        rng.choice([0.0, 0.5, 1.0]),
        rng.random() < 0.5,
    )
    rhythm, held = _rhythm(rng)
    attack, decay = (
        np.exp(rng.uniform(np.log(0.002), np.log(0.2))),
        np.exp(rng.uniform(np.log(0.015), np.log(0.8))),
    )

    def timbre(chance: np.random.Generator, pitch: float, t: Sound, length: float) -> Sound:
        step = float(t[1] - t[0])
        bent = base_hz * 2 ** (chance.normal(0, 1.5) / 12) * (pitch / 400) ** 0.15
        semitones = np.interp(t, np.linspace(0, length, 3), contour) + vibrato * np.sin(
            2 * np.pi * vibrato_hz * t
        )
        phase = 2 * np.pi * np.cumsum(bent * 2 ** (semitones / 12)) * step
        highest = float(bent * 2 ** (semitones.max() / 12))
        partials = [
            k
            for k in range(1, MAX_PARTIALS + 1)
            if k * highest < min(TOP_HZ, 0.45 / step) and not (odd_only and k % 2 == 0)
        ]
        voiced: Sound = sum(
            (np.sin(k * phase + chance.uniform(0, 6)) * k**-roll_off for k in partials),
            np.zeros_like(t),
        )
        hiss = chance.standard_normal(len(t), dtype=np.float32)
        hits = (
            (chance.random(len(t)) < clicks_per_second * step)
            * chance.lognormal(0, 1, len(t))
            * np.sign(hiss)
        )
        source = sum(
            (
                weight * part / rms(part)
                for weight, part in ((tone, voiced), (noise, hiss), (crackle, hits))
                if weight > 0.02
            ),
            0.0 * t,
        )
        colored = _colored(
            source,
            step,
            tilt_db,
            [(hz * 2 ** chance.normal(0, 0.05), width, gain) for hz, width, gain in peaks],
        )
        beat = 0.5 + 0.5 * np.cos(2 * np.pi * beat_hz * t + chance.uniform(0, 6))
        beat = 1 - depth * (1 - (beat**6 if pulses else beat))
        fade = (
            np.clip((length - t) / 0.03, 0, 1)
            if held
            else np.exp(-np.maximum(t - attack, 0) / decay)
        )
        shaped: Sound = colored * beat * np.minimum(t / attack, 1) * fade
        return shaped

    return Voice(timbre, rhythm)


def _rhythm(rng: np.random.Generator) -> tuple[Rhythm, bool]:
    """Without pause, in beats or at random; and whether a note is held rather than struck."""
    kind, per_second, jitter = (
        int(rng.integers(3)),
        np.exp(rng.uniform(np.log(0.8), np.log(7))),
        rng.choice([0.0, 0.15]),
    )
    held = kind == 0 or rng.random() < 0.4

    def rhythm(
        chance: np.random.Generator, tempo: float, seconds: float
    ) -> tuple[tuple[float, float], ...]:
        if kind == 0:
            return ((0.0, seconds),)
        rate = per_second * (tempo / 2.9) ** 0.3
        gaps = np.full(int(rate * seconds) + 2, 1 / rate) * (
            1 + jitter * chance.uniform(-1, 1, int(rate * seconds) + 2)
        )
        if kind == 2:
            gaps = 0.25 / rate + chance.exponential(0.75 / rate, len(gaps) * 3)
        onsets = np.cumsum(gaps) - gaps[0] * chance.random()
        return tuple((float(t), 0.6 / rate) for t in onsets if 0 <= t < seconds)

    return rhythm, held


def _colored(
    source: Sound, step_seconds: float, tilt_db: float, peaks: list[tuple[float, float, float]]
) -> Sound:
    """The source through resonances at (Hz, width in octaves, gain in dB), its spectrum tilted so
    many decibels an octave.
    """
    size = 1 << (len(source) - 1).bit_length()
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, step_seconds), 40) / 1000)
    decibels = tilt_db * octaves + sum(
        (
            gain * np.exp(-(((octaves - np.log2(hz / 1000)) / width) ** 2))
            for hz, width, gain in peaks
        ),
        0.0,
    )
    return np.fft.irfft(np.fft.rfft(source, size) * 10 ** (decibels / 20), size)[
        : len(source)
    ].astype(np.float32)
