"""The overlay video has all frames of its source at their times, its sound, and the maps."""

import json
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from torch.nn import functional

from conftest import CLOCK_SIDE, hear_clock, read_clock, small_config, write_clock_video
from looklisten import overlay
from looklisten.app.cli import main
from looklisten.drawing.figures import SheetColumn, moment_title
from looklisten.drawing.heatmap_colors import overlay_image, overlay_planes, rgb_to_planes
from looklisten.drawing.localization_folder import localize_video
from looklisten.drawing.overlay_video import SCROLL_SECONDS
from looklisten.drawing.spectrogram_strip import ScrollingSpectrogram, axis_ticks
from looklisten.errors import ConfigError, SourceError
from looklisten.inference.localization.enlarge import enlarge_map
from looklisten.inference.localization.localize import localize
from looklisten.inference.localization.options import LocalizeFileOptions, LocalizeOptions
from looklisten.inference.localization.records import HeatMap
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.decode import decode_media
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.redraw import measure_video
from looklisten.model.l3net import L3Net


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return L3Net(small_config().model).eval()


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    path = tmp_path_factory.mktemp("clock") / "clock.mp4"
    write_clock_video(path, seconds=2.0)
    return path


@pytest.fixture(scope="module")
def localizations(clock, network):
    return localize(clock, network, every_seconds=0.4)


def with_maps(localizations, *maps):
    """The same moments with other maps; the last map is used for all following moments."""
    replaced = []
    for number, localization in enumerate(localizations):
        values = np.array(maps[min(number, len(maps) - 1)], np.float32)
        replaced.append(replace(localization, frame_map=HeatMap(values), method="unit"))
    return replaced


def test_a_sheet_gives_no_answer_for_a_silent_second(localizations):
    frame = torch.zeros(64, 64, 3, dtype=torch.uint8)
    silent = replace(localizations[0], at_seconds=1.5, probability=0.77, is_silent=True)
    assert moment_title(SheetColumn(frame, silent, ["dog"])) == "dog · 1.5 s\nno sound"
    heard = replace(silent, is_silent=False)
    assert moment_title(SheetColumn(frame, heard)) == "1.5 s\ncorresponds: 77%"


def dark(localizations):
    return with_maps(localizations, np.zeros((4, 4)))


def video_frames(path):
    """(times from the start of the container, pixels) of all frames."""
    with av.open(str(path)) as container:
        frames = [
            (frame.time - container.start_time / 1e6, frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]
        return np.array([at for at, _ in frames]), [pixels for _, pixels in frames]


def packets(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def length(path):
    with av.open(str(path)) as container:
        return container.duration / 1e6


def clock_of(pixels, side):
    """The time that a frame of the overlay shows."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:side, :side]), "rgb24")
    small = frame.reformat(CLOCK_SIDE, CLOCK_SIDE, interpolation="AREA").to_ndarray().astype(float)
    return read_clock(small * 128 / 92)  # the gray between the blocks, 128, is darkened to 92


def remuxed(source, out, audio_codec=None, rotation=0):
    """The same video in another container, optionally rotated or with sound in another codec."""
    with av.open(str(source)) as container, av.open(str(out), "w") as output:
        seen, heard = container.streams.video[0], container.streams.audio[0]
        video = output.add_stream_from_template(seen)
        if rotation:
            video.set_display_rotation(rotation)
        audio = (
            output.add_stream(audio_codec, 48_000, layout="stereo", options={"strict": "-2"})
            if audio_codec
            else None
        )
        copy = audio or output.add_stream_from_template(heard)
        for packet in container.demux(seen, heard):
            if packet.size and (packet.stream is seen or not audio):
                packet.stream = video if packet.stream is seen else copy
                output.mux(packet)
        if audio:
            container.seek(0)
            for frame in container.decode(heard):
                output.mux(
                    audio.encode(
                        frame.reformat(layout="stereo")
                        if hasattr(frame, "reformat")
                        else stereo(frame)
                    )
                )
            output.mux(audio.encode(None))
    return out


def stereo(frame):
    both = av.AudioFrame.from_ndarray(np.repeat(frame.to_ndarray(), 2, axis=0), "fltp", "stereo")
    both.sample_rate, both.pts, both.time_base = frame.sample_rate, frame.pts, frame.time_base
    return both


UNEVEN = np.sort(np.random.default_rng(0).choice(np.arange(0, 2000, 7), 40, replace=False)) / 1000

SOURCES = {
    "as usual.mp4": ({}, True),
    "variable frame rate.mp4": ({"times": UNEVEN}, True),
    "late sound.mp4": ({"audio_late_seconds": 0.6}, True),
    "clock set at start.ts": ({}, True),
    "mp3.mp4": ({"audio_codec": "libmp3lame"}, True),
    "opus.mkv": ({"audio_codec": "libopus", "times": UNEVEN}, True),
    "flac.mkv": ({"audio_codec": "flac"}, True),
    "ac3.mkv": ({"audio_codec": "ac3"}, True),
    # These two count frames instead of telling their times, so they have one every 0.04 s.
    "mpeg.mpg": ({"video_codec": "mpeg1video", "audio_codec": "mp2", "times": None}, False),
    "pcm.avi": (
        {
            "video_codec": "mpeg4",
            "audio_codec": "pcm_s16le",
            "sample_rate_hz": 44_100,
            "times": None,
        },
        False,
    ),
    "late pcm.mkv": ({"audio_codec": "pcm_s16le", "audio_late_seconds": 0.6}, False),
    "odd rate.mkv": ({"audio_codec": "pcm_s16le", "sample_rate_hz": 37_800}, False),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_frame_is_there_once_at_its_time_with_its_sound(name, network, tmp_path):
    settings, is_copied = SOURCES[name]
    source, output = tmp_path / name, tmp_path / "overlay.mp4"
    write_clock_video(source, seconds=2.0, **{"times": np.arange(0, 2.0, 0.08), **settings})
    overlay(source, dark(localize(source, network, every_seconds=1.0)), output)
    (times, _), (drawn_times, drawn) = video_frames(source), video_frames(output)
    assert len(drawn_times) == len(times)
    assert np.abs(drawn_times - times).max() <= 0.001
    assert length(output) == pytest.approx(length(source), abs=0.025)
    shown = np.array([clock_of(pixels, 480) for pixels in drawn])
    assert np.ptp(drawn_times - shown) <= 0.002  # a container may begin with a little sound
    source_packets, output_packets = packets(source), packets(output)
    is_same = len(output_packets) == len(source_packets) and all(
        map(bytes.endswith, source_packets, output_packets)
    )  # a transport stream's have a header more
    assert is_same == is_copied
    assert audio_offset_seconds(output) == pytest.approx(
        audio_offset_seconds(source), abs=0.002 if is_copied else 0.005
    )


def audio_offset_seconds(path):
    """Time that the sound in the middle of the file stands for, minus its timestamp."""
    sounds = list(decode_media(path, DecodeOptions(video=False)))
    wave = np.concatenate([sound.samples for sound in sounds])
    middle = len(wave) // 2
    return hear_clock(wave, middle) - (sounds[0].start_seconds + middle / SAMPLE_RATE_HZ)


def test_vorbis_becomes_aac(clock, localizations, tmp_path):
    source = remuxed(clock, tmp_path / "vorbis.mkv", "vorbis")
    output = overlay(source, dark(localizations), tmp_path / "overlay.mp4")
    with av.open(str(output)) as container:
        assert container.streams.audio[0].codec.canonical_name == "aac"
        assert container.streams.audio[0].channels == 2
    assert audio_offset_seconds(output) == pytest.approx(audio_offset_seconds(source), abs=0.005)


def test_a_gap_in_encoded_sound_becomes_silence(clock, localizations, tmp_path):
    """Almost a second of packets is missing; later sound keeps its time."""
    whole, source = tmp_path / "whole.mkv", tmp_path / "hole.mkv"
    write_clock_video(whole, seconds=2.0, audio_codec="pcm_s16le")
    with av.open(str(whole)) as container, av.open(str(source), "w") as output:
        streams = {
            stream.index: output.add_stream_from_template(stream) for stream in container.streams
        }
        for packet in container.demux():
            if packet.size and not (
                packet.stream.type == "audio" and 0.5 < packet.pts * packet.time_base < 1.3
            ):
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
    output = overlay(source, dark(localizations), tmp_path / "overlay.mp4")
    with av.open(str(output)) as container:
        at = [packet.pts for packet in container.demux(audio=0) if packet.size]
    assert set(np.diff(at)) == {1024}, "silence is sound that is there"
    wave = np.concatenate(
        [sound.samples for sound in decode_media(output, DecodeOptions(video=False))]
    )
    assert hear_clock(wave, round(1.7 * SAMPLE_RATE_HZ)) == pytest.approx(1.7, abs=0.02)
    assert np.abs(wave[round(0.8 * SAMPLE_RATE_HZ) : round(1.1 * SAMPLE_RATE_HZ)]).max() < 0.01


def write_plain_video(path, width, height, pix_fmt="yuv444p", color=(128, 128, 128), **codec):
    """A video of 1.2 s with frames of one color and a tone; sizes may be odd."""
    with av.open(str(path), "w") as container:
        video, audio = (
            container.add_stream("libx264", 10),
            container.add_stream("aac", 48_000, layout="mono"),
        )
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        for name, value in codec.items():
            setattr(video.codec_context, name, value)
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(
                np.full((height, width, 3), color, np.uint8), "rgb24"
            )
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for number in range(57):
            tone = 0.3 * np.sin(
                np.arange(number * 1024, (number + 1) * 1024, dtype=np.float32)[None] / 7
            )
            block = av.AudioFrame.from_ndarray(tone.astype(np.float32), "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = (
                48_000,
                number * 1024,
                Fraction(1, 48_000),
            )
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(
    ("size", "codec", "rotation", "visible_size"),
    [
        ((127, 95), {}, 0, (480, 360)),
        ((90, 160), {}, 0, (480, 854)),
        ((1440, 60), {}, 0, (1280, 54)),
        ((20, 400), {}, 0, (64, 1280)),
        ((160, 90), {}, 90, (480, 854)),
        ((160, 90), {}, 180, (480, 270)),
        ((128, 96), {"sample_aspect_ratio": Fraction(2, 1)}, 0, (480, 180)),
        ((600, 400), {}, 0, (600, 400)),
    ],
)
def test_frames_of_any_size_are_upright_and_large_enough(
    size, codec, rotation, visible_size, network, tmp_path
):
    source = write_plain_video(tmp_path / "plain.mp4", *size, **codec)
    if rotation:
        source = remuxed(source, tmp_path / "rotated.mp4", rotation=rotation)
    planted = with_maps(localize(source, network), [[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    output = overlay(source, planted, tmp_path / "overlay.mp4")
    times, drawn = video_frames(output)
    assert len(times) == 12
    height, width = drawn[5].shape[:2]
    assert width == max(visible_size[0], 480)
    left = (width - visible_size[0]) // 2
    picture = drawn[5][: visible_size[1], left : left + visible_size[0]].astype(float)
    assert drawn[5][visible_size[1] + 2 : visible_size[1] + 6].max() < 40, (
        "the area below the frame is dark"
    )
    quarter = (
        picture[: visible_size[1] // 4, : visible_size[0] // 4].mean((0, 1)),
        picture[-visible_size[1] // 4 :, -visible_size[0] // 4 :].mean((0, 1)),
    )
    assert quarter[0][0] - quarter[0][2] > 30, "the corner of the map has color"
    assert np.ptp(quarter[1]) < 6, "the opposite corner stays gray"
    assert height % 2 == 0


def test_colors_of_the_source_are_kept(network, tmp_path):
    source = write_plain_video(tmp_path / "blue.mp4", 64, 48, color=(40, 90, 200))
    _, drawn = video_frames(
        overlay(source, dark(localize(source, network)), tmp_path / "overlay.mp4")
    )
    assert (
        np.abs(drawn[3][100:200, 100:300].mean((0, 1)) - 0.72 * np.array([40, 90, 200])).max() < 4
    )


def test_between_two_moments_the_maps_are_mixed_in_proportion_to_time(
    clock, localizations, tmp_path
):
    """From 0 at the first moment to 0.8 at the second: halfway it looks like a map of 0.4."""
    first, second = localizations[0].at_seconds, localizations[1].at_seconds
    half = (first + second) / 2
    rising = overlay(
        clock,
        with_maps(localizations, np.zeros((4, 4)), np.full((4, 4), 0.8)),
        tmp_path / "rising.mp4",
    )
    steady = overlay(clock, with_maps(localizations, np.full((4, 4), 0.4)), tmp_path / "steady.mp4")
    times, drawn = video_frames(rising)
    middle = int(np.abs(times - half).argmin())
    of_steady = video_frames(steady)[1][middle][10:400, 10:400].astype(float)
    share = (times[middle] - first) / (second - first)
    assert abs(share - 0.5) < 0.06
    assert np.abs(drawn[middle][10:400, 10:400].mean((0, 1)) - of_steady.mean((0, 1))).max() < 5
    later = drawn[int(np.abs(times - second).argmin())][10:400, 10:400].mean((0, 1))
    assert later[0] > of_steady.mean((0, 1))[0] + 15


def test_there_is_no_map_where_there_is_no_sound(network, tmp_path):
    source = tmp_path / "late.mp4"
    write_clock_video(source, seconds=3.0, audio_late_seconds=1.4)
    output = overlay(
        source, with_maps(localize(source, network), np.ones((4, 4))), tmp_path / "overlay.mp4"
    )
    times, drawn = video_frames(output)
    warmth = np.array([np.ptp(pixels[:480, :480].mean((0, 1))) for pixels in drawn])
    assert warmth[times < 0.8].max() < 5
    assert warmth[times > 1.0].min() > 40


def test_the_cursor_moves_with_time(clock, localizations, tmp_path):
    times, drawn = video_frames(overlay(clock, dark(localizations), tmp_path / "overlay.mp4"))
    strip = np.stack([pixels[500:, 13:-13].astype(float).min(2)[20:90] for pixels in drawn])
    places = np.array([column.min(0).argmax() for column in strip])
    assert np.abs(places - times / 2.0 * strip.shape[2]).max() < 4


def test_the_file_is_what_browsers_play(clock, localizations, tmp_path):
    output = overlay(clock, localizations, tmp_path / "overlay.mp4")
    with av.open(str(output)) as container:
        video = container.streams.video[0].codec_context
        assert (video.name, video.pix_fmt, video.profile) == ("h264", "yuv420p", "High")
    data = output.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "it plays before it is there whole"


def test_only_still_moments_keep_their_frame(clock, network):
    maps = LocalizeOptions(every_seconds=1.0)
    localized = localize_video(clock, network, LocalizeFileOptions(maps))
    assert len(localized.localizations) == 10
    assert list(localized.still_frames) == [0, 5]
    assert all(frame.shape[2] == 3 for frame in localized.still_frames.values())


def test_the_pass_for_maps_measures_the_video(clock, network):
    localized = localize_video(clock, network, LocalizeFileOptions(LocalizeOptions()))
    assert localized.video_info == measure_video(clock)


def test_the_overlay_of_a_truncated_file_has_its_readable_part(network, tmp_path):
    whole, source = tmp_path / "whole.mkv", tmp_path / "broken.mkv"
    write_clock_video(whole, seconds=4.0)
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    output = overlay(source, dark(localize(source, network)), tmp_path / "overlay.mp4")
    assert 20 < len(video_frames(source)[0]) == len(video_frames(output)[0]) < 90


def test_errors_of_overlay_leave_no_file(clock, localizations, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    out = tmp_path / "out"
    out.mkdir()
    silent = tmp_path / "silent.mp4"
    with av.open(str(clock)) as container, av.open(str(silent), "w") as output:
        copy = output.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    with pytest.raises(SourceError, match=r"text\.mp4 cannot be opened as video"):
        overlay(tmp_path / "text.mp4", localizations, out / "overlay.mp4")
    message = r"silent\.mp4 has no audio stream that can be decoded; both video and audio are"
    with pytest.raises(SourceError, match=message):
        overlay(silent, localizations, out / "overlay.mp4")
    with pytest.raises(
        ConfigError, match=r"there are no maps to draw; pass what ll\.localize gave"
    ):
        overlay(clock, [], out / "overlay.mp4")
    with pytest.raises(
        ConfigError, match=r"overlay.webm: the overlay is an MP4 file; name it overlay.mp4"
    ):
        overlay(clock, localizations, out / "overlay.webm")
    assert not list(out.iterdir())


def test_an_interrupted_overlay_leaves_no_file(clock, localizations, tmp_path):
    def stop(done, total, /, **facts):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        overlay(clock, localizations, out / "overlay.mp4", stop)
    assert not list(out.iterdir())


def test_frames_of_a_video_have_the_colors_of_still_images():
    """Tables on luma and chroma give the colors that mixing red, green and blue gives."""
    rng = np.random.default_rng(0)
    ground = np.repeat(np.repeat(rng.random((20, 30, 3), dtype=np.float32), 2, 0), 2, 1)
    heat = np.repeat(np.repeat(rng.random((20, 30), dtype=np.float32), 2, 0), 2, 1)
    y, u, v = rgb_to_planes(ground)
    drawn = tuple(
        np.empty((side.shape[0], side.shape[1] + 3), np.uint8)[:, :-3]
        for side in (y, u[::2, ::2], v[::2, ::2])
    )
    overlay_planes((y, u[::2, ::2], v[::2, ::2]), heat, drawn)
    wanted = rgb_to_planes(overlay_image(ground, heat))
    for plane, exact in zip(
        drawn, (wanted[0], wanted[1][::2, ::2], wanted[2][::2, ::2]), strict=True
    ):
        assert np.abs(plane.astype(int) - exact).max() <= 4
        assert np.abs(plane.astype(int) - exact).mean() < 1


@pytest.mark.parametrize("size", [(7, 5), (64, 3), (1, 1), (9, 40)])
def test_maps_are_enlarged_bilinearly(size):
    values = np.random.default_rng(0).random((5, 9), dtype=np.float32)
    exact = functional.interpolate(torch.from_numpy(values)[None, None], size, mode="bilinear")[
        0, 0
    ].numpy()
    assert np.allclose(enlarge_map(values, *size), exact, atol=1e-5)


def test_visible_parts_of_a_spectrogram_overlap_exactly(clock, localizations):
    """Parts that begin at different times have the same pixels, also where two sections meet."""
    long = [shifted(one, 2.0 * lap) for lap in range(8) for one in localizations]
    spectrogram = ScrollingSpectrogram(long, 60, 200, SCROLL_SECONDS)
    assert spectrogram.pixels_per_second == 20
    early, late = spectrogram.visible_part(0.0), spectrogram.visible_part(3.0)
    for one, other in zip(early, late, strict=True):
        assert one.shape == (60, 200)
        assert (one[:, 60:] == other[:, :140]).all()
    assert np.ptp(early[0]) > 50
    empty = spectrogram.visible_part(40.0)[0]
    assert (empty == 16).all(), "black where there is no sound"


def shifted(localization, seconds):
    start_seconds = localization.sound_start_seconds + seconds
    return replace(localization, sound_start_seconds=start_seconds)


def test_overlapping_seconds_are_averaged(localizations):
    """Half a second of the first sound, then of both, then of the second."""
    low, high = (
        np.zeros_like(localizations[0].spectrogram),
        np.ones_like(localizations[0].spectrogram),
    )
    quiet = replace(localizations[0], sound_map=HeatMap(np.zeros((4, 4), np.float32)))
    pair = [
        replace(quiet, spectrogram=low, sound_start_seconds=0.0),
        replace(quiet, spectrogram=high, sound_start_seconds=0.5),
    ]
    luma = ScrollingSpectrogram(pair, 8, 150, 1.5).visible_part(0.0)[0].astype(float)
    first, both, second = luma[:, :49].mean(), luma[:, 51:99].mean(), luma[:, 101:].mean()
    assert first < 20 < both - 50
    assert both < second - 50


def test_low_frequencies_and_their_map_are_at_the_bottom(localizations):
    low = np.zeros_like(localizations[0].spectrogram)
    low[: len(low) // 2] = 1
    heat = HeatMap(np.array([[1], [0]], np.float32))
    alone = [replace(localizations[0], spectrogram=low, sound_map=heat)]
    luma, _, red = ScrollingSpectrogram(alone, 40, 100, 1.0).visible_part(0.0)
    assert luma[-5:].mean() > luma[:5].mean() + 50
    assert red[-5:].mean() > 130 > red[:5].mean()


@pytest.mark.parametrize(
    ("start", "seconds", "ticks"),
    [(0, 2, [0, 0.5, 1, 1.5, 2]), (3.2, 10, [4, 6, 8, 10, 12]), (0, 7200, [0, 3600, 7200])],
)
def test_ticks_of_the_axis_are_round_times(start, seconds, ticks):
    assert axis_ticks(start, seconds, 5).tolist() == ticks


def test_the_command_line_writes_the_overlay_or_not(clock, run_path, tmp_path, capsys):
    arguments = ["localize", str(clock), "--checkpoint", str(run_path), "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["moments"], summary["silent_moments"], summary["stills"]) == (10, 0, 2)
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {
        "overlay.mp4",
        "sheet.png",
        "maps.npz",
        *(f"00{n}_{kind}.png" for n in (0, 1) for kind in ("frame", "sound")),
    }
    maps = np.load(tmp_path / "out" / "maps.npz")
    assert len(maps["at_seconds"]) == len(maps["frame_maps"]) == 10
    assert np.diff(maps["at_seconds"][maps["still_rows"]]) == pytest.approx(1.0, abs=0.25)
    assert len(video_frames(tmp_path / "out" / "overlay.mp4")[0]) == 50
    assert main([*arguments[:-1], str(tmp_path / "stills"), "--no-overlay"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["moments"], summary["stills"]) == (2, 2)
    assert not (tmp_path / "stills" / "overlay.mp4").exists()


def test_silence_has_no_probability(run_path, tmp_path, capsys):
    video = tmp_path / "silent.mp4"
    write_clock_video(video, seconds=3.0, amplitude=0.0)
    out = tmp_path / "out"
    verb = ["localize", str(video), "--checkpoint", str(run_path), "-o", str(out), "--no-overlay"]
    assert main(verb) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["mean_probability"] is None
    assert summary["silent_moments"] == summary["moments"] > 0
    assert np.load(out / "maps.npz")["is_silent"].all()


def test_the_size_of_a_video_is_its_visible_size(clock):
    assert (measure_video(clock).width, measure_video(clock).height) == (CLOCK_SIDE, CLOCK_SIDE)
    assert measure_video(clock).duration_seconds == pytest.approx(2.0, abs=0.03)
