"""Wild kinds: each a look and a voice of its own, the same from its number each time, in sounds
that are fit to learn from.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looklisten.errors import ConfigError
from looklisten.media.synth.scenes import draw_ground, look_of, render_frame, render_sound, voice_of
from looklisten.media.synth.wild import names, wild_voice
from looklisten.media.synth.world import World

WORLD = World(videos=120, seconds=1.5, side_pixels=64, frames_per_second=5, wild_kinds=20)


def test_kinds_are_balanced_and_named_by_their_number():
    labels = [WORLD.scene(index).label for index in range(40)]
    assert labels == [*names(20), *names(20)]
    assert WORLD.scene(3).things[0].colors == WORLD.scene(23).things[0].colors
    assert len({look_of(name).colors for name in names(20)}) == 20


def test_a_kind_is_the_same_in_every_process_and_another_number_is_another_kind():
    first, other = voice_of("wild-0007"), voice_of("wild-0008")
    wild_voice.cache_clear()
    again = voice_of("wild-0007")
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


def test_soundings_of_one_kind_are_nearer_to_each_other_than_to_other_kinds():
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
def test_every_sound_is_finite_heard_and_never_clips(kind, seed):
    wave = render_sound(
        World(videos=401, seed=seed, seconds=1.0, wild_kinds=401).scene(kind), 48_000
    )
    assert np.isfinite(wave).all()
    assert 0.005 < np.abs(wave).max() < 0.99


def test_the_thing_is_in_the_picture_inside_its_box():
    for index in range(20):
        scene = WORLD.scene(index)
        ground = draw_ground(scene, 64)
        changed = (
            np.abs(render_frame(scene, ground, 0.2).astype(int) - ground.astype(int)).sum(2) > 12
        )
        (thing,) = scene.things
        x0, y0, x1, y1 = thing.box(0.2)
        inside = np.zeros((64, 64), bool)
        inside[int(y0 * 64) : int(y1 * 64) + 2, int(x0 * 64) : int(x1 * 64) + 2] = True
        assert changed.sum() > 200
        assert not (changed & ~inside).any()


def test_one_kind_makes_no_world():
    with pytest.raises(ConfigError, match="at least 2"):
        World(wild_kinds=1)
