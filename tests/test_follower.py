"""Where blocks of sound go: after their samples while timestamps oscillate, by their timestamps
where those agree.
"""

from fractions import Fraction

import av
import numpy as np
import pytest

from looklisten.media.decode.decode import decode_audio, decode_media
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.placement import BlockPlacer
from looklisten.media.decode.records import DecodeReport
from looklisten.media.isolation.readers import redraw_video

RATE, BLOCK = 48_000, 1024


def placed(times):
    """What becomes of blocks of sound with these times: the first place and the shifts in
    milliseconds.
    """
    follower = BlockPlacer()
    found = [one for at in times for one in follower.feed(at, BLOCK, RATE, None)] + list(
        follower.finish()
    )
    assert len(found) == len(times)
    starts = [one.start_seconds for one in found if one.start_seconds is not None]
    return starts, {
        number: round(one.shift_samples / RATE * 1000, 1)
        for number, one in enumerate(found)
        if one.shift_samples
    }


def even(count, start_seconds=0.0):
    return start_seconds + np.arange(count) * BLOCK / RATE


@pytest.mark.parametrize("wobble_seconds", [0.008, 0.012, 0.015, 0.020, 0.040])
def test_sound_follows_its_samples_while_timestamps_oscillate(wobble_seconds):
    for seed in range(20):
        times = even(400) + np.random.default_rng(seed).uniform(
            -wobble_seconds, wobble_seconds, 400
        )
        starts, shifts = placed(times)
        assert shifts == {}
        assert starts == [pytest.approx(0.0, abs=0.021)]


@pytest.mark.parametrize("lost", [1, 2, 6])
@pytest.mark.parametrize("wobble_seconds", [0.0, 0.020])
def test_lost_packets_become_silence(lost, wobble_seconds):
    times = np.delete(even(200), np.s_[100 : 100 + lost])
    times += np.random.default_rng(0).uniform(-wobble_seconds, wobble_seconds, len(times))
    starts, shifts = placed(times)
    missing_ms = lost * BLOCK / RATE * 1000
    assert len(starts) == 1
    if wobble_seconds == 0.0:
        assert shifts == {100: pytest.approx(missing_ms, abs=0.1)}
    elif missing_ms > 100:
        assert sum(shifts.values()) == pytest.approx(missing_ms, abs=40)
        assert min(shifts) in range(97, 104)


def test_an_overlap_is_cut_and_a_long_hole_parts_the_sound():
    starts, shifts = placed(np.concatenate([even(100), even(100, 100 * BLOCK / RATE - 0.3)]))
    assert sum(shifts.values()) == pytest.approx(-300, abs=11)
    assert len(starts) == 1
    starts, shifts = placed(np.concatenate([even(100), even(100, 9.0)]))
    assert (starts, shifts) == ([0.0, pytest.approx(9.0)], {})


def test_a_single_wrong_timestamp_moves_nothing():
    for wrong_seconds in (-5.0, 0.5, 5.0):
        times = even(200)
        times[100] += wrong_seconds
        assert placed(times) == ([0.0], {})


def test_a_clock_that_runs_slowly_away_is_followed():
    starts, shifts = placed(even(6000) * 1.0002)
    assert starts == [0.0]
    assert sum(shifts.values()) == pytest.approx(6000 * BLOCK / RATE * 0.2, abs=12)


def write_wobbling(path, wobble_ms):
    """A tone and a gray picture of six seconds; the sound is stamped by a clock that errs by up to
    `wobble_ms`.
    """
    rng = np.random.default_rng(0)
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(6 * RATE) / RATE) * 2**15).astype(np.int16)
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", 25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio = container.add_stream("pcm_s16le", RATE, layout="mono")
        for number in range(150):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number, np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for begin in range(0, len(tone), 960):
            frame = av.AudioFrame.from_ndarray(tone[None, begin : begin + 960], "s16", "mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), begin
            for packet in audio.encode(frame):
                packet.time_base = Fraction(1, 1000)
                packet.dts = begin // 48
                packet.pts = packet.dts + wobble_ms + round(rng.uniform(-wobble_ms, wobble_ms))
                container.mux(packet)


def purity(sound):
    """How much of the energy of a sound's middle is that of its 440 Hz tone."""
    middle = sound[RATE : 4 * RATE] * np.hanning(3 * RATE)
    power = np.abs(np.fft.rfft(middle)) ** 2
    return power[1290:1351].sum() / power.sum()


@pytest.mark.parametrize("wobble_ms", [12, 15, 20, 40])
def test_sound_stamped_by_the_wall_clock_is_read_and_redrawn_clean(tmp_path, wobble_ms):
    write_wobbling(tmp_path / "a.mkv", wobble_ms)
    assert purity(decode_audio(tmp_path / "a.mkv")) > 0.99999
    report = DecodeReport()
    pieces = [
        sound.samples
        for sound in decode_media(tmp_path / "a.mkv", DecodeOptions(video=False), report)
    ]
    assert purity(np.concatenate(pieces)) > 0.99999
    assert report.lost_seconds == {}

    def copy(_at_seconds, picture, canvas):
        for target, plane in zip(canvas, picture, strict=True):
            target[:] = plane

    redraw_video(tmp_path / "a.mkv", tmp_path / "out.mp4", (64, 64), (64, 64), copy)
    assert purity(decode_audio(tmp_path / "out.mp4")) > 0.9999
