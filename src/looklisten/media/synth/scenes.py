"""Scenes: one video of the world as a record drawn from a seed, and what it looks and sounds like
at each moment.

Every nuisance (colour, size, place, rotation, motion, background, clutter, light, pitch, loudness,
tempo, noise, echo, tilt of the spectrum) is drawn the same way for every class, so none of them
tells the class. Only the look and the voice do. Knows no file.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looklisten.media.synth import wild
from looklisten.media.synth.looks import LOOKS, Color, Look, Plane
from looklisten.media.synth.sounds import Sound, leveled, rms, tilted, with_noise
from looklisten.media.synth.voices import VOICES, Voice, note

CLASSES = tuple(LOOKS)
Picture = NDArray[np.uint8]
DISTANT, CLOSE_UP = (0.12, 0.24), (0.32, 0.44)
"""Radii of things, as fractions of the frame's side. A wild kind fills it: at other sizes an eye
learnt them so slowly that the ear learnt nothing (LOG.md, 2026-11-24).
"""


def look_of(label: str) -> Look:
    return wild.wild_look(label) if label.startswith(wild.PREFIX) else LOOKS[label]


def voice_of(label: str) -> Voice:
    return wild.wild_voice(label) if label.startswith(wild.PREFIX) else VOICES[label]


@dataclass(frozen=True)
class Thing:
    """One object on its path. Lengths are fractions of the frame's side, angles radians, times
    seconds.
    """

    label: str
    sounding: bool
    radius: float
    center: tuple[float, float]
    swing: tuple[float, float]
    swing_seconds: tuple[float, float]
    phase: tuple[float, float]
    angle: float
    turn_per_second: float
    squash: float
    colors: tuple[Color, Color]

    def place(self, at_seconds: float) -> tuple[float, float]:
        x, y = (
            c + a * np.sin(2 * np.pi * at_seconds / period + phase)
            for c, a, period, phase in zip(
                self.center, self.swing, self.swing_seconds, self.phase, strict=True
            )
        )
        return float(x), float(y)

    def box(self, at_seconds: float) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) in 0..1: the square around the disc that holds the silhouette."""
        x, y = self.place(at_seconds)
        x0, y0, x1, y1 = (
            float(np.clip(v, 0, 1))
            for v in (x - self.radius, y - self.radius, x + self.radius, y + self.radius)
        )
        return x0, y0, x1, y1


@dataclass(frozen=True)
class Scene:
    """One video: who is there (the first thing sounds), over which background, with which voice."""

    key: tuple[int, ...]
    seconds: float
    split: str
    background: tuple[int, ...]
    things: tuple[Thing, ...]
    pitch_hz: float
    notes: tuple[tuple[float, float], ...]
    loudness_db: float
    noise_db: float
    noise_color: float
    tilt_db: float
    echo_seconds: float
    echo_mix: float
    light: float

    @property
    def label(self) -> str:
        return self.things[0].label


def _color(rng: np.random.Generator) -> Color:
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.9), rng.uniform(0.15, 1.0))


def _two_colors(rng: np.random.Generator) -> tuple[Color, Color]:
    """Two colours far enough apart for a texture of them to be seen."""
    while True:
        first, second = _color(rng), _color(rng)
        if abs(sum(first) - sum(second)) > 0.6:
            return first, second


def _thing(rng: np.random.Generator, label: str, sounding: bool) -> Thing:
    radius = rng.uniform(*(CLOSE_UP if label.startswith(wild.PREFIX) else DISTANT))
    room = 1 - 2 * radius
    swing = (rng.uniform(0.02, 0.35) * room / 2, rng.uniform(0.02, 0.35) * room / 2)
    return Thing(
        label=label,
        sounding=sounding,
        radius=radius,
        center=(
            rng.uniform(radius + swing[0], 1 - radius - swing[0]),
            rng.uniform(radius + swing[1], 1 - radius - swing[1]),
        ),
        swing=swing,
        swing_seconds=(rng.uniform(3, 9), rng.uniform(3, 9)),
        phase=(rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)),
        angle=rng.uniform(0, 2 * np.pi),
        turn_per_second=rng.uniform(-0.6, 0.6),
        squash=rng.uniform(0.8, 1.0),
        colors=look_of(label).colors or _two_colors(rng),
    )


def _apart(one: Thing, other: Thing) -> bool:
    """Whether two paths never bring the discs closer than nine tenths of touching."""
    gap = np.hypot(*(np.array(one.center) - np.array(other.center)))
    return bool(
        gap - np.hypot(*one.swing) - np.hypot(*other.swing) > 0.9 * (one.radius + other.radius)
    )


def draw_scene(
    key: tuple[int, ...],
    label: str,
    split: str,
    background: tuple[int, ...],
    seconds: float,
    silent_share: float,
    classes: Sequence[str] = CLASSES,
) -> Scene:
    """A scene of class `label`, which is one of `classes`; the same `key` gives the same scene."""
    rng = np.random.default_rng(key)
    things: tuple[Thing, ...] = (_thing(rng, label, sounding=True),)
    if rng.random() < silent_share:
        other = str(rng.choice([name for name in classes if name != label]))
        while len(things) < 2 or not _apart(things[0], things[1]):
            things = (_thing(rng, label, sounding=True), _thing(rng, other, sounding=False))
    return Scene(
        key=key,
        seconds=seconds,
        split=split,
        background=background,
        things=things,
        pitch_hz=float(np.exp(rng.uniform(np.log(180), np.log(900)))),
        notes=voice_of(label).rhythm(rng, rng.uniform(1.8, 4.0), seconds),
        loudness_db=rng.uniform(-32, -14),
        noise_db=rng.uniform(-22, -3),
        noise_color=rng.uniform(0, 1.6),
        tilt_db=rng.uniform(-5, 5),
        echo_seconds=rng.uniform(0.1, 0.7),
        echo_mix=rng.uniform(0, 0.5),
        light=rng.uniform(0.65, 1.25),
    )


def _smooth_noise(rng: np.random.Generator, side: int, cells: int) -> Plane:
    """Values in about 0..1 that vary smoothly over `cells` cells: a random grid, cubically
    interpolated.
    """
    grid = rng.random((cells + 3, cells + 3))
    at = np.linspace(0, cells, side, endpoint=False)
    index, t = at.astype(int), at % 1
    weights = (
        np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1)
        / 6
    )
    rows = np.zeros((side, cells + 3))
    rows[np.arange(side)[:, None], index[:, None] + np.arange(4)] = weights
    return (rows @ grid @ rows.T).astype(np.float32)


def draw_background(key: tuple[int, ...], side: int) -> NDArray[np.float32]:
    """A textured, cluttered ground, `[side, side, 3]` in 0..1; the same `key` gives the same ground
    at every size.
    """
    rng = np.random.default_rng(key)
    field = sum(
        _smooth_noise(rng, side, cells) * weight
        for cells, weight in ((3, 1.0), (9, rng.uniform(0, 0.7)), (40, rng.uniform(0, 0.5)))
    )
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(15, 90)
    field = field + rng.uniform(0, 0.4) * np.sin(
        frequency * (x * np.cos(angle) + y * np.sin(angle)) + 4 * field
    )
    field = (field - field.min()) / np.ptp(field)
    dark, bright = (np.array(c, np.float32) for c in _two_colors(rng))
    ground = dark + (bright - dark) * field[..., None].astype(np.float32)
    for _ in range(rng.integers(4, 14)):  # clutter: bars and blobs, of no class
        cx, cy, turn = rng.random(), rng.random(), rng.uniform(0, np.pi)
        a, b = rng.uniform(0.02, 0.14), rng.uniform(0.01, 0.06)
        power, color = rng.choice([2, 8]), np.array(_color(rng), np.float32)
        reach = 1.5 * max(a, b)
        rows, columns = (
            slice(max(int((c - reach) * side), 0), int((c + reach) * side) + 2) for c in (cy, cx)
        )
        across, down = x[rows, columns] - cx, y[rows, columns] - cy
        u = across * np.cos(turn) + down * np.sin(turn)
        v = down * np.cos(turn) - across * np.sin(turn)
        inside = np.clip(
            (1 - (np.abs(u / a) ** power + np.abs(v / b) ** power)) * b * side + 0.5, 0, 1
        )
        ground[rows, columns] += (color - ground[rows, columns]) * inside[..., None].astype(
            np.float32
        )
    return ground


def draw_ground(scene: Scene, side: int) -> Picture:
    """What a scene shows when nothing is in it: its background in its light, `[side, side, 3]`
    uint8.
    """
    return _lit(draw_background(scene.background, side), scene.light)


def _lit(color: Plane, light: float) -> Picture:
    return np.clip(color * (255 * light), 0, 255).astype(np.uint8)


def _paint(frame: Picture, thing: Thing, at_seconds: float, light: float) -> None:
    """Draw `thing` into `frame` `[side, side, 3]` in place, touching only the square it needs."""
    side = frame.shape[0]
    cx, cy = (v * side for v in thing.place(at_seconds))
    radius = thing.radius * side
    x0, x1 = max(int(cx - radius), 0), min(int(cx + radius) + 2, side)
    y0, y1 = max(int(cy - radius), 0), min(int(cy + radius) + 2, side)
    x = ((np.arange(x0, x1, dtype=np.float32) - cx) / radius)[None]
    y = ((np.arange(y0, y1, dtype=np.float32) - cy) / radius)[:, None]
    angle = thing.angle + thing.turn_per_second * at_seconds
    u = (x * np.cos(angle) + y * np.sin(angle)).astype(np.float32)
    v = ((y * np.cos(angle) - x * np.sin(angle)) / thing.squash).astype(np.float32)
    look = look_of(thing.label)
    mask = np.clip(look.silhouette(u, v) * (radius * 0.8) + 0.5, 0, 1)[..., None]
    bright, dark = (np.array(color, np.float32) for color in thing.colors)
    paint = np.clip(
        (dark + (bright - dark) * look.texture(u, v)[..., None]) * (255 * light), 0, 255
    )
    patch = frame[y0:y1, x0:x1]
    patch[...] = patch + (paint - patch) * mask


def render_frame(scene: Scene, ground: Picture, at_seconds: float) -> Picture:
    """The picture at one moment, `[side, side, 3]` uint8; `ground` is `draw_ground(scene, side)`."""
    frame = ground.copy()
    for thing in scene.things:
        _paint(frame, thing, at_seconds, scene.light)
    return frame


def render_sound(scene: Scene, sample_rate_hz: int) -> Sound:
    """The whole sound, `[samples]` in -1..1: notes, echo, tilt, noise, loudness; never clipped."""
    rng = np.random.default_rng((*scene.key, 1))
    voice = voice_of(scene.label)
    samples = round(scene.seconds * sample_rate_hz)
    dry = np.zeros(samples, np.float32)
    for onset, length in scene.notes:
        start = round(onset * sample_rate_hz)
        bent = scene.pitch_hz * 2 ** rng.uniform(-0.25, 0.25)
        sound = note(voice, rng, bent, length, sample_rate_hz) * rng.uniform(0.6, 1.0)
        room = min(len(sound), len(dry) - start)
        dry[start : start + room] += sound[:room]
    tail = rng.standard_normal(sample_rate_hz).astype(np.float32)
    tail *= np.exp(
        -6.9 * np.arange(len(tail), dtype=np.float32) / sample_rate_hz / scene.echo_seconds
    )
    size = 1 << (len(dry) + len(tail)).bit_length()
    echo = np.fft.irfft(np.fft.rfft(dry, size) * np.fft.rfft(tail, size), size)[: len(dry)].astype(
        np.float32
    )
    wet = tilted(
        dry + echo * (scene.echo_mix * rms(dry) / rms(echo)), sample_rate_hz, scene.tilt_db
    )
    return leveled(
        with_noise(rng, wet, sample_rate_hz, scene.noise_db, scene.noise_color), scene.loudness_db
    )
