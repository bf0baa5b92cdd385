"""Sounds that belong to no frame: as loud as they should be, and of every kind."""

import numpy as np
import pytest

from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.empty_sounds import (
    EMPTY_SOUND_KINDS,
    HISS_DECIBELS,
    LOUDNESS_DECIBELS,
    draw_empty_sound,
)
from looklisten.media.levels import is_silent

SECOND = SAMPLE_RATE_HZ


def slope_decibels(waveform):
    """The power per hertz at 500 to 1,000 Hz over that at 4 to 8 kHz, in decibels."""
    power = np.abs(np.fft.rfft(waveform)) ** 2
    low, high = power[500:1000].mean(), power[4000:8000].mean()
    return 10 * np.log10(low / high)


def test_the_same_seed_gives_the_same_sound():
    assert np.array_equal(draw_empty_sound(3, SECOND), draw_empty_sound(3, SECOND))
    assert not np.array_equal(draw_empty_sound(3, SECOND), draw_empty_sound(4, SECOND))


def test_a_fifth_of_the_sounds_is_silent_and_no_other():
    sounds = [draw_empty_sound(seed, SECOND) for seed in range(200)]
    silent = [is_silent(sound) for sound in sounds]
    assert 1 / len(EMPTY_SOUND_KINDS) == pytest.approx(np.mean(silent), abs=0.08)
    assert HISS_DECIBELS[1] < LOUDNESS_DECIBELS[0]
    for sound, is_quiet in zip(sounds, silent, strict=True):
        loudness = 20 * np.log10(max(np.sqrt(np.mean((sound / 2.0**15) ** 2)), 1e-9))
        assert is_quiet or LOUDNESS_DECIBELS[0] - 1 < loudness < LOUDNESS_DECIBELS[1] + 1


def test_noise_is_white_pink_and_brown_and_hum_is_of_the_mains():
    slopes, hums = [], 0
    for seed in range(200):
        sound = draw_empty_sound(seed, SECOND)
        if is_silent(sound):
            continue
        power = np.abs(np.fft.rfft(sound)) ** 2
        if (
            power[:800].sum() > 0.999 * power.sum()
            and np.sort(power)[-12:].sum() > 0.9 * power.sum()
        ):
            hums += 1
            assert np.argmax(power) % 50 == 0 or np.argmax(power) % 60 == 0
        else:
            slopes.append(slope_decibels(sound))
    assert hums > 20
    # Three octaves: 0, 9 and 18 decibels.
    for slope in (0, 9, 18):
        assert sum(abs(found - slope) < 1.5 for found in slopes) > 20
    assert all(min(abs(found - slope) for slope in (0, 9, 18)) < 1.5 for found in slopes)


def test_too_short_a_sound_is_refused():
    assert len(draw_empty_sound(0, 2)) == 2
    with pytest.raises(ValueError, match="at least 2 samples, not 1"):
        draw_empty_sound(0, 1)
