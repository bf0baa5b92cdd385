"""Whether a file is whole: packets that are missing or do not decode, not headers that disagree."""

import re
from fractions import Fraction

import av
import numpy as np
import pytest

from conftest import write_clock_video, write_sound
from cut_files import clips_and_report
from looklisten.media.decode.decode import decode_media
from looklisten.media.decode.file_end import counts_frames, written_bytes
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport

RATE = 48_000


def tone(seconds):
    t = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)


def reported(path, picture=False):
    """What a pass over a file's sound, and over its picture if asked, says of its end."""
    report = DecodeReport()
    for _ in decode_media(path, DecodeOptions(video=picture), report):
        pass
    return report


def remux(source, target, keep=lambda kind, at: True, shift_seconds=0.0, **options):
    """Copy the packets that `keep` wants, by the kind of their stream and their time, moved by
    `shift_seconds`.
    """
    with av.open(source) as old, av.open(target, "w", options=options) as new:
        copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            at = None if packet.pts is None else float(packet.pts * packet.time_base)
            if not packet.size or at is None or not keep(packet.stream.type, at):
                continue
            ticks = round(shift_seconds / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            packet.stream = copies[packet.stream_index]
            new.mux(packet)


def halved(path):
    half = path.with_name(f"half{path.suffix}")
    data = path.read_bytes()
    half.write_bytes(data[: len(data) // 2])
    return half


def test_a_clip_cut_by_stream_copy_is_whole(tmp_path):
    """The edit list hides what lies before the cut; the container's headers count it."""
    write_clock_video(tmp_path / "whole.mp4", seconds=9.0)
    remux(tmp_path / "whole.mp4", tmp_path / "cut.mp4", lambda kind, at: at < 8.0, -6.0)
    with av.open(tmp_path / "cut.mp4") as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert min(packet.pts * packet.time_base for packet in packets) == pytest.approx(-6.0)
    clips, report = clips_and_report(tmp_path / "cut.mp4")
    assert report.stop_reason == ""
    assert [(clip.start_seconds, clip.marks) for clip in clips] == [(0.0, ())]
    assert clips[0].duration_seconds == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("shorter", ["video", "audio"])
def test_a_stream_that_ends_first_is_no_break(tmp_path, kind, shorter):
    codecs = {"video_codec": "mpeg4", "audio_codec": "libmp3lame"} if kind == "avi" else {}
    source = tmp_path / f"whole.{'mp4' if kind == 'mkv' else kind}"
    write_clock_video(source, seconds=9.0, **codecs)
    path = tmp_path / f"one.{kind}"
    remux(source, path, lambda stream, at: stream != shorter or at < 3.0)
    clips, report = clips_and_report(path)
    assert report.stop_reason == ""
    assert sum(clip.duration_seconds for clip in clips) == pytest.approx(3.0, abs=0.1)
    reason = "sound after the picture ends" if shorter == "video" else "picture without sound"
    assert report.lost_seconds == {reason: pytest.approx(6.0, abs=0.2)}
    assert reported(path).stop_reason == ""


@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_a_stream_that_is_not_decoded_may_end_later(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    with av.open(path, "w") as container:
        tracks = [container.add_stream("aac", RATE, layout="mono") for _ in range(2)]
        for track, seconds in zip(tracks, (14.0, 20.0), strict=True):
            frame = av.AudioFrame.from_ndarray(tone(seconds)[None], "fltp", "mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
            resampler = av.AudioResampler("fltp", "mono", RATE, frame_size=1024)
            for block in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(track.encode(block))
            container.mux(track.encode(None))
    report = reported(path)
    assert report.audio_end_seconds == pytest.approx(14.0, abs=0.1), (
        "not much shorter, so the first is taken"
    )
    assert report.stop_reason == ""


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", "pcm_s16le"),
        ("a.aiff", "pcm_s16be"),
        ("a.flac", "flac"),
        ("a.mp3", "libmp3lame"),
        ("a.w64", "pcm_s16le"),
        ("a.caf", "pcm_s16le"),
        ("a.au", "pcm_s16be"),
        ("a.opus", "libopus"),
        ("a.mka", "flac"),
    ],
)
def test_half_a_file_of_sound_is_seen(tmp_path, name, codec):
    path = write_sound(tmp_path / name, tone(6.0), codec=codec)
    assert reported(path).stop_reason == ""
    broken_off = reported(halved(path)).stop_reason
    known = (
        "in the middle of a page of Ogg"
        if name == "a.opus"
        else "of the 6.[01] s that its header declares"
    )
    assert pytest.approx(3.0, abs=0.4) == float(broken_off.split()[3])
    assert re.search(known, broken_off)


@pytest.mark.parametrize(
    ("name", "codecs"),
    [
        ("a.mkv", {}),
        ("a.mp4", {}),
        ("a.avi", {"video_codec": "mpeg4", "audio_codec": "libmp3lame"}),
        ("a.wav", {}),
    ],
)
def test_a_short_file_is_reported_as_cut(tmp_path, name, codecs):
    """Much of a short file is less than headers are usually wrong by; here bytes are missing."""
    path = tmp_path / name
    is_sound = name == "a.wav"
    if is_sound:
        write_sound(path, tone(1.5), codec="pcm_s16le")
    elif name == "a.mp4":
        write_clock_video(tmp_path / "whole.mp4", seconds=1.5)
        remux(tmp_path / "whole.mp4", path, movflags="faststart")
    else:
        write_clock_video(path, seconds=1.5, **codecs)
    assert reported(path, picture=not is_sound).stop_reason == ""
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert "s that its header declares" in reported(path, picture=not is_sound).stop_reason


@pytest.mark.parametrize(
    ("name", "codecs", "options"),
    [
        ("a.mkv", {}, {}),
        ("a.mp4", {}, {"movflags": "faststart"}),
        ("a.avi", {"video_codec": "mpeg4", "audio_codec": "libmp3lame"}, {}),
        ("a.flv", {"video_codec": "flv"}, {}),
    ],
)
def test_half_a_video_is_seen_whichever_stream_is_read(tmp_path, name, codecs, options):
    source = tmp_path / ("whole.mp4" if name == "a.mkv" else f"whole{name[1:]}")
    write_clock_video(source, seconds=6.0, **codecs)
    path = tmp_path / name
    remux(source, path, **options)
    assert reported(path, picture=True).stop_reason == ""
    for picture in (True, False):
        assert (
            "of the 6.0 s that its header declares" in reported(halved(path), picture).stop_reason
        )
    clips, _ = clips_and_report(halved(path), clip_seconds=1.0)
    assert ["truncated" in clip.marks for clip in clips] == [False] * (len(clips) - 1) + [True]


def test_a_tail_of_zeros_is_seen(tmp_path):
    """A download that was broken off may have its full size: the packets are there and do not
    decode.
    """
    write_clock_video(tmp_path / "whole.mp4", seconds=6.0)
    remux(tmp_path / "whole.mp4", tmp_path / "a.mp4", movflags="faststart")
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    _, report = clips_and_report(tmp_path / "a.mp4")
    assert "cannot be decoded after 2." in report.stop_reason


def test_a_length_that_was_never_written_is_not_believed(tmp_path):
    """Programs that write WAV to a pipe put the largest number where the size belongs."""
    path = write_sound(tmp_path / "a.wav", tone(2.0), codec="pcm_s16le")
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[4:8] = data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert written_bytes(path, "wav") is None
    assert reported(path).stop_reason == ""


def test_rubbish_after_the_end_does_no_harm(tmp_path):
    for name, codec in (("a.wav", "pcm_s16le"), ("a.mka", "flac"), ("a.m4a", "aac")):
        path = write_sound(tmp_path / name, tone(2.0), codec=codec)
        path.write_bytes(path.read_bytes() + np.random.default_rng(0).bytes(5000))
        assert reported(path).stop_reason == ""


@pytest.mark.parametrize(
    ("name", "codec"), [("a.wav", "pcm_s16le"), ("a.m4a", "aac"), ("a.caf", "pcm_s16le")]
)
def test_a_second_file_that_cannot_be_read_is_counted(tmp_path, name, codec):
    path = write_sound(tmp_path / name, tone(3.0), codec=codec)
    path.write_bytes(path.read_bytes() * 2)
    assert reported(path).lost_seconds == {
        "a second file appended to the first": pytest.approx(3.0, abs=0.1)
    }


def test_zeros_are_no_header_of_mp3(tmp_path):
    (tmp_path / "zeros.mp3").write_bytes(bytes(70_000))
    assert not counts_frames(tmp_path / "zeros.mp3")
