"""Random classes: each has a shape and a voice that its number determines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looklisten.errors import ConfigError
from looklisten.media.synth.options import WorldOptions
from looklisten.media.synth.random_classes import class_names, random_voice
from looklisten.media.synth.scenes import (
    render_background,
    render_frame,
    render_sound,
    shape_of,
    voice_of,
)
from looklisten.media.synth.world import World

WORLD = World(
    WorldOptions(videos=120, seconds=1.5, side_pixels=64, frames_per_second=5, random_classes=20)
)


def test_classes_are_balanced_and_named_by_their_number():
    labels = [WORLD.scene(index).label for index in range(40)]
    assert labels == [*class_names(20), *class_names(20)]
    assert WORLD.scene(3).objects[0].colors == WORLD.scene(23).objects[0].colors
    assert len({shape_of(name).colors for name in class_names(20)}) == 20


def test_the_number_alone_determines_a_class():
    first, other = voice_of("random-0007"), voice_of("random-0008")
    random_voice.cache_clear()
    again = voice_of("random-0007")
    t = np.arange(24_000, dtype=np.float32) / 48_000
    notes = [
        voice.timbre(np.random.default_rng(1), 400.0, t, 0.4) for voice in (first, again, other)
    ]
    assert np.array_equal(notes[0], notes[1])
    assert not np.allclose(notes[0], notes[2])


def spectrum(number, index):
    wave = render_sound(WORLD.scene(number + 20 * index), 48_000)
    bands = np.array_split(
        np.abs(np.fft.rfft(wave)) ** 2, np.geomspace(40, len(wave) // 2, 24).astype(int)
    )
    return np.log([band.mean() for band in bands])


def test_sounds_of_one_class_are_more_alike_than_sounds_of_two():
    profile = np.array([[spectrum(number, index) for index in range(3)] for number in range(12)])
    profile -= profile.mean((0, 1))
    same = np.mean([np.corrcoef(p[0], p[1])[0, 1] for p in profile])
    different = np.mean(
        [
            np.corrcoef(profile[a, 0], profile[b, 1])[0, 1]
            for a in range(12)
            for b in range(12)
            if a != b
        ]
    )
    assert same > different + 0.3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 400), st.integers(0, 1000))
def test_sounds_are_finite_loud_enough_and_never_clip(class_number, seed):
    options = WorldOptions(videos=401, seed=seed, seconds=1.0, random_classes=401)
    wave = render_sound(World(options).scene(class_number), 48_000)
    assert np.isfinite(wave).all()
    assert 0.005 < np.abs(wave).max() < 0.99


def test_the_object_is_inside_its_box():
    for index in range(20):
        scene = WORLD.scene(index)
        background = render_background(scene, 64)
        difference = render_frame(scene, background, 0.2).astype(int) - background.astype(int)
        changed = np.abs(difference).sum(2) > 12
        (scene_object,) = scene.objects
        x0, y0, x1, y1 = scene_object.box(0.2)
        inside = np.zeros((64, 64), bool)
        inside[int(y0 * 64) : int(y1 * 64) + 2, int(x0 * 64) : int(x1 * 64) + 2] = True
        assert changed.sum() > 200
        assert not (changed & ~inside).any()


def test_one_class_is_refused():
    with pytest.raises(ConfigError, match="at least 2"):
        WorldOptions(random_classes=1)
