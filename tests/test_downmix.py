"""Every channel of a sound can be read, and what is loud in a file is loud in the mix."""

import itertools

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SHARED, write_sound
from looklisten.data.cutting import cut
from looklisten.data.options import PrepareOptions
from looklisten.data.sources import Source
from looklisten.media.decode.decode import decode_audio, decode_media
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport
from looklisten.media.downmix import Mixer, mono_weights
from looklisten.media.waveform import ArrayResampler
from test_cutting import RATE, moving, write_video


def tone(seconds=1.5, hz=440.0, loudness=0.3):
    return (loudness * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(
        np.float32
    )


def noise(seconds=3.0, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def decoded_sound(path):
    report = DecodeReport()
    pieces = [sound.samples for sound in decode_media(path, DecodeOptions(video=False), report)]
    return np.concatenate(pieces), report


def power(samples):
    return float(np.mean(np.square(samples, dtype=np.float64)))


MANY_CHANNELS = {
    "AAC": ("a.m4a", "aac", "7.1"),
    "Opus": ("a.opus", "libopus", "7.1"),
    "FLAC": ("a.flac", "flac", "7.1"),
    "WavPack": ("a.wv", "wavpack", "7.1"),
    "eight planes of PCM": ("a.nut", "pcm_s16le_planar", "7.1"),
    "nine planes of PCM": ("a.nut", "pcm_s16le_planar", "9 channels"),
    "24 planes of PCM": ("a.nut", "pcm_s16le_planar", "24 channels"),
    "16 channels in turn": ("a.wav", "pcm_s16le", "hexadecagonal"),
}


@pytest.mark.parametrize("kind", MANY_CHANNELS)
def test_sound_of_many_channels_is_read(tmp_path, kind):
    """Each channel is the same tone at its own loudness, so the mix says whether all were read."""
    name, codec, layout = MANY_CHANNELS[kind]
    channels = av.AudioLayout(layout).channels
    loudness = np.linspace(0.1, 1.0, len(channels), dtype=np.float32)
    path = write_sound(tmp_path / name, tone()[:, None] * loudness, codec=codec, layout=layout)
    samples, report = decoded_sound(path)
    assert report.last_error == ""
    assert len(samples) == pytest.approx(1.5 * RATE, abs=2500)
    assert np.allclose(decode_audio(path)[5000:60_000], samples[5000:60_000])
    with av.open(path) as container:
        names = [
            channel.name for channel in container.streams.audio[0].codec_context.layout.channels
        ]
    wanted = 0.3 * float(mono_weights(names) @ loudness)
    assert np.sqrt(2 * power(samples[5000:60_000])) == pytest.approx(wanted, rel=0.15)


@pytest.mark.skipif(
    not SHARED.exists(),
    reason="this FFmpeg writes no Vorbis of eight channels, and the clip is not there",
)
def test_eight_planes_of_vorbis_are_read():
    samples, report = decoded_sound(SHARED / "faults" / "05_vorbis_7_1.ogg")
    assert report.last_error == ""
    assert np.abs(samples).max() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le", "pcm_u8"])
def test_channels_that_cancel_are_heard(tmp_path, codec):
    wave = noise()
    path = write_sound(tmp_path / "a.wav", np.stack([wave, -wave], 1), codec=codec, layout="stereo")
    samples, report = decoded_sound(path)
    assert np.abs(samples - wave).max() < (0.01 if codec == "pcm_u8" else 1e-3)
    assert report.flags == {"out-of-phase"}


@pytest.mark.parametrize("as_file", [True, False])
def test_an_offset_hides_no_cancellation_and_is_none(tmp_path, as_file):
    wave = noise()
    flags = []
    for channels in ((wave + 0.3, 0.3 - wave), (0 * wave - 0.6, 0 * wave + 0.5)):
        array = np.stack(channels, 1).astype(np.float32)
        if as_file:
            path = write_sound(tmp_path / "a.wav", array, layout="stereo")
            samples, report = decoded_sound(path)
            flags.append(report.flags)
        else:
            samples = resampled(array, RATE)
        right = channels[0].std()
        assert samples.std() == pytest.approx(right, abs=1e-3)
    if as_file:
        assert flags == [{"out-of-phase"}, set()]


def test_clips_of_channels_that_cancel_are_marked_and_not_silent(tmp_path):
    wave = noise()
    write_video(
        tmp_path / "a.mkv",
        moving(3),
        np.stack([wave, -wave]),
        audio_codec="pcm_s16le",
        layout="stereo",
    )
    clips = list(
        cut(
            tmp_path / "a.mkv",
            Source("a.mkv"),
            PrepareOptions(clip_seconds=1.0, min_clip_seconds=0.5),
        )
    )
    assert len(clips) == 3
    for clip in clips:
        assert "out-of-phase" in clip.marks
        assert "silent" not in clip.marks
        assert power(clip.waveform / 2**15) == pytest.approx(0.01, rel=0.1)


def resampled(array, rate):
    return np.concatenate(list(ArrayResampler(rate).push(array, is_last=True)))


COMMON = {
    "the same in both": lambda wave, other: (wave, wave),
    "independent": lambda wave, other: (wave, other),
    "on the left alone": lambda wave, other: (wave, 0 * wave),
    "on the right alone": lambda wave, other: (0 * wave, wave),
    "wide": lambda wave, other: (wave + other, wave - other),
    "a little inverted": lambda wave, other: (wave, -0.3 * wave),
    "silent": lambda wave, other: (1e-4 * wave, -1e-4 * wave),
}


@pytest.mark.parametrize("kind", COMMON)
def test_other_stereo_is_the_plain_mean_to_the_bit(tmp_path, kind):
    left, right = COMMON[kind](noise(), noise(seed=1))
    path = write_sound(tmp_path / "a.wav", np.stack([left, right], 1), layout="stereo")
    samples, report = decoded_sound(path)
    mean = np.float32(0.5) * left + np.float32(0.5) * right
    assert np.array_equal(samples, mean)
    assert report.flags == set()
    assert np.array_equal(resampled(np.stack([left, right], 1), RATE), mean)


def test_one_channel_of_a_surround_sound_is_no_cancellation(tmp_path):
    """Dialogue in the center alone has a sixth of its energy in the mix. That is its weight, and
    nothing is lost.
    """
    names = [channel.name for channel in av.AudioLayout("5.1").channels]
    for number, name in enumerate(names):
        wave = np.zeros((RATE, 6), np.float32)
        wave[:, number] = tone(1.0)
        mixer = Mixer(tuple(names), RATE)
        mix = mixer.mix(list(np.ascontiguousarray(wave.T)))
        assert np.allclose(mix, mono_weights(names)[number] * tone(1.0), atol=1e-6), name
        assert not mixer.was_out_of_phase


def test_where_only_a_part_cancels_both_parts_are_heard(tmp_path):
    wave = noise(6.0)
    right = np.concatenate([wave[: 3 * RATE], -wave[3 * RATE :]])
    for name, other in (("late.wav", right), ("early.wav", -right)):
        path = write_sound(tmp_path / name, np.stack([wave, other], 1), layout="stereo")
        samples, report = decoded_sound(path)
        seconds = samples.reshape(6, RATE)
        away_from_the_change = [0, 1, 4, 5]
        assert all(
            power(seconds[number]) == pytest.approx(0.01, rel=0.1)
            for number in away_from_the_change
        )
        assert (
            np.abs(np.diff(samples)).max() <= np.abs(np.diff(wave)).max() * 1.5
        )  # it fades, and does not click
        assert report.flags == {"out-of-phase"}


def test_of_ambisonics_the_first_channel_is_taken():
    """A source behind: what the other channels hold is the sound inverted, and the mean of all is
    silence.
    """
    wave = tone()
    behind = np.stack([wave, 0 * wave, 0 * wave, -wave])
    for names in (("AMBI0", "AMBI1", "AMBI2", "AMBI3"), ("NONE",) * 4):
        assert np.allclose(Mixer(names, RATE).mix(list(behind)), wave, atol=1e-6)
    front = np.stack([wave, 0 * wave, 0 * wave, wave])
    assert np.allclose(
        Mixer(("AMBI0", "AMBI1", "AMBI2", "AMBI3"), RATE).mix(list(front)), wave, atol=1e-6
    )


def test_four_channels_without_names_are_averaged_unless_they_cancel():
    """Of four microphones the mean is right. A first channel with nothing in it takes nobody's
    place.
    """
    wave = tone()
    assert np.allclose(Mixer(("NONE",) * 4, RATE).mix([wave, wave, wave, wave]), wave, atol=1e-6)
    empty_first = [0 * wave, wave, 0 * wave, -wave]
    assert np.allclose(Mixer(("NONE",) * 4, RATE).mix(empty_first), wave, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 150_000), max_size=8),
    rate=st.sampled_from([RATE, 16_000]),
    inverted=st.lists(st.booleans(), min_size=1, max_size=4),
    channels=st.sampled_from([1, 2, 4]),
)
def test_an_array_in_pieces_is_the_array(cuts, rate, inverted, channels):
    """Whatever cancels where: the mono sound does not depend on how it is cut."""
    wave = np.random.default_rng(0).normal(0, 0.1, len(inverted) * rate + 777).astype(np.float32)
    signs = np.repeat(np.where(inverted, -1.0, 1.0), rate)
    signs = np.concatenate([signs, np.full(777, signs[-1])]).astype(np.float32)
    array = np.stack([wave, signs * wave, *([0 * wave] * (channels - 2))], 1)[:, :channels]
    whole = resampled(array, rate)
    stream = ArrayResampler(rate, first_is_time=True)
    places = [0, *sorted(place for place in cuts if place < len(array)), len(array)]
    pieces = []
    for start, stop in itertools.pairwise(places):
        pieces.extend(stream.push(array[start:stop]))
    pieces.extend(stream.push(is_last=True))
    assert np.array_equal(np.concatenate(pieces), whole)
    assert power(whole) > 0.001 * power(wave)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float64"])
def test_arrays_that_cancel_are_heard_in_every_type(dtype):
    wave = tone()
    array = np.stack([wave, -wave], 1)
    if dtype == "int16":
        array = np.rint(array * 2**15).astype(np.int16)
    elif dtype == "uint8":
        array = np.rint(array * 127 + 128).astype(np.uint8)
    else:
        array = array.astype(np.float64)
    assert resampled(array, RATE) == pytest.approx(wave, abs=0.01)
