"""No second is lost in silence: clips and what is counted by reason make up the longer of picture
and sound.
"""

from fractions import Fraction

import av
import numpy as np
import pytest
import simplejpeg

import looklisten as ll
from conftest import clock_frame, read_clock, write_clock_video, write_sound
from cut_files import clips_and_report
from looklisten.errors import SourceError
from looklisten.media.decode.decode import decode_audio
from looklisten.media.decode.records import AUDIO_HOLE, DecodeReport
from looklisten.media.levels import is_silent

RATE = 48_000


def write_video(path, frame_times, sounds, last_frame_seconds=0.04):
    """Frames of the clock at `frame_times`, and noise over each (begin, end) of `sounds`; times in
    seconds.
    """
    rng = np.random.default_rng(0)
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", 25)
        video.width = video.height = 256
        video.pix_fmt, video.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        video.codec_context.max_b_frames = 0
        audio = container.add_stream(
            "pcm_s16le" if path.suffix == ".mkv" else "aac", RATE, layout="mono"
        )
        ticks = [round(at * 1000) for at in frame_times]
        last = round(last_frame_seconds * 1000)
        pictures, waves = [], []
        for at in ticks:
            frame = av.VideoFrame.from_ndarray(clock_frame(at), "rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            pictures += video.encode(frame)
        pictures += video.encode(None)
        for packet, duration in zip(pictures, [*np.diff(ticks).tolist(), last], strict=True):
            packet.duration = duration
        kind = audio.codec_context.format.name
        for begin, end in sounds:
            for start in range(round(begin * RATE), round(end * RATE), 1024):
                samples = rng.normal(0, 0.1, (1, 1024)).astype(np.float32)
                stored = (samples * 2**15).astype(np.int16) if kind == "s16" else samples
                frame = av.AudioFrame.from_ndarray(stored, kind, "mono")
                frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), start
                waves += audio.encode(frame)
        waves += audio.encode(None)
        for packet in sorted([*pictures, *waves], key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)


def steady(begin, end):
    return np.arange(begin, end, 0.04)


FILES = {
    "clean": (steady(0, 10), [(0, 10)], {}),
    "sound ends early": (steady(0, 8), [(0, 3)], {"picture without sound": 5}),
    "picture ends early": (steady(0, 3), [(0, 8)], {"sound after the picture ends": 5}),
    "sound begins late": (steady(0, 8), [(3, 8)], {"picture without sound": 3}),
    "picture begins late": (steady(3, 8), [(0, 8)], {"sound before the picture begins": 3}),
    "a hole in the sound": (steady(0, 9), [(0, 3), (5, 9)], {"picture without sound": 2}),
    "a rest": (steady(0, 10.8), [(0, 10.8)], {"shorter than a clip": 0.8}),
    "too short": (steady(0, 0.8), [(0, 0.8)], {"shorter than a clip": 0.8}),
    "apart": (
        steady(0, 3),
        [(5, 8)],
        {"picture without sound": 3, "sound after the picture ends": 3},
    ),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_clips_and_lost_seconds_make_up_the_file(kind, suffix, tmp_path):
    times, sounds, lost = FILES[kind]
    path = tmp_path / f"a{suffix}"
    write_video(path, times, sounds)
    clips, report = clips_and_report(path)
    assert report.lost_seconds == {
        reason: pytest.approx(seconds, abs=0.1) for reason, seconds in lost.items()
    }
    present = np.zeros(2000, bool)
    for begin, end in [(times[0], times[-1] + 0.04), *sounds]:
        present[round(begin * 100) : round(end * 100)] = True
    accounted = sum(clip.duration_seconds for clip in clips) + sum(report.lost_seconds.values())
    assert accounted == pytest.approx(present.sum() / 100, abs=0.2)


SLIDES = np.array([0.0, 0.04, 0.08, 7.0, 7.04, 11.0])
"""A screen recording: pictures are written only where they change."""


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_picture_stays_until_the_next_one(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_video(path, SLIDES, [(0, 12)], last_frame_seconds=1.0)
    clips, report = clips_and_report(path, clip_seconds=2.0)
    assert [round(clip.start_seconds) for clip in clips][:5] == [0, 2, 4, 6, 8]
    for clip in clips:
        assert clip.frame_seconds[0] == pytest.approx(0.0, abs=0.001)
        for at, jpeg in zip(clip.frame_seconds, clip.frames, strict=True):
            due = SLIDES[clip.start_seconds + at + 0.03 >= SLIDES]
            shown = read_clock(simplejpeg.decode_jpeg(jpeg, "RGB"))
            assert shown == pytest.approx(
                due.max() if at == 0 and clip.start_seconds else shown, abs=0.002
            )
            assert shown in SLIDES.round(3)
    accounted = sum(clip.duration_seconds for clip in clips) + sum(report.lost_seconds.values())
    assert accounted == pytest.approx(12.0, abs=0.15)
    if suffix == ".mp4":  # the track says how long the last picture is shown
        assert sum(clip.duration_seconds for clip in clips) == pytest.approx(12.0, abs=0.15)


def test_a_stretch_begins_with_the_picture_that_is_on_screen(tmp_path):
    write_video(tmp_path / "a.mp4", SLIDES, [(0, 12)], last_frame_seconds=1.0)
    (clip,), _ = clips_and_report(tmp_path / "a.mp4", 3.5, 6.5)
    assert (clip.start_seconds, clip.duration_seconds) == (pytest.approx(3.5), pytest.approx(3.0))
    assert clip.frame_seconds == (0.0,)
    assert read_clock(simplejpeg.decode_jpeg(clip.frames[0], "RGB")) == pytest.approx(
        0.08, abs=0.002
    )


def test_sound_that_pauses_for_long_is_one_sentence(tmp_path):
    write_video(tmp_path / "late.mkv", steady(0, 1), [(3700, 3702)])
    with pytest.raises(SourceError, match=r"its sound begins only at 3700 s; cut the file there"):
        decode_audio(tmp_path / "late.mkv")
    write_video(tmp_path / "hole.mkv", steady(0, 1), [(0, 2), (3700, 3702)])
    with pytest.raises(
        SourceError, match=r"its sound stops at 2 s and continues at 3700 s; cut the file there"
    ):
        decode_audio(tmp_path / "hole.mkv")
    write_video(tmp_path / "short.mkv", steady(0, 1), [(0, 2), (500, 502)])
    assert len(decode_audio(tmp_path / "short.mkv")) == pytest.approx(502 * RATE, abs=1100)


def test_the_picture_may_go_on_long_after_the_sound(tmp_path):
    """More picture without sound than is held in memory is no break."""
    write_video(tmp_path / "a.mkv", np.arange(0, 700, 0.5), [(0, 5)])
    clips, report = clips_and_report(tmp_path / "a.mkv")
    assert report.stop_reason == ""
    assert sum(clip.duration_seconds for clip in clips) == pytest.approx(5.0, abs=0.05)
    assert report.lost_seconds == {"picture without sound": pytest.approx(695, abs=1)}


def test_an_offset_is_no_sound(tmp_path):
    wave = np.full(3 * RATE, 2000, np.int16)
    assert is_silent(wave)
    wave[RATE : RATE + 4800] += (1000 * np.sin(np.arange(4800) / 10)).astype(np.int16)
    assert not is_silent(wave)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.opus"])
def test_probe_and_embed_read_the_same_samples(tmp_path, name):
    from looklisten.media.waveform import read_waveform_chunks as in_pieces

    codec = {"a.wav": "pcm_s16le", "a.flac": "flac", "a.opus": "libopus"}[name]
    wave = np.random.default_rng(0).normal(0, 0.1, 5 * RATE).astype(np.float32)
    path = write_sound(tmp_path / name, wave, codec=codec)
    sound = decode_audio(path)
    assert len(sound) == 5 * RATE
    assert (sound == np.concatenate(list(in_pieces(path, DecodeReport())))).all()


def test_damage_is_not_counted_before_the_wanted_start(tmp_path):
    """Decoding begins a second or more before a clip; damage there is not counted for the clip."""
    path = tmp_path / "a.mkv"
    write_clock_video(path, seconds=6.0, audio_codec="ac3")
    data = bytearray(path.read_bytes())
    with av.open(path) as container:
        for packet in container.demux(audio=0):
            if packet.size and 2.1 < packet.pts * packet.time_base < 2.8:
                place = data.index(bytes(packet))
                data[place : place + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    _, whole = clips_and_report(path)
    assert whole.damaged_count > 5
    (clip,), report = clips_and_report(path, 3.0, 5.0)
    assert report.damaged_count == 0
    assert "damaged" not in clip.marks


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(
    ("sounds", "hole_seconds"), [([(0, 2), (5, 8)], 3.0), ([(0, 8)], None), ([(2, 8)], None)]
)
def test_embed_counts_the_silence_that_it_puts_between_sounds(
    tmp_path, run_path, sounds, hole_seconds, align
):
    write_video(tmp_path / "a.mkv", np.arange(0, 8, 0.2), sounds)
    made = ll.embed(tmp_path / "a.mkv", ll.load(run_path), align=align)
    lost = (made.audio if align else made).lost_seconds
    if hole_seconds is None:
        assert lost == {}
    else:
        assert lost == {AUDIO_HOLE: pytest.approx(hole_seconds, abs=0.05)}
