"""How the twelve fixed classes sound: a timbre and a rhythm, as functions of time.

Pitch, tempo and loudness are arguments, so every class has the same range of them. Knows no scene.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from looklisten.media.synth.sound_effects import SoundArray

Notes = tuple[tuple[float, float], ...]
"""(onset, length) of each note, in seconds."""

Rhythm = Callable[[np.random.Generator, float, float], Notes]
"""(random numbers, beats per second, length in seconds) -> notes."""

Timbre = Callable[[np.random.Generator, float, SoundArray, float], SoundArray]
"""(random numbers, pitch in Hz, times since the onset, length in seconds) -> the note's samples."""

RING_OUT_SECONDS = 0.6
"""By default a note sounds this much longer than its length, so that it can decay."""


@dataclass(frozen=True)
class Voice:
    """How the objects of one class sound."""

    timbre: Timbre
    rhythm: Rhythm
    ring_out_seconds: float = RING_OUT_SECONDS
    """How much longer than its length a note is computed."""


def _beats(pattern: tuple[float, ...], length_beats: float, jitter_beats: float = 0.0) -> Rhythm:
    """A bar that repeats, of as many beats as `pattern` has onsets.

    `pattern` holds the onsets inside one bar, as fractions of the bar.
    """

    def rhythm(rng: np.random.Generator, tempo: float, seconds: float) -> Notes:
        bar_seconds = len(pattern) / tempo
        # The first bar begins before the video, anywhere in the bar.
        start = -bar_seconds * rng.random()
        notes = []
        # Two bars more: one begins before the video, and one is cut off by its end.
        for bar in range(int(seconds / bar_seconds) + 2):
            for fraction in pattern:
                onset = start + bar_seconds * (bar + fraction)
                onset += jitter_beats * rng.uniform(-1, 1) / tempo
                if 0 <= onset < seconds:
                    notes.append((onset, length_beats / tempo))
        return tuple(notes)

    return rhythm


def _scattered(notes_per_beat: float, length_seconds: float) -> Rhythm:
    """Onsets at random times; the length of a note does not depend on the tempo."""

    def rhythm(rng: np.random.Generator, tempo: float, seconds: float) -> Notes:
        rate = notes_per_beat * tempo
        # More gaps than needed: their sum must reach the end.
        gap_count = int(3 * notes_per_beat * tempo * seconds) + 20
        gaps = 0.3 / rate + rng.exponential(0.7 / rate, gap_count)
        onsets = np.cumsum(gaps)
        return tuple((float(onset), length_seconds) for onset in onsets if onset < seconds)

    return rhythm


def _decay(times: SoundArray, seconds: float) -> SoundArray:
    """An envelope that rises in 2 ms and falls to 1/e in `seconds`."""
    return np.exp(-times / seconds) * np.minimum(times / 0.002, 1)


def _sustain(times: SoundArray, length: float, attack_seconds: float) -> SoundArray:
    """An envelope that rises, stays, and falls in the last 40 ms of its length."""
    attack = np.clip(times / attack_seconds, 0, 1)
    release = np.clip((length - times) / 0.04, 0, 1)
    return attack * release


def _partials(pitch: float, times: SoundArray, weights: dict[float, float]) -> SoundArray:
    """A sum of sines: `weights` has the amplitude of each multiple of the pitch."""
    total: SoundArray = np.zeros_like(times)
    for multiple, weight in weights.items():
        total = total + weight * np.sin(2 * np.pi * pitch * multiple * times)
    return total


def _bell(rng: np.random.Generator, pitch: float, times: SoundArray, length: float) -> SoundArray:
    # (multiple of the pitch, amplitude, decay in seconds), about those of a struck bar.
    partials = ((1, 1.0, 0.5), (2.76, 0.7, 0.3), (5.4, 0.45, 0.16), (8.93, 0.3, 0.08))
    total: SoundArray = np.zeros_like(times)
    for multiple, weight, decay_seconds in partials:
        sine = weight * np.sin(2 * np.pi * pitch * multiple * times)
        total = total + sine * _decay(times, decay_seconds)
    return total


def _pluck(rng: np.random.Generator, pitch: float, times: SoundArray, length: float) -> SoundArray:
    total: SoundArray = np.zeros_like(times)
    for harmonic in range(1, 12):
        sine = np.sin(2 * np.pi * pitch * harmonic * times) / harmonic
        # High harmonics of a string die away first.
        total = total + sine * _decay(times, 0.5 / harmonic)
    return total


def _reed(rng: np.random.Generator, pitch: float, times: SoundArray, length: float) -> SoundArray:
    odd_harmonics: dict[float, float] = {k: 1 / k for k in (1, 3, 5, 7, 9, 11)}
    return _partials(pitch, times, odd_harmonics) * _sustain(times, length, 0.02)


def _siren(rng: np.random.Generator, pitch: float, times: SoundArray, length: float) -> SoundArray:
    # The phase is the sum of the frequency, so that the sweep has no clicks.
    sweep = 0.45 * np.sin(2 * np.pi * times / length)
    sample_seconds = times[1] - times[0]
    phase = 2 * np.pi * pitch * 1.5 * np.cumsum(1 + sweep) * sample_seconds
    return np.sin(phase) * _sustain(times, length, 0.02)


def _thump(rng: np.random.Generator, pitch: float, times: SoundArray, length: float) -> SoundArray:
    falling_cycles = 0.3 * pitch * (times + 0.05 * (1 - np.exp(-times / 0.02)))
    return np.sin(2 * np.pi * falling_cycles) * _decay(times, 0.09)


def _rise(rng: np.random.Generator, pitch: float, times: SoundArray, length: float) -> SoundArray:
    warped = times + 2.0 * times**2 / (2 * length)
    return np.sin(2 * np.pi * pitch * warped) * _sustain(times, length, 0.01)


def _fall(rng: np.random.Generator, pitch: float, times: SoundArray, length: float) -> SoundArray:
    phase = 2 * np.pi * pitch * 3 * length / 2.5 * (1 - np.exp(-2.5 * times / length))
    return np.sin(phase) * _sustain(times, length, 0.01)


def _rattle(rng: np.random.Generator, pitch: float, times: SoundArray, length: float) -> SoundArray:
    noise = rng.standard_normal(len(times), dtype=np.float32)
    return (noise + np.sin(2 * np.pi * pitch * 6 * times)) * _decay(times, 0.006)


def _hiss(rng: np.random.Generator, pitch: float, times: SoundArray, length: float) -> SoundArray:
    noise = rng.standard_normal(len(times), dtype=np.float32)
    return noise * np.sin(np.pi * np.clip(times / length, 0, 1)) ** 2


def _whistle(
    rng: np.random.Generator, pitch: float, times: SoundArray, length: float
) -> SoundArray:
    vibrato = 0.03 * np.sin(2 * np.pi * 6.5 * times) / 6.5
    tone = np.sin(2 * np.pi * pitch * 2 * (times + vibrato))
    breath = 0.12 * rng.standard_normal(len(times), dtype=np.float32)
    return (tone + breath) * _sustain(times, length, 0.08)


def _brass(rng: np.random.Generator, pitch: float, times: SoundArray, length: float) -> SoundArray:
    harmonics: dict[float, float] = {k: 0.8**k for k in range(1, 16)}
    tremolo = 1 + 0.6 * np.sin(2 * np.pi * 17 * times)
    return _partials(pitch / 2, times, harmonics) * tremolo * _sustain(times, length, 0.05)


def _growl(rng: np.random.Generator, pitch: float, times: SoundArray, length: float) -> SoundArray:
    modulator = np.sin(2 * np.pi * pitch * 0.37 * times)
    return np.sin(2 * np.pi * pitch * times + 5 * modulator) * _sustain(times, length, 0.01)


VOICES: dict[str, Voice] = {
    "star": Voice(_bell, _beats((0,), 1.5)),
    "ring": Voice(_pluck, _beats((0, 0.5), 1.2, jitter_beats=0.1)),
    "cross": Voice(_reed, _beats((0,), 0.6), ring_out_seconds=0),
    "crescent": Voice(_siren, _beats((0,), 1.0), ring_out_seconds=0),
    "heart": Voice(_thump, _beats((0, 0.3), 0.8)),
    "triangle": Voice(_rise, _beats((0,), 0.7), ring_out_seconds=0),
    "gear": Voice(_rattle, _scattered(9, 0.04), ring_out_seconds=0.06),
    "drop": Voice(_fall, _scattered(2, 0.12), ring_out_seconds=0),
    "hourglass": Voice(_hiss, _beats((0,), 0.9), ring_out_seconds=0),
    "flower": Voice(_whistle, _beats((0, 0.7), 1.2), ring_out_seconds=0),
    "arrow": Voice(_brass, _beats((0, 0.25), 0.45), ring_out_seconds=0),
    "spiral": Voice(_growl, _beats((0, 0.2, 0.4), 0.35), ring_out_seconds=0),
}
"""The voice of each fixed class, by the name of the class."""


def note(
    voice: Voice,
    rng: np.random.Generator,
    pitch_hz: float,
    length_seconds: float,
    sample_rate_hz: int,
) -> SoundArray:
    """One note and its decay, `[samples]`, of about unit amplitude."""
    samples = int((length_seconds + voice.ring_out_seconds) * sample_rate_hz)
    times = np.arange(samples, dtype=np.float32) / sample_rate_hz
    return voice.timbre(rng, pitch_hz, times, length_seconds)
