"""The overlay is its source: every frame at its own time, the sound as it was, and over it a glow
that means the map.
"""

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
from looklisten.drawing.heatmap_colors import overlaid, overlay_planes, to_planes
from looklisten.drawing.overlay_video import WINDOW_SECONDS, without_pictures
from looklisten.drawing.spectrogram_strip import Strip, marks
from looklisten.errors import ConfigError, SourceError
from looklisten.inference.localization.enlarge import enlarged
from looklisten.inference.localization.localize import HeatMap, localize
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
def found(clock, network):
    return localize(clock, network, every_seconds=0.4)


def with_map(found, *values):
    """The same moments, the map of each planted; the last serves all the rest."""
    maps = [np.array(values[min(i, len(values) - 1)], np.float32) for i in range(len(found))]
    return [
        replace(one, frame_map=HeatMap(values, one.at_seconds), method="unit")
        for one, values in zip(found, maps, strict=True)
    ]


def dark(found):
    return with_map(found, np.zeros((4, 4)))


def pictures(path):
    """When frames are shown, counted from the container's start, and what they show."""
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
    """The time that the source's frame shows, seen through the overlay."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:side, :side]), "rgb24")
    seen = frame.reformat(CLOCK_SIDE, CLOCK_SIDE, interpolation="AREA").to_ndarray().astype(float)
    return read_clock(seen * 128 / 92)  # the gray between the blocks, 128, is darkened to 92


def remade(source, out, audio_codec=None, turn=0):
    """The same packets of picture in another container, perhaps turned, perhaps with the sound in
    another codec.
    """
    with av.open(str(source)) as container, av.open(str(out), "w") as film:
        seen, heard = container.streams.video[0], container.streams.audio[0]
        video = film.add_stream_from_template(seen)
        if turn:
            video.set_display_rotation(turn)
        audio = (
            film.add_stream(audio_codec, 48_000, layout="stereo", options={"strict": "-2"})
            if audio_codec
            else None
        )
        copy = audio or film.add_stream_from_template(heard)
        for packet in container.demux(seen, heard):
            if packet.size and (packet.stream is seen or not audio):
                packet.stream = video if packet.stream is seen else copy
                film.mux(packet)
        if audio:
            container.seek(0)
            for frame in container.decode(heard):
                film.mux(
                    audio.encode(
                        frame.reformat(layout="stereo")
                        if hasattr(frame, "reformat")
                        else stereo(frame)
                    )
                )
            film.mux(audio.encode(None))
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
    how, copied = SOURCES[name]
    source, film = tmp_path / name, tmp_path / "overlay.mp4"
    write_clock_video(source, seconds=2.0, **{"times": np.arange(0, 2.0, 0.08), **how})
    overlay(source, dark(localize(source, network, every_seconds=1.0)), film)
    (at, _), (drawn_at, drawn) = pictures(source), pictures(film)
    assert len(drawn_at) == len(at)
    assert np.abs(drawn_at - at).max() <= 0.001
    assert length(film) == pytest.approx(length(source), abs=0.025)
    shown = np.array([clock_of(pixels, 480) for pixels in drawn])
    assert np.ptp(drawn_at - shown) <= 0.002  # a container may begin with a little sound
    of_source, of_film = packets(source), packets(film)
    same = len(of_film) == len(of_source) and all(
        map(bytes.endswith, of_source, of_film)
    )  # a transport stream's have a header more
    assert same == copied
    assert heard_apart(film) == pytest.approx(heard_apart(source), abs=0.002 if copied else 0.005)


def heard_apart(path):
    """How far the sound's clock is from where it is heard, at its middle; it starts where it
    starts.
    """
    sounds = list(decode_media(path, DecodeOptions(video=False)))
    wave = np.concatenate([sound.samples for sound in sounds])
    middle = len(wave) // 2
    return hear_clock(wave, middle) - (sounds[0].start_seconds + middle / SAMPLE_RATE_HZ)


def test_vorbis_becomes_aac(clock, found, tmp_path):
    source = remade(clock, tmp_path / "vorbis.mkv", "vorbis")
    film = overlay(source, dark(found), tmp_path / "overlay.mp4")
    with av.open(str(film)) as container:
        assert container.streams.audio[0].codec.canonical_name == "aac"
        assert container.streams.audio[0].channels == 2
    assert heard_apart(film) == pytest.approx(heard_apart(source), abs=0.005)


def test_a_hole_in_sound_that_is_encoded_stays_a_hole(clock, found, tmp_path):
    """A second of packets is left out; what comes after is heard when it was."""
    whole, source = tmp_path / "whole.mkv", tmp_path / "hole.mkv"
    write_clock_video(whole, seconds=2.0, audio_codec="pcm_s16le")
    with av.open(str(whole)) as container, av.open(str(source), "w") as film:
        streams = {
            stream.index: film.add_stream_from_template(stream) for stream in container.streams
        }
        for packet in container.demux():
            if packet.size and not (
                packet.stream.type == "audio" and 0.5 < packet.pts * packet.time_base < 1.3
            ):
                packet.stream = streams[packet.stream_index]
                film.mux(packet)
    film = overlay(source, dark(found), tmp_path / "overlay.mp4")
    with av.open(str(film)) as container:
        at = [packet.pts for packet in container.demux(audio=0) if packet.size]
    assert set(np.diff(at)) == {1024}, "silence is sound that is there"
    wave = np.concatenate(
        [sound.samples for sound in decode_media(film, DecodeOptions(video=False))]
    )
    assert hear_clock(wave, round(1.7 * SAMPLE_RATE_HZ)) == pytest.approx(1.7, abs=0.02)
    assert np.abs(wave[round(0.8 * SAMPLE_RATE_HZ) : round(1.1 * SAMPLE_RATE_HZ)]).max() < 0.01


def write_plain_video(path, width, height, pix_fmt="yuv444p", color=(128, 128, 128), **codec):
    """A second and a bit of one color with a tone; sizes may be odd."""
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
    ("size", "codec", "turn", "seen"),
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
def test_any_size_is_seen_upright_and_comfortably(size, codec, turn, seen, network, tmp_path):
    source = write_plain_video(tmp_path / "plain.mp4", *size, **codec)
    if turn:
        source = remade(source, tmp_path / "turned.mp4", turn=turn)
    planted = with_map(localize(source, network), [[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    film = overlay(source, planted, tmp_path / "overlay.mp4")
    at, drawn = pictures(film)
    assert len(at) == 12
    height, width = drawn[5].shape[:2]
    assert width == max(seen[0], 480)
    left = (width - seen[0]) // 2
    picture = drawn[5][: seen[1], left : left + seen[0]].astype(float)
    assert drawn[5][seen[1] + 2 : seen[1] + 6].max() < 40, "what is below the picture is dark"
    quarter = (
        picture[: seen[1] // 4, : seen[0] // 4].mean((0, 1)),
        picture[-seen[1] // 4 :, -seen[0] // 4 :].mean((0, 1)),
    )
    assert quarter[0][0] - quarter[0][2] > 30, "the map's corner glows"
    assert np.ptp(quarter[1]) < 6, "the opposite one is gray as it was"
    assert height % 2 == 0


def test_colors_of_the_source_come_through(network, tmp_path):
    source = write_plain_video(tmp_path / "blue.mp4", 64, 48, color=(40, 90, 200))
    _, drawn = pictures(overlay(source, dark(localize(source, network)), tmp_path / "overlay.mp4"))
    assert (
        np.abs(drawn[3][100:200, 100:300].mean((0, 1)) - 0.72 * np.array([40, 90, 200])).max() < 4
    )


def test_between_two_moments_the_map_is_mixed_in_proportion_to_time(clock, found, tmp_path):
    """Dark at the first moment, at its full value at the second: halfway it is drawn as a map of
    half the value is.
    """
    first, second = found[0].at_seconds, found[1].at_seconds
    half = (first + second) / 2
    rising = overlay(
        clock, with_map(found, np.zeros((4, 4)), np.full((4, 4), 0.8)), tmp_path / "rising.mp4"
    )
    steady = overlay(clock, with_map(found, np.full((4, 4), 0.4)), tmp_path / "steady.mp4")
    at, drawn = pictures(rising)
    place = int(np.abs(at - half).argmin())
    of_steady = pictures(steady)[1][place][10:400, 10:400].astype(float)
    share = (at[place] - first) / (second - first)
    assert abs(share - 0.5) < 0.06
    assert np.abs(drawn[place][10:400, 10:400].mean((0, 1)) - of_steady.mean((0, 1))).max() < 5
    later = drawn[int(np.abs(at - second).argmin())][10:400, 10:400].mean((0, 1))
    assert later[0] > of_steady.mean((0, 1))[0] + 15


def test_where_nothing_is_heard_nothing_glows(network, tmp_path):
    source = tmp_path / "late.mp4"
    write_clock_video(source, seconds=3.0, audio_late_seconds=1.4)
    film = overlay(
        source, with_map(localize(source, network), np.ones((4, 4))), tmp_path / "overlay.mp4"
    )
    at, drawn = pictures(film)
    warmth = np.array([np.ptp(pixels[:480, :480].mean((0, 1))) for pixels in drawn])
    assert warmth[at < 0.8].max() < 5
    assert warmth[at > 1.0].min() > 40


def test_the_cursor_moves_with_time(clock, found, tmp_path):
    at, drawn = pictures(overlay(clock, dark(found), tmp_path / "overlay.mp4"))
    strip = np.stack([pixels[500:, 13:-13].astype(float).min(2)[20:90] for pixels in drawn])
    places = np.array([column.min(0).argmax() for column in strip])
    assert np.abs(places - at / 2.0 * strip.shape[2]).max() < 4


def test_the_file_is_what_browsers_play(clock, found, tmp_path):
    film = overlay(clock, found, tmp_path / "overlay.mp4")
    with av.open(str(film)) as container:
        video = container.streams.video[0].codec_context
        assert (video.name, video.pix_fmt, video.profile) == ("h264", "yuv420p", "High")
    data = film.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "it plays before it is there whole"


def test_without_its_pictures_a_moment_makes_the_same_film(clock, found, tmp_path):
    light = [without_pictures(one) for one in found]
    assert not light[0].moment.clip.frames
    assert light[0].moment.frame.untyped_storage().nbytes() == 0
    assert without_pictures(found[0], keep_frame=True).moment.frame is found[0].moment.frame
    one, other = (
        overlay(clock, found, tmp_path / "a.mp4"),
        overlay(clock, light, tmp_path / "b.mp4"),
    )
    assert [pixels.tobytes() for pixels in pictures(one)[1]] == [
        pixels.tobytes() for pixels in pictures(other)[1]
    ]


def test_of_a_file_that_breaks_off_what_is_there_is_drawn(network, tmp_path):
    whole, source = tmp_path / "whole.mkv", tmp_path / "broken.mkv"
    write_clock_video(whole, seconds=4.0)
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    film = overlay(source, dark(localize(source, network)), tmp_path / "overlay.mp4")
    assert 20 < len(pictures(source)[0]) == len(pictures(film)[0]) < 90


def test_what_cannot_be_drawn_is_said_and_leaves_nothing(clock, found, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    out = tmp_path / "out"
    out.mkdir()
    silent = tmp_path / "silent.mp4"
    with av.open(str(clock)) as container, av.open(str(silent), "w") as film:
        copy = film.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = copy
                film.mux(packet)
    with pytest.raises(SourceError, match=r"text\.mp4 cannot be opened as video"):
        overlay(tmp_path / "text.mp4", found, out / "overlay.mp4")
    with pytest.raises(
        SourceError,
        match=r"silent\.mp4 has no sound stream that can be decoded; both picture and sound are needed",
    ):
        overlay(silent, found, out / "overlay.mp4")
    with pytest.raises(
        ConfigError, match="there are no maps to draw; give what localize found in this video"
    ):
        overlay(clock, [], out / "overlay.mp4")
    with pytest.raises(
        ConfigError, match=r"overlay.webm: the overlay is an MP4 file; name it overlay.mp4"
    ):
        overlay(clock, found, out / "overlay.webm")
    assert not list(out.iterdir())


def test_a_film_that_is_not_finished_has_no_name(clock, found, tmp_path):
    def stop(done, total, /, **facts):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        overlay(clock, found, out / "overlay.mp4", stop)
    assert not list(out.iterdir())


def test_a_frame_of_a_film_glows_as_a_still_does():
    """Through tables on luma and chroma the same as on red, green and blue, where chroma is known
    for every pixel.
    """
    rng = np.random.default_rng(0)
    ground = np.repeat(np.repeat(rng.random((20, 30, 3), dtype=np.float32), 2, 0), 2, 1)
    heat = np.repeat(np.repeat(rng.random((20, 30), dtype=np.float32), 2, 0), 2, 1)
    y, u, v = to_planes(ground)
    drawn = tuple(
        np.empty((side.shape[0], side.shape[1] + 3), np.uint8)[:, :-3]
        for side in (y, u[::2, ::2], v[::2, ::2])
    )
    overlay_planes((y, u[::2, ::2], v[::2, ::2]), heat, drawn)
    wanted = to_planes(overlaid(ground, heat))
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
    assert np.allclose(enlarged(values, *size), exact, atol=1e-5)


def test_a_window_of_the_strip_is_the_same_piece_of_sound_wherever_it_begins(clock, found):
    """Ten seconds of moments made of two; windows that begin elsewhere overlap to the pixel, across
    the strip's pieces too.
    """
    long = [shifted(one, 2.0 * lap) for lap in range(8) for one in found]
    strip = Strip(long, 60, 200, WINDOW_SECONDS)
    assert strip.pixels_per_second == 20
    early, late = strip.window(0.0), strip.window(3.0)
    for one, other in zip(early, late, strict=True):
        assert one.shape == (60, 200)
        assert (one[:, 60:] == other[:, :140]).all()
    assert np.ptp(early[0]) > 50
    empty = strip.window(40.0)[0]
    assert (empty == 16).all(), "black where nothing was heard"


def shifted(one, seconds):
    clip = replace(one.moment.clip, start_seconds=one.moment.clip.start_seconds + seconds)
    return replace(one, moment=replace(one.moment, clip=clip))


def test_overlapping_seconds_are_averaged(found):
    """Half a second of the first alone, of both, of the second alone."""
    low, high = np.zeros_like(found[0].spectrogram), np.ones_like(found[0].spectrogram)
    nothing = HeatMap(np.zeros((4, 4), np.float32), 0.0)
    clip = replace(found[0].moment.clip, start_seconds=0.0)
    pair = [
        replace(
            found[0],
            spectrogram=values,
            sound_map=nothing,
            moment=replace(found[0].moment, clip=clip, start_seconds=start),
        )
        for values, start in ((low, 0.0), (high, 0.5))
    ]
    luma = Strip(pair, 8, 150, 1.5).window(0.0)[0].astype(float)
    first, both, second = luma[:, :49].mean(), luma[:, 51:99].mean(), luma[:, 101:].mean()
    assert first < 20 < both - 50
    assert both < second - 50


def test_low_frequencies_lie_below_and_so_does_their_map(found):
    low = np.zeros_like(found[0].spectrogram)
    low[: len(low) // 2] = 1
    heat = HeatMap(np.array([[1], [0]], np.float32), 0.0)
    alone = [replace(found[0], spectrogram=low, sound_map=heat)]
    luma, _, red = Strip(alone, 40, 100, 1.0).window(0.0)
    assert luma[-5:].mean() > luma[:5].mean() + 50
    assert red[-5:].mean() > 130 > red[:5].mean()


@pytest.mark.parametrize(
    ("start", "seconds", "names"),
    [(0, 2, [0, 0.5, 1, 1.5, 2]), (3.2, 10, [4, 6, 8, 10, 12]), (0, 7200, [0, 3600, 7200])],
)
def test_an_axis_names_round_times(start, seconds, names):
    assert marks(start, seconds, 5).tolist() == names


def test_the_shell_writes_the_film_and_leaves_it_away(clock, run_path, tmp_path, capsys):
    arguments = ["localize", str(clock), "--checkpoint", str(run_path), "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert '"moments": 10, "images": 2' in capsys.readouterr().out
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {
        "overlay.mp4",
        "sheet.png",
        "maps.npz",
        *(f"00{n}_{kind}.png" for n in (0, 1) for kind in ("frame", "sound")),
    }
    maps = np.load(tmp_path / "out" / "maps.npz")
    assert len(maps["at_seconds"]) == len(maps["frame_maps"]) == 10
    assert np.diff(maps["at_seconds"][maps["pictures"]]) == pytest.approx(1.0, abs=0.25)
    assert len(pictures(tmp_path / "out" / "overlay.mp4")[0]) == 50
    assert main([*arguments[:-1], str(tmp_path / "stills"), "--no-video"]) == 0
    assert '"moments": 2, "images": 2' in capsys.readouterr().out
    assert not (tmp_path / "stills" / "overlay.mp4").exists()


def test_the_outline_is_what_is_seen(clock):
    assert (measure_video(clock).width, measure_video(clock).height) == (CLOCK_SIDE, CLOCK_SIDE)
    assert measure_video(clock).duration_seconds == pytest.approx(2.0, abs=0.03)
