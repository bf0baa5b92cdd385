"""Kinds of files that people have, made on the spot, and what becomes of each."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import simplejpeg

from conftest import CLOCK_SIDE, clock_frame, hear_clock, read_clock, write_clock_video
from looklisten.data.cutting import cut
from looklisten.data.options import CLIP_MARKS, PrepareOptions
from looklisten.data.sources import Source
from looklisten.errors import ConfigError, SourceError, TooShortError
from looklisten.media.decode.decode import decode_media
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport, Frame

RATE = 48_000


def write_video(
    path,
    frames,
    sound,
    rate_hz=25,
    video_codec="libx264",
    audio_codec="aac",
    layout="mono",
    **video_options,
):
    """`frames` uint8 `[n, height, width, 3]`, `sound` float32 `[channels, samples]` at 48 kHz."""
    with av.open(path, "w") as container:
        video = container.add_stream(video_codec, rate_hz)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        for name, value in video_options.items():
            setattr(video.codec_context, name, value)
        audio = container.add_stream(audio_codec, RATE, layout=layout)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate_hz)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        mux_sound(container, audio, sound, layout)


def mux_sound(container, stream, sound, layout, start_seconds=0.0):
    codec = stream.codec_context
    resampler = av.AudioResampler(
        codec.format, codec.layout, codec.sample_rate, frame_size=codec.frame_size or 1024
    )
    interleaved = np.ascontiguousarray(sound.T, np.float32).reshape(
        1, -1
    )  # PyAV fills at most eight planes
    whole = av.AudioFrame.from_ndarray(interleaved, "flt", layout)
    whole.sample_rate, whole.pts, whole.time_base = (
        RATE,
        round(start_seconds * RATE),
        Fraction(1, RATE),
    )
    for block in [*resampler.resample(whole), *resampler.resample(None)]:
        container.mux(stream.encode(block))
    container.mux(stream.encode(None))


def noise(seconds, channels=1, loudness=0.1):
    return (
        np.random.default_rng(0)
        .normal(0, loudness, (channels, round(seconds * RATE)))
        .astype(np.float32)
    )


def moving(seconds, height=96, width=128, rate_hz=25):
    """Frames in which a bright block wanders from left to right."""
    count = round(seconds * rate_hz)
    frames = np.full((count, height, width, 3), 60, np.uint8)
    for number in range(count):
        left = int((width - 32) * number / count)
        frames[number, height // 3 : height // 3 + 32, left : left + 32] = (240, 180, 40)
    return frames


def clips_of(path, **settings):
    return list(cut(path, Source(path.name), PrepareOptions(**settings)))


def picture(clip, number=0):
    return simplejpeg.decode_jpeg(clip.frames[number], "RGB").astype(int)


def test_a_turned_picture_is_turned_back(tmp_path):
    """A phone writes the picture as the sensor sees it, and a matrix that says how to turn it (ISO
    14496-12, 8.3.2).
    """
    frames = np.zeros((30, 96, 160, 3), np.uint8)
    frames[:, :48, :80] = 255  # top left
    write_video(tmp_path / "a.mp4", frames, noise(1.2))
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    corners = {}
    for degrees, (a, b, c, d) in {
        0: (1, 0, 0, 1),
        90: (0, 1, -1, 0),
        180: (-1, 0, 0, -1),
        270: (0, -1, 1, 0),
    }.items():
        matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        place = data.index(b"tkhd") + 4 + 40
        data[place : place + 36] = matrix
        (tmp_path / f"{degrees}.mp4").write_bytes(data)
        (clip,) = clips_of(tmp_path / f"{degrees}.mp4")
        pixels = picture(clip)
        height, width = pixels.shape[:2]
        quarters = {
            "top left": (0, 0),
            "top right": (0, 1),
            "bottom right": (1, 1),
            "bottom left": (1, 0),
        }
        bright = {
            n: pixels[
                y * height // 2 : (y + 1) * height // 2, x * width // 2 : (x + 1) * width // 2
            ].mean()
            for n, (y, x) in quarters.items()
        }
        corners[degrees] = (max(bright, key=bright.get), (height, width))
    assert corners == {
        0: ("top left", (96, 160)),
        90: ("top right", (160, 96)),
        180: ("bottom right", (96, 160)),
        270: ("bottom left", (160, 96)),
    }


def test_pixels_become_square_and_no_larger(tmp_path):
    write_video(
        tmp_path / "wide.mp4", moving(1.2, 96, 128), noise(1.2), sample_aspect_ratio=Fraction(2, 1)
    )
    write_video(tmp_path / "large.mp4", moving(1.2, 360, 640), noise(1.2))
    write_video(tmp_path / "odd.mkv", moving(1.2, 94, 130), noise(1.2), video_codec="mpeg4")
    assert picture(clips_of(tmp_path / "wide.mp4")[0]).shape[:2] == (48, 128)
    assert picture(clips_of(tmp_path / "large.mp4")[0]).shape[:2] == (256, 455)
    assert picture(clips_of(tmp_path / "odd.mkv", shorter_side_pixels=33)[0]).shape[:2] == (33, 46)


def test_the_same_picture_gives_the_same_bytes(tmp_path):
    """Sides that are no multiple of two once let the encoder read past the picture."""
    write_video(tmp_path / "a.mp4", moving(1.2, 360, 640), noise(1.2))
    assert len({clip.frames for _ in range(8) for clip in clips_of(tmp_path / "a.mp4")}) == 1


def test_colors_come_through(tmp_path):
    bars = np.zeros((30, 64, 96, 3), np.uint8)
    colors = [(255, 255, 255), (200, 30, 30), (30, 200, 30), (30, 30, 200)]
    for number, color in enumerate(colors):
        bars[:, :, number * 24 : number * 24 + 24] = color
    write_video(tmp_path / "a.mp4", bars, noise(1.2))
    pixels = picture(clips_of(tmp_path / "a.mp4")[0])
    for number, color in enumerate(colors):
        assert np.abs(pixels[32, number * 24 + 12] - color).max() < 12, color


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("eight.mov", {"audio_codec": "pcm_mulaw"}),
        ("surround.mp4", {"layout": "5.1"}),
        ("surround.mkv", {"layout": "7.1", "audio_codec": "pcm_s24le"}),
        ("ten.mkv", {"video_codec": "libx265"}),
        ("nine.webm", {"video_codec": "libvpx-vp9", "audio_codec": "libopus"}),
        ("old.avi", {"video_codec": "mpeg4", "audio_codec": "pcm_s16le"}),
        ("disc.mpg", {"video_codec": "mpeg2video", "audio_codec": "mp2"}),
        ("broadcast.ts", {"video_codec": "mpeg2video", "audio_codec": "ac3"}),
    ],
)
def test_kinds_of_files_become_clips(tmp_path, name, options):
    try:
        av.codec.Codec(options.get("video_codec", "libx264"), "w")
    except ValueError:
        pytest.skip("this FFmpeg has no such encoder")
    channels = {"5.1": 6, "7.1": 8}.get(options.get("layout"), 1)
    write_video(tmp_path / name, moving(1.6), noise(1.6, channels), **options)
    (clip,) = clips_of(tmp_path / name)
    assert clip.duration_seconds == pytest.approx(1.55, abs=0.1)
    assert 0.01 < np.abs(clip.waveform / 2**15).mean() < 0.2
    assert clip.marks == ("short",)


def test_of_two_sound_tracks_the_first_is_taken(tmp_path):
    with av.open(tmp_path / "a.mkv", "w") as container:
        video = container.add_stream("libx264", 25)
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        tracks = [container.add_stream("pcm_s16le", RATE, layout="mono") for _ in range(2)]
        for number, pixels in enumerate(moving(1.2)):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for track, value in zip(tracks, (0.25, -0.5), strict=True):
            mux_sound(container, track, np.full((1, round(1.2 * RATE)), value), "mono")
    (clip,) = clips_of(tmp_path / "a.mkv")
    assert np.median(clip.waveform) == pytest.approx(0.25 * 2**15, abs=2)


def test_a_cover_is_no_picture_stream(tmp_path):
    with av.open(tmp_path / "song.mp4", "w") as container:
        cover = container.add_stream("mjpeg", 25)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        audio = container.add_stream("aac", RATE, layout="mono")
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        frame.pts = 0
        container.mux(cover.encode(frame))
        container.mux(cover.encode(None))
        mux_sound(container, audio, noise(2), "mono")
    with pytest.raises(SourceError, match=r"song\.mp4 has no video stream"):
        clips_of(tmp_path / "song.mp4")


@pytest.mark.parametrize(
    "content",
    [b"", b"just text\n" * 100, b"<!doctype html><html><body>Not found</body></html>", bytes(5000)],
)
def test_what_is_no_video_is_said(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.mp4 (cannot be opened as video|has no)"):
        clips_of(tmp_path / "a.mp4")


@pytest.mark.parametrize("kind", ["mkv", "ts", "avi"])
def test_what_comes_before_a_break_is_kept_and_marked(tmp_path, kind):
    write_clock_video(
        tmp_path / f"whole.{kind}", video_codec="mpeg4" if kind == "avi" else "libx264", seconds=6.0
    )
    data = (tmp_path / f"whole.{kind}").read_bytes()
    (tmp_path / f"half.{kind}").write_bytes(data[: len(data) * 6 // 10])
    report = DecodeReport()
    clips = list(
        cut(
            tmp_path / f"half.{kind}",
            Source("half"),
            PrepareOptions(clip_seconds=1.0),
            report=report,
        )
    )
    assert 2 <= len(clips) <= 4
    if kind != "ts":  # a broadcast stream has no header that says how long it is
        assert "of the 6.0 s that its header declares" in report.stop_reason
        assert [("truncated" in clip.marks) for clip in clips] == [False] * (len(clips) - 1) + [
            True
        ]


def test_flipped_bits_cost_what_they_hit(tmp_path):
    write_clock_video(tmp_path / "a.mkv", seconds=6.0)
    data = bytearray((tmp_path / "a.mkv").read_bytes())
    for place in np.random.default_rng(1).integers(len(data) // 2, len(data) * 3 // 5, 60):
        data[place] ^= 1 << (place % 8)
    (tmp_path / "a.mkv").write_bytes(data)
    clips = clips_of(tmp_path / "a.mkv", clip_seconds=1.0)
    assert len(clips) >= 4
    assert "damaged" not in clips[0].marks


def test_a_hole_in_the_sound_parts_the_clips(tmp_path):
    with av.open(tmp_path / "a.mkv", "w") as container:
        video = container.add_stream("libx264", 25)
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        audio = container.add_stream("pcm_s16le", RATE, layout="mono")
        for number, pixels in enumerate(moving(9)):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start, value in ((0.0, 0.25), (5.0, 0.5)):  # nothing from 3 to 5 s
            for block in range(round(3 * RATE / 1200)):
                frame = av.AudioFrame.from_ndarray(
                    np.full((1, 1200), round(value * 2**15), np.int16), "s16", "mono"
                )
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = round(start * RATE) + block * 1200
                container.mux(audio.encode(frame))
    clips = clips_of(tmp_path / "a.mkv")
    assert [round(clip.start_seconds, 2) for clip in clips] == [0.0, 5.0]
    assert [round(clip.duration_seconds, 2) for clip in clips] == [3.0, 3.0]
    assert [set(clip.waveform.tolist()) for clip in clips] == [{2**13}, {2**14}]


def test_picture_and_sound_that_lie_apart_in_the_file(tmp_path):
    """All of the picture, then all of the sound: the clips are those of a file that is interleaved
    well.
    """
    write_clock_video(tmp_path / "well.mkv", seconds=4.0, audio_codec="pcm_s16le")
    with av.open(tmp_path / "well.mkv") as source, av.open(tmp_path / "badly.nut", "w") as target:
        copies = {s.index: target.add_stream_from_template(s) for s in source.streams}
        packets = [packet for packet in source.demux() if packet.size]
        for packet in sorted(packets, key=lambda packet: packet.stream.type == "audio"):
            packet.stream = copies[packet.stream_index]
            target.mux_one(packet)
    settings = {"clip_seconds": 1.0}
    well, badly = (
        clips_of(tmp_path / "well.mkv", **settings),
        clips_of(tmp_path / "badly.nut", **settings),
    )
    assert [clip.frames for clip in well] == [clip.frames for clip in badly]
    assert all((a.waveform == b.waveform).all() for a, b in zip(well, badly, strict=True))


def test_a_broadcast_whose_clock_is_set_anew_goes_on(tmp_path):
    write_clock_video(tmp_path / "a.ts", seconds=4.0, video_codec="mpeg2video", audio_codec="mp2")
    with (
        av.open(tmp_path / "a.ts") as source,
        av.open(tmp_path / "later.ts", "w", options={"mpegts_copyts": "1"}) as target,
    ):
        copies = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.pts += 90_000 * 3000
                packet.dts += 90_000 * 3000
                packet.stream = copies[packet.stream_index]
                target.mux(packet)
    (tmp_path / "both.ts").write_bytes(
        (tmp_path / "later.ts").read_bytes() + (tmp_path / "a.ts").read_bytes()
    )
    clips = clips_of(tmp_path / "both.ts", clip_seconds=1.0)
    assert sum(clip.duration_seconds for clip in clips) == pytest.approx(
        7.5, abs=0.51
    )  # at the join a stretch shorter than a clip may be left over
    second_half = [clip for clip in clips if clip.start_seconds > 4.5]
    for clip in second_half:
        shown = read_clock(picture(clip))
        heard = hear_clock(clip.waveform, round(clip.frame_seconds[0] * RATE) + 2000)
        assert heard - 2000 / RATE == pytest.approx(shown, abs=0.045)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_a_stretch_of_a_video_is_cut_where_it_was_asked_for(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    write_clock_video(path, seconds=9.0)
    (clip,) = cut(path, Source(path.name, start_seconds=4.3, stop_seconds=6.8), PrepareOptions())
    assert clip.start_seconds == pytest.approx(4.3, abs=0.041)
    assert clip.start_seconds + clip.duration_seconds == pytest.approx(6.8, abs=0.001)
    for number, at in enumerate(clip.frame_seconds):
        assert read_clock(picture(clip, number)) == pytest.approx(
            clip.start_seconds + at, abs=0.025
        )
    assert hear_clock(clip.waveform, RATE) == pytest.approx(clip.start_seconds + 1.0, abs=0.025)
    beyond = Source(path.name, start_seconds=20.0, stop_seconds=30.0)
    with pytest.raises(TooShortError, match=r"picture and sound share 0\.000 s"):
        list(cut(path, beyond, PrepareOptions()))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "mpeg2video", "libvpx-vp9"])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_leaving_frames_undecoded_changes_nothing(tmp_path, codec, b_frames):
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        video = container.add_stream(codec, 30)
        video.width = video.height = CLOCK_SIDE
        video.pix_fmt, video.gop_size, video.max_b_frames = "yuv420p", 40, b_frames
        for number in range(90):
            frame = av.VideoFrame.from_ndarray(clock_frame(number * 1000 // 30), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    add_sound(path, tmp_path / "b.mkv")
    seen = {}
    for skip in (False, True):
        report = DecodeReport()
        frames = [
            one
            for one in decode_media(tmp_path / "b.mkv", DecodeOptions(skip_unneeded=skip), report)
            if isinstance(one, Frame)
        ]
        seen[skip] = (
            [(f.at_seconds, f.jpeg(90)) for f in frames],
            round(report.video_end_seconds, 6),
        )
    assert seen[True] == seen[False]
    assert len(seen[True][0]) == 15


def add_sound(silent, path):
    """The video of `silent` with three seconds of noise."""
    with av.open(silent) as source, av.open(path, "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        audio = target.add_stream("pcm_s16le", RATE, layout="mono")
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
        mux_sound(target, audio, noise(3), "mono")


def test_marks_say_what_a_user_wants_to_know(tmp_path):
    still = np.repeat(moving(0.04), 75, 0)
    loud = np.clip(noise(3, loudness=1.5), -1, 1)
    write_video(tmp_path / "fine.mkv", moving(3), noise(3), audio_codec="pcm_s16le")
    write_video(
        tmp_path / "silent.mkv", moving(3), noise(3, loudness=1e-4), audio_codec="pcm_s16le"
    )
    write_video(tmp_path / "still.mkv", still, noise(3), audio_codec="pcm_s16le")
    write_video(tmp_path / "black.mkv", np.zeros_like(still), noise(3), audio_codec="pcm_s16le")
    write_video(tmp_path / "clipped.mkv", moving(3), loud, audio_codec="pcm_s16le")
    write_video(tmp_path / "short.mkv", moving(1.4), noise(1.4), audio_codec="pcm_s16le")
    marks = {path.stem: clips_of(path)[0].marks for path in tmp_path.glob("*.mkv")}
    assert marks == {
        "fine": (),
        "silent": ("silent",),
        "still": ("still",),
        "black": ("still", "black"),
        "clipped": ("clipped",),
        "short": ("short",),
    }
    (twin,) = cut(
        tmp_path / "fine.mkv",
        Source("twin", same_as="fine.mkv", video_id="fine.mkv"),
        PrepareOptions(),
    )
    assert (twin.marks, twin.video_id) == (("duplicate",), "fine.mkv")


def test_a_quiet_second_in_a_loud_clip_is_not_silence(tmp_path):
    sound = noise(3, loudness=1e-5)
    sound[:, 60_000:66_000] = noise(0.125)
    write_video(tmp_path / "a.mkv", moving(3), sound, audio_codec="pcm_s16le")
    assert clips_of(tmp_path / "a.mkv")[0].marks == ()


def test_limits_are_kept(tmp_path):
    write_clock_video(tmp_path / "a.mkv", seconds=5.0)
    report = DecodeReport()
    clips = list(
        cut(
            tmp_path / "a.mkv",
            Source("a"),
            PrepareOptions(clip_seconds=1.0, max_hours=2.0 / 3600),
            report=report,
        )
    )
    assert report.stop_reason.startswith("it is longer than 0.00055")
    assert 1 <= len(clips) <= 2
    with pytest.raises(SourceError, match=r"frames of 256 x 256; at most 0\.01 megapixels"):
        clips_of(tmp_path / "a.mkv", max_megapixels=0.01)


def test_settings_that_cannot_be():
    with pytest.raises(
        ConfigError, match=f"no mark 'loud' to skip; the marks are {', '.join(CLIP_MARKS)}"
    ):
        PrepareOptions(skip=("loud",))
    with pytest.raises(ConfigError, match="max_hours 0 must be above 0"):
        PrepareOptions(max_hours=0)


def test_a_playlist_named_like_a_video_reads_nothing_else(tmp_path):
    (tmp_path / "a.mp4").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(SourceError):
        clips_of(tmp_path / "a.mp4")
