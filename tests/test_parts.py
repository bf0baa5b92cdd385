"""Files whose time goes back or ahead: joined parts, clocks that are set anew, single wrong
timestamps.
"""

import json

import av
import numpy as np
import pytest
import simplejpeg

from conftest import hear_clock, read_clock, write_clock_video, write_sound
from cut_files import clips_and_report
from looklisten.app.cli import main
from looklisten.media.decode.decode import decode_audio, decode_media
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.packets import decode_packet
from looklisten.media.decode.records import APPENDED_FILE, DecodeReport

RATE = 48_000
PART_SECONDS = 4.0
TS = {"video_codec": "mpeg2video", "audio_codec": "mp2"}


def out_of_sync(clip):
    """How far what a frame of a clock video shows is from what is heard then, seconds, for frames
    away from joins.
    """
    errors = []
    for at, jpeg in zip(clip.frame_seconds, clip.frames, strict=True):
        shown = read_clock(simplejpeg.decode_jpeg(jpeg, "RGB"))
        if 0.2 < shown < PART_SECONDS - 0.2 and 0.1 < at < clip.duration_seconds - 0.1:
            errors.append(abs(shown - hear_clock(clip.waveform, round(at * RATE))))
    return max(errors)


@pytest.mark.parametrize(
    ("name", "codecs", "parts"),
    [
        ("a.ts", TS, 3),
        ("a.ts", {}, 3),
        ("a.mpg", TS, 3),
        ("a.mkv", {}, 2),
        ("a.avi", {"video_codec": "mpeg4", "audio_codec": "libmp3lame"}, 3),
    ],
)
def test_parts_joined_byte_by_byte_follow_one_another(tmp_path, name, codecs, parts):
    write_clock_video(tmp_path / name, seconds=PART_SECONDS, **codecs)
    joined = tmp_path / f"joined_{name}"
    joined.write_bytes((tmp_path / name).read_bytes() * parts)
    clips, report = clips_and_report(joined, clip_seconds=2.0)
    assert sum(clip.duration_seconds for clip in clips) == pytest.approx(
        parts * PART_SECONDS, abs=0.2
    )
    assert max(out_of_sync(clip) for clip in clips) < 0.045
    assert sum(report.lost_seconds.values()) < 0.2
    assert report.stop_reason == ""


def test_a_stretch_of_a_joined_file_is_found(tmp_path):
    write_clock_video(tmp_path / "a.ts", seconds=PART_SECONDS, **TS)
    (tmp_path / "b.ts").write_bytes((tmp_path / "a.ts").read_bytes() * 3)
    (clip,), _ = clips_and_report(tmp_path / "b.ts", 9.0, 11.0)
    assert clip.start_seconds == pytest.approx(9.0, abs=0.05)
    assert clip.duration_seconds == pytest.approx(2.0, abs=0.05)
    shown = read_clock(simplejpeg.decode_jpeg(clip.frames[0], "RGB"))
    assert shown == pytest.approx(
        clip.start_seconds + clip.frame_seconds[0] - 2 * PART_SECONDS, abs=0.15
    )
    assert out_of_sync(clip) < 0.045


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.opus", "libopus"), ("a.flac", "flac"), ("a.mp3", "libmp3lame"), ("a.au", "pcm_s16be")],
)
def test_joined_sound_is_read_whole(tmp_path, name, codec):
    t = np.arange(3 * RATE) / RATE
    path = write_sound(
        tmp_path / name, (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32), codec=codec
    )
    alone = decode_audio(path)
    path.write_bytes(path.read_bytes() * 2)
    report = DecodeReport()
    seconds = (
        sum(len(sound.samples) for sound in decode_media(path, DecodeOptions(video=False), report))
        / RATE
    )
    assert seconds == pytest.approx(2 * len(alone) / RATE, abs=0.06)
    assert len(decode_audio(path)) / RATE == pytest.approx(seconds, abs=0.06)
    assert sum(report.lost_seconds.values()) < 0.06


def test_comments_between_joined_theora_streams_are_no_damage():
    """PyAV cannot write Theora, so the packets stand alone."""
    codec = av.CodecContext.create("theora", "r")
    report = DecodeReport()
    assert decode_packet(codec, av.Packet(b"\x81theora\x0c\0\0\0"), report) == []
    assert (report.damaged_count, report.last_error) == (0, "")
    for other in (b"\x81theorX\0\0\0", b"\x81the"):
        decode_packet(codec, av.Packet(other), report)
    assert report.damaged_count == 2


def set_time(data, place, seconds):
    """Write the presentation time of the PES packet whose start code is at `place` (ISO 13818-1,
    2.4.3.7).
    """
    ticks = round(seconds * 90_000)
    data[place + 9] = 0x21 | (ticks >> 29 & 0x0E)
    data[place + 10] = ticks >> 22 & 0xFF
    data[place + 11] = 0x01 | (ticks >> 14 & 0xFE)
    data[place + 12] = ticks >> 7 & 0xFF
    data[place + 13] = 0x01 | (ticks << 1 & 0xFE)


def test_one_wrong_timestamp_is_no_new_part(tmp_path):
    write_clock_video(tmp_path / "a.ts", seconds=PART_SECONDS, **TS)
    data = bytearray((tmp_path / "a.ts").read_bytes())
    places = [place for place in range(len(data)) if data[place : place + 4] == b"\0\0\1\xc0"]
    set_time(data, places[len(places) // 2], 0.0)
    (tmp_path / "a.ts").write_bytes(data)
    clips, report = clips_and_report(tmp_path / "a.ts")
    assert sum(clip.duration_seconds for clip in clips) == pytest.approx(PART_SECONDS, abs=0.2)
    assert max(out_of_sync(clip) for clip in clips) < 0.045
    assert sum(report.lost_seconds.values()) < 0.2


def test_a_clock_that_wraps_goes_on(tmp_path):
    """A transport stream counts 33 bits of 90 kHz, some 26.5 hours."""
    write_clock_video(tmp_path / "a.ts", seconds=PART_SECONDS, **TS)
    data = bytearray((tmp_path / "a.ts").read_bytes())
    for place in range(len(data) - 14):
        if data[place : place + 3] == b"\0\0\1" and data[place + 3] in (0xC0, 0xE0):
            for at in (9, 14) if data[place + 7] >> 6 == 3 else (9,):
                field = data[place + at : place + at + 5]
                ticks = (
                    (field[0] >> 1 & 7) << 30
                    | field[1] << 22
                    | field[2] >> 1 << 15
                    | field[3] << 7
                    | field[4] >> 1
                )
                kind = field[0] & 0xF0
                set_time(data, place + at - 9, (ticks + 2**33 - 2 * 90_000) % 2**33 / 90_000)
                data[place + at] = data[place + at] & 0x0F | kind
    (tmp_path / "a.ts").write_bytes(data)
    clips, report = clips_and_report(tmp_path / "a.ts")
    assert sum(clip.duration_seconds for clip in clips) == pytest.approx(PART_SECONDS, abs=0.2)
    assert max(out_of_sync(clip) for clip in clips) < 0.045
    assert report.stop_reason == ""


@pytest.mark.parametrize("name", ["a.wav", "a.mp4"])
def test_embed_says_what_the_demuxer_does_not_read(tmp_path, run_path, capsys, caplog, name):
    if name == "a.wav":
        write_sound(tmp_path / name, np.zeros(3 * RATE, np.float32), codec="pcm_s16le")
    else:
        write_clock_video(tmp_path / name, seconds=3.0)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_bytes((tmp_path / name).read_bytes() * 2)
    command = ["embed", str(folder), "--checkpoint", str(run_path), "-o", str(tmp_path / "out")]
    assert main(command) == 0
    lost = json.loads(capsys.readouterr().out)["lost_seconds"]
    assert lost == {APPENDED_FILE: pytest.approx(3.0, abs=0.1)}
    assert f"{name}: {lost[APPENDED_FILE]:.1f} s are lost" in caplog.text


def test_parts_that_the_demuxer_does_not_read_are_counted(tmp_path):
    """Of joined Matroska files FFmpeg reads two."""
    write_clock_video(tmp_path / "a.mkv", seconds=PART_SECONDS)
    (tmp_path / "b.mkv").write_bytes((tmp_path / "a.mkv").read_bytes() * 3)
    clips, report = clips_and_report(tmp_path / "b.mkv")
    read_seconds = sum(clip.duration_seconds for clip in clips)
    assert read_seconds + sum(report.lost_seconds.values()) == pytest.approx(
        3 * PART_SECONDS, abs=0.3
    )
