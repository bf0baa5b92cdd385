"""One video of the world as a record, and its frames and sound.

Size, position, rotation, motion, background, clutter, light, pitch, loudness, tempo, noise, echo
and spectral tilt are random in the same way for every class, so none of them tells the class. Only
shape and voice do. Knows no file.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from looklisten.media.synth import random_classes
from looklisten.media.synth.shapes import SHAPES, Color, Plane, Shape
from looklisten.media.synth.sound_effects import (
    SoundArray,
    fast_size,
    leveled,
    rms,
    tilted,
    with_noise,
)
from looklisten.media.synth.voices import VOICES, Voice, note

CLASSES = tuple(SHAPES)
"""The twelve fixed classes."""

FrameArray = NDArray[np.uint8]
"""One frame, `[side, side, 3]`, RGB."""

RADIUS_RANGE = (0.12, 0.24)
"""Radii of objects, as fractions of the frame's side."""

# Objects of random classes fill the frame. At smaller sizes the vision tower learned them so slowly
# that the audio tower learned nothing (LOG.md, 2026-11-24).
RANDOM_CLASS_RADIUS_RANGE = (0.32, 0.44)

MIN_COLOR_DISTANCE = 0.6
"""Two colors closer than this, summed over red, green and blue, hide a texture."""

MIN_GAP = 0.9
"""Two objects keep at least this much of the sum of their radii between their centers."""


def shape_of(label: str) -> Shape:
    """The shape of a fixed or random class."""
    if label.startswith(random_classes.PREFIX):
        return random_classes.random_shape(label)
    return SHAPES[label]


def voice_of(label: str) -> Voice:
    """The voice of a fixed or random class."""
    if label.startswith(random_classes.PREFIX):
        return random_classes.random_voice(label)
    return VOICES[label]


@dataclass(frozen=True)
class SceneObject:
    """One object on its path. Lengths are fractions of the frame's side, angles are radians."""

    label: str
    sounding: bool
    radius: float
    center: tuple[float, float]
    """The middle of the path."""
    swing: tuple[float, float]
    """How far the object moves from there, in x and y."""
    swing_seconds: tuple[float, float]
    """The periods of the movement in x and y."""
    phase: tuple[float, float]
    angle: float
    turn_per_second: float
    squash: float
    """Height of the object as a share of its width."""
    colors: tuple[Color, Color]

    def center_at(self, at_seconds: float) -> tuple[float, float]:
        """(x, y) of the center at one time."""
        position = []
        for axis in (0, 1):
            angle = 2 * np.pi * at_seconds / self.swing_seconds[axis] + self.phase[axis]
            position.append(float(self.center[axis] + self.swing[axis] * np.sin(angle)))
        return position[0], position[1]

    def box(self, at_seconds: float) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) in 0..1: the square around the disc that holds the silhouette."""
        x, y = self.center_at(at_seconds)
        corners = (x - self.radius, y - self.radius, x + self.radius, y + self.radius)
        x0, y0, x1, y1 = np.clip(corners, 0, 1).tolist()
        return x0, y0, x1, y1


@dataclass(frozen=True)
class Scene:
    """One video: its objects, of which the first sounds, its background and its sound."""

    key: tuple[int, ...]
    """The seed of everything that is random in the video."""
    seconds: float
    split: str
    background: tuple[int, ...]
    """The seed of the background, which several videos of one split share."""
    objects: tuple[SceneObject, ...]
    pitch_hz: float
    notes: tuple[tuple[float, float], ...]
    """(onset, length) of each note, in seconds."""
    loudness_db: float
    noise_db: float
    noise_slope: float
    tilt_db: float
    echo_seconds: float
    echo_mix: float
    light: float

    @property
    def label(self) -> str:
        return self.objects[0].label


def _random_color(rng: np.random.Generator) -> Color:
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.9), rng.uniform(0.15, 1.0))


def _two_colors(rng: np.random.Generator) -> tuple[Color, Color]:
    """Two colors far enough apart for a texture of them to be visible."""
    while True:
        first = _random_color(rng)
        second = _random_color(rng)
        if abs(sum(first) - sum(second)) > MIN_COLOR_DISTANCE:
            return first, second


def _random_object(rng: np.random.Generator, label: str, sounding: bool) -> SceneObject:
    is_random_class = label.startswith(random_classes.PREFIX)
    radius = rng.uniform(*(RANDOM_CLASS_RADIUS_RANGE if is_random_class else RADIUS_RANGE))
    free_space = 1 - 2 * radius
    # At most a third of the free space, so that an object never leaves the frame.
    swing = (
        rng.uniform(0.02, 0.35) * free_space / 2,
        rng.uniform(0.02, 0.35) * free_space / 2,
    )
    return SceneObject(
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
        colors=shape_of(label).colors or _two_colors(rng),
    )


def _keep_apart(first: SceneObject, second: SceneObject) -> bool:
    """Whether two objects never come closer than `MIN_GAP`, wherever they are on their paths."""
    distance = np.hypot(*(np.array(first.center) - np.array(second.center)))
    closest = distance - np.hypot(*first.swing) - np.hypot(*second.swing)
    return bool(closest > MIN_GAP * (first.radius + second.radius))


def random_scene(
    key: tuple[int, ...],
    label: str,
    split: str,
    background: tuple[int, ...],
    seconds: float,
    silent_share: float,
    classes: Sequence[str] = CLASSES,
) -> Scene:
    """A scene of class `label`, which is one of `classes`; the same `key` gives the same scene."""
    # Both paths are random until they keep apart.
    rng = np.random.default_rng(key)
    objects: tuple[SceneObject, ...] = (_random_object(rng, label, sounding=True),)
    if rng.random() < silent_share:
        other = str(rng.choice([name for name in classes if name != label]))
        while len(objects) < 2 or not _keep_apart(objects[0], objects[1]):
            objects = (
                _random_object(rng, label, sounding=True),
                _random_object(rng, other, sounding=False),
            )
    # The order of these lines is the order of the random numbers: it must not change.
    return Scene(
        key=key,
        seconds=seconds,
        split=split,
        background=background,
        objects=objects,
        pitch_hz=float(np.exp(rng.uniform(np.log(180), np.log(900)))),
        notes=voice_of(label).rhythm(rng, rng.uniform(1.8, 4.0), seconds),
        loudness_db=rng.uniform(-32, -14),
        noise_db=rng.uniform(-22, -3),
        noise_slope=rng.uniform(0, 1.6),
        tilt_db=rng.uniform(-5, 5),
        echo_seconds=rng.uniform(0.1, 0.7),
        echo_mix=rng.uniform(0, 0.5),
        light=rng.uniform(0.65, 1.25),
    )


def _smooth_noise(rng: np.random.Generator, side: int, cells: int) -> Plane:
    """Smooth values from about 0 to 1: a random grid of `cells` cells, joined by B-splines."""
    grid = rng.random((cells + 3, cells + 3))
    positions = np.linspace(0, cells, side, endpoint=False)
    index = positions.astype(int)
    t = positions % 1
    # The four cubic B-spline weights of each position.
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    rows = np.zeros((side, cells + 3))
    rows[np.arange(side)[:, None], index[:, None] + np.arange(4)] = np.stack(weights, 1) / 6
    return (rows @ grid @ rows.T).astype(np.float32)


def background_colors(key: tuple[int, ...], side: int) -> NDArray[np.float32]:
    """A textured, cluttered background, `[side, side, 3]` in 0..1.

    The same `key` gives the same background at every size.
    """
    rng = np.random.default_rng(key)
    medium_weight = rng.uniform(0, 0.7)
    fine_weight = rng.uniform(0, 0.5)
    field = _smooth_noise(rng, side, 3)
    field = field + _smooth_noise(rng, side, 9) * medium_weight
    field = field + _smooth_noise(rng, side, 40) * fine_weight
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    angle = rng.uniform(0, np.pi)
    frequency = rng.uniform(15, 90)
    stripes = np.sin(frequency * (x * np.cos(angle) + y * np.sin(angle)) + 4 * field)
    field = field + rng.uniform(0, 0.4) * stripes
    field = (field - field.min()) / np.ptp(field)
    dark, bright = (np.array(color, np.float32) for color in _two_colors(rng))
    colors = dark + (bright - dark) * field[..., None].astype(np.float32)
    for _ in range(rng.integers(4, 14)):
        _add_clutter(rng, colors, x, y)
    return colors


def _add_clutter(rng: np.random.Generator, colors: NDArray[np.float32], x: Plane, y: Plane) -> None:
    """Draw one bar or blob, which belongs to no class, into `colors` in place."""
    side = colors.shape[0]
    center_x = rng.random()
    center_y = rng.random()
    turn = rng.uniform(0, np.pi)
    half_length = rng.uniform(0.02, 0.14)
    half_width = rng.uniform(0.01, 0.06)
    power = rng.choice([2, 8])  # an ellipse or a rounded rectangle
    color = np.array(_random_color(rng), np.float32)
    # Only this square is computed, which holds the clutter at any angle.
    margin = 1.5 * max(half_length, half_width)
    rows = slice(max(int((center_y - margin) * side), 0), int((center_y + margin) * side) + 2)
    columns = slice(max(int((center_x - margin) * side), 0), int((center_x + margin) * side) + 2)
    across = x[rows, columns] - center_x
    down = y[rows, columns] - center_y
    u = across * np.cos(turn) + down * np.sin(turn)
    v = down * np.cos(turn) - across * np.sin(turn)
    distance = np.abs(u / half_length) ** power + np.abs(v / half_width) ** power
    inside = np.clip((1 - distance) * half_width * side + 0.5, 0, 1)[..., None]
    colors[rows, columns] += (color - colors[rows, columns]) * inside.astype(np.float32)


def render_background(scene: Scene, side: int) -> FrameArray:
    """The frame without its objects, `[side, side, 3]` uint8."""
    return _to_bytes(background_colors(scene.background, side), scene.light)


def _to_bytes(colors: Plane, light: float) -> FrameArray:
    return np.clip(colors * (255 * light), 0, 255).astype(np.uint8)


def _draw_object(
    frame: FrameArray, scene_object: SceneObject, at_seconds: float, light: float
) -> None:
    """Draw one object into `frame` `[side, side, 3]` in place."""
    side = frame.shape[0]
    center_x, center_y = (axis * side for axis in scene_object.center_at(at_seconds))
    radius = scene_object.radius * side
    # Only the square around the object is computed.
    x0, x1 = max(int(center_x - radius), 0), min(int(center_x + radius) + 2, side)
    y0, y1 = max(int(center_y - radius), 0), min(int(center_y + radius) + 2, side)
    x = ((np.arange(x0, x1, dtype=np.float32) - center_x) / radius)[None]
    y = ((np.arange(y0, y1, dtype=np.float32) - center_y) / radius)[:, None]
    angle = scene_object.angle + scene_object.turn_per_second * at_seconds
    u = (x * np.cos(angle) + y * np.sin(angle)).astype(np.float32)
    v = ((y * np.cos(angle) - x * np.sin(angle)) / scene_object.squash).astype(np.float32)
    shape = shape_of(scene_object.label)
    # The silhouette falls linearly at its edge, which gives soft edges of about a pixel.
    opacity = np.clip(shape.silhouette(u, v) * (radius * 0.8) + 0.5, 0, 1)[..., None]
    bright, dark = (np.array(color, np.float32) for color in scene_object.colors)
    colors = dark + (bright - dark) * shape.texture(u, v)[..., None]
    paint = np.clip(colors * (255 * light), 0, 255)
    patch = frame[y0:y1, x0:x1]
    patch[...] = patch + (paint - patch) * opacity


def render_frame(scene: Scene, background: FrameArray, at_seconds: float) -> FrameArray:
    """The frame at one time, `[side, side, 3]` uint8.

    `background` is `render_background(scene, side)`, the same for all frames of a video.
    """
    frame = background.copy()
    for scene_object in scene.objects:
        _draw_object(frame, scene_object, at_seconds, scene.light)
    return frame


def render_sound(scene: Scene, sample_rate_hz: int) -> SoundArray:
    """The sound of the video, `[samples]` in -1..1: notes, echo, tilt, noise; never clipped."""
    # Another seed than that of the scene, so that the notes do not repeat its random numbers.
    rng = np.random.default_rng((*scene.key, 1))
    voice = voice_of(scene.label)
    dry = np.zeros(round(scene.seconds * sample_rate_hz), np.float32)
    for onset, length in scene.notes:
        start = round(onset * sample_rate_hz)
        # A quarter of an octave up or down, so that no note repeats exactly.
        pitch_hz = scene.pitch_hz * 2 ** rng.uniform(-0.25, 0.25)
        sound = note(voice, rng, pitch_hz, length, sample_rate_hz) * rng.uniform(0.6, 1.0)
        # The last notes may ring out beyond the end of the video.
        fitting = min(len(sound), len(dry) - start)
        dry[start : start + fitting] += sound[:fitting]
    echo = _echo(rng, dry, sample_rate_hz, scene.echo_seconds)
    mixed = dry + echo * (scene.echo_mix * rms(dry) / rms(echo))
    wet = tilted(mixed, sample_rate_hz, scene.tilt_db)
    noisy = with_noise(rng, wet, sample_rate_hz, scene.noise_db, scene.noise_slope)
    return leveled(noisy, scene.loudness_db)


def _echo(
    rng: np.random.Generator, dry: SoundArray, sample_rate_hz: int, echo_seconds: float
) -> SoundArray:
    """The reverberation of a room: the sound convolved with noise that decays.

    `echo_seconds` is the time in which the echo falls by 60 dB.
    """
    tail = rng.standard_normal(sample_rate_hz, dtype=np.float32)
    # exp(-6.9) is -60 dB.
    tail *= np.exp(-6.9 * np.arange(len(tail), dtype=np.float32) / sample_rate_hz / echo_seconds)
    # Padded, so that the convolution does not wrap around.
    size = fast_size(len(dry) + len(tail))
    spectrum = fft.rfft(dry, size) * fft.rfft(tail, size)
    echo: SoundArray = fft.irfft(spectrum, size)[: len(dry)]
    return echo
