"""Of several streams of a kind, the one that is meant is taken, and what is passed over is written
down.
"""

import struct
import sys
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition

from conftest import SHARED, small_config, write_clock_video
from heic_files import TILE_SIDE, write_heic
from looklisten.errors import SourceError
from looklisten.inference.embedding.embed import embed
from looklisten.media.decode.decode import decode_media, list_streams
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport, Frame
from looklisten.media.decode.stream_choice import choose_video
from looklisten.media.image_files import register_heif
from looklisten.media.images import read_image
from looklisten.media.isolation.readers import is_image
from looklisten.media.redraw import measure_video
from looklisten.model.l3net import L3Net
from test_cutting import RATE, mux_sound

D = Disposition
PICTURE = {"side": 64, "seconds": 2.0, "flags": D(0), "codec": "libx264"}
SOUND = {"seconds": 2.0, "flags": D(0)}
SOUND_STEP = 0.05


def write_tracks(path, pictures, sounds):
    """Track n of pictures is gray of the level 40 + 50 n; track n of sound is the constant (n + 1)
    * SOUND_STEP.
    """
    with av.open(path, "w") as container:
        videos, audios = [], []
        for changes in pictures:
            options = PICTURE | changes
            stream = container.add_stream(options["codec"], 25)
            stream.width = stream.height = options["side"]
            stream.pix_fmt = "yuvj420p" if options["codec"] == "mjpeg" else "yuv420p"
            stream.disposition = options["flags"].value
            videos.append((stream, options))
        for changes in sounds:
            options = SOUND | changes
            stream = container.add_stream(
                "pcm_s16le" if path.suffix != ".ts" else "mp2", RATE, layout="mono"
            )
            stream.disposition = options["flags"].value
            audios.append((stream, options))
        for number, (stream, options) in enumerate(videos):
            pixels = np.full((options["side"], options["side"], 3), 40 + 50 * number, np.uint8)
            for index in range(max(round(options["seconds"] * 25), 1)):
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        for number, (stream, options) in enumerate(audios):
            wave = np.full(
                (1, round(options["seconds"] * RATE)), (number + 1) * SOUND_STEP, np.float32
            )
            mux_sound(container, stream, wave, "mono")
    return path


def chosen(path):
    """The numbers of the tracks of picture and sound that are decoded, and what was passed over."""
    report = DecodeReport()
    events = list(decode_media(path, DecodeOptions(), report))
    frames = [event for event in events if isinstance(event, Frame)]
    sound = np.concatenate([event.samples for event in events if not isinstance(event, Frame)])
    levels = [float(frame.planes[0].mean()) for frame in frames]
    return (
        round((np.mean(levels) - 40) / 50),
        round(float(np.median(sound)) / SOUND_STEP) - 1,
        report.skipped_streams,
    )


default = {"flags": D.default}
CASES = {
    "the first of equals": ([{}, {}], [{}, {}], (0, 0)),
    "the default": ([{}, default], [{}, default], (1, 1)),
    "the first of two defaults": ([default, default], [default, default], (0, 0)),
    "the first of two defaults, later": ([{}, default, default], [{}, default, default], (1, 1)),
    "the larger": ([{"side": 32}, {}], [{}], (1, 0)),
    "the larger of two defaults": ([{"side": 32} | default, default], [default], (1, 0)),
    "a small default is what somebody chose": ([{}, {"side": 32} | default], [{}], (1, 0)),
    "no preview of one large frame": ([{"seconds": 0.04, "side": 128} | default, {}], [{}], (1, 0)),
    "no short preview": ([{"seconds": 0.5, "side": 128} | default, default], [{}], (1, 0)),
    "no jingle": ([{}], [{"seconds": 0.3} | default, {}], (0, 1)),
    "no commentary": ([{}], [{"flags": D.comment}, {}], (0, 1)),
    "no commentary, though it is the default": (
        [{}],
        [{"flags": D.comment | D.default}, {}],
        (0, 1),
    ),
    "no description of the picture": ([{}], [{"flags": D.visual_impaired | D.default}, {}], (0, 1)),
    "no mix for people who hear badly": ([{}], [{"flags": D.hearing_impaired}, {}], (0, 1)),
    "a commentary alone": ([{}], [{"flags": D.comment}], (0, 0)),
    "of two commentaries the default": (
        [{}],
        [{"flags": D.comment}, {"flags": D.comment | D.default}],
        (0, 1),
    ),
}


def stored_flags(path):
    with av.open(path) as container:
        return [stream.disposition.value for stream in container.streams]


@pytest.mark.parametrize("case", CASES)
def test_the_stream_that_is_meant_is_taken(tmp_path, case):
    pictures, sounds, wanted = CASES[case]
    flags = [(PICTURE | track)["flags"].value for track in pictures]
    flags += [(SOUND | track)["flags"].value for track in sounds]
    # Matroska says how long each track is, and NUT keeps flags as they are.
    paths = [write_tracks(tmp_path / f"a.{suffix}", pictures, sounds) for suffix in ("mkv", "nut")]
    able = [
        path
        for path in paths
        if stored_flags(path) == flags or (path.suffix == ".mkv" and "preview" in case)
    ]
    assert able
    picture, sound, passed_over = chosen(able[0])
    assert (picture, sound) == wanted
    assert len(passed_over) == len(pictures) + len(sounds) - 2
    assert measure_video(able[0]).width == (PICTURE | pictures[wanted[0]])["side"]


def stream(**values):
    """A stream as PyAV has it, for what no muxer here writes."""
    usual = {
        "index": 0,
        "type": "video",
        "width": 64,
        "height": 48,
        "frames": 0,
        "disposition": D(0),
        "metadata": {},
    }
    codec = SimpleNamespace(
        codec_tag="", format="yuv420p", sample_rate=48_000, layout=SimpleNamespace(nb_channels=2)
    )
    return SimpleNamespace(
        **usual
        | {"duration": None, "time_base": None, "language": None, "codec_context": codec}
        | values
    )


@pytest.mark.parametrize(
    "secondary",
    [
        {"disposition": D.still_image | D.default},
        {"disposition": D.dependent | D.default},
        {"width": 0, "height": 0},
        {"duration": 0, "time_base": Fraction(1, 1000)},
        {"metadata": {"DURATION-eng": "00:00:00.500000000"}},
        {"metadata": {"enc_key_id": "abc"}},
    ],
)
def test_a_picture_that_is_secondary_is_taken_only_alone(secondary):
    other = stream(**secondary)
    film = stream(index=1, metadata={"DURATION": "00:01:00.0"})
    assert choose_video([other, film]).stream is film
    assert choose_video([other]).stream is other


def test_what_is_passed_over_is_said_in_words(tmp_path):
    path = write_tracks(
        tmp_path / "a.mkv", [{"side": 32}, default], [default, {"flags": D.comment}]
    )
    _, _, passed_over = chosen(path)
    assert passed_over[0].startswith("stream 0, video of 32 x 32, 2.0 s")
    assert passed_over[1] == "stream 3, audio, 2.0 s, comment"


def test_mp4_marks_every_track_as_default_and_the_film_is_taken(tmp_path):
    """Beside the film: a proxy, and a preview of one frame that has more pixels than either."""
    tracks = [{"side": 32}, {"side": 128, "seconds": 0.04}, {}]
    path = write_tracks(tmp_path / "a.mov", [track | default for track in tracks], [default])
    assert stored_flags(path)[:3] == [1, 1, 1]
    assert chosen(path)[0] == 2


def test_a_track_that_holds_nothing_is_passed_over(tmp_path):
    path = write_tracks(tmp_path / "a.mkv", [{}], [{}])
    with av.open(path) as source, av.open(tmp_path / "empty.mkv", "w") as target:
        empty = [target.add_stream_from_template(stream) for stream in source.streams]
        assert len(empty) == 2
        full = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = full[packet.stream_index]
                target.mux(packet)
    assert chosen(tmp_path / "empty.mkv")[:2] == (0, 0)


# Photographs


def tiles(count):
    """Squares of one color each; the colors are far apart."""
    colors = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    return [
        np.full((TILE_SIDE, TILE_SIDE, 3), colors[number % 3], np.uint8) for number in range(count)
    ]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return L3Net(small_config().model).eval()


@pytest.mark.parametrize("count", [3, 70])
def test_a_photograph_in_tiles_is_a_sentence_or_a_picture(tmp_path, model, count, monkeypatch):
    """A tile is not the photograph. 70 tiles are more streams than a film may have."""
    path = write_heic(tmp_path / "photo.heic", tiles(count))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    assert not register_heif()
    if is_image(path):
        pytest.skip("pillow-heif was registered before")
    with pytest.raises(SourceError, match=r"photo\.heic .*save it as JPEG, or install pillow-heif"):
        embed(path, model)


def test_a_photograph_in_tiles_is_put_together_where_pillow_heif_is_installed(tmp_path, model):
    pytest.importorskip("pillow_heif")
    path = write_heic(tmp_path / "photo.heic", tiles(3))
    pixels = read_image(path, TILE_SIDE).numpy().astype(int)
    assert pixels.shape == (TILE_SIDE, 3 * TILE_SIDE, 3)
    for number, tile in enumerate(tiles(3)):
        middle = pixels[TILE_SIDE // 2, number * TILE_SIDE + TILE_SIDE // 2]
        assert np.abs(middle - tile[0, 0]).max() < 20
    assert len(embed(path, model)) == 1


def test_a_still_gives_one_vector(tmp_path, model):
    path = write_heic(tmp_path / "photo.heic", tiles(1))
    assert list_streams(path).has_video
    found = embed(path, model, hop_seconds=0.1)
    assert (len(found), found.start_seconds.tolist()) == (1, [0.0])
    slow = write_tracks(tmp_path / "one.mp4", [{"seconds": 0.04}], [])
    assert len(embed(slow, model, side="vision", hop_seconds=0.01)) == 1


def test_films_of_one_picture_stream_are_no_stills(tmp_path, model):
    write_clock_video(tmp_path / "a.mp4", seconds=1.0)
    assert len(embed(tmp_path / "a.mp4", model, side="vision", hop_seconds=0.1)) == 10


# Encryption

KEY = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb"}
KEY |= {"encryption_kid": "a7e61c373e219033c21091fa607bf3b8"}


def encrypted(path, suffix="mp4"):
    write_clock_video(path.with_name(f"plain.{suffix}"), seconds=2.0)
    with (
        av.open(path.with_name(f"plain.{suffix}")) as source,
        av.open(path, "w", options=KEY) as target,
    ):
        copies = {
            stream.index: target.add_stream_from_template(stream) for stream in source.streams
        }
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                target.mux(packet)
    return path


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_an_encrypted_file_is_named_so_before_anything_comes_out(tmp_path, kind):
    path = encrypted(tmp_path / "a.mp4")
    wanted = DecodeOptions(video=kind == "video", audio=kind == "audio")
    with pytest.raises(
        SourceError, match=rf"a\.mp4 has an encrypted {kind} stream; decrypt the file"
    ):
        next(decode_media(path, wanted))
    with pytest.raises(SourceError, match="encrypted video"):
        measure_video(path)


TRACKS, TRACK = b"\x16\x54\xae\x6b", b"\xae"


def element(number, content):
    """An element of Matroska (RFC 8794): its number, its size in eight bytes, its content."""
    return number + struct.pack(">Q", 1 << 56 | len(content)) + content


def content_of(data, begin):
    """Where the content of an element begins and ends, given where its size stands."""
    length = 9 - data[begin].bit_length()
    size = int.from_bytes(data[begin : begin + length], "big") & ((1 << 7 * length) - 1)
    return begin + length, begin + length + size


def test_an_encrypted_track_of_matroska_is_named_so(tmp_path):
    """Each track gets ContentEncodings (RFC 9559, 5.1.4.1.31) of the kind encryption, with the id
    of a key.
    """
    write_clock_video(tmp_path / "plain.mkv", seconds=1.0, audio_codec="pcm_s16le")
    data = (tmp_path / "plain.mkv").read_bytes()
    key = element(
        b"\x50\x35", element(b"\x47\xe1", b"\x05") + element(b"\x47\xe2", b"0123456789abcdef")
    )
    encodings = element(b"\x6d\x80", element(b"\x62\x40", element(b"\x50\x33", b"\x01") + key))
    place = data.index(TRACKS, data.index(TRACKS) + 1)  # the first is a pointer to it
    begin, end = content_of(data, place + len(TRACKS))
    changed, inside = b"", begin
    while inside < end:
        content, inside_next = content_of(data, inside + 1)
        is_track = data[inside : inside + 1] == TRACK
        changed += (
            element(TRACK, data[content:inside_next] + encodings)
            if is_track
            else data[inside:inside_next]
        )
        inside = inside_next
    (tmp_path / "a.mkv").write_bytes(data[:place] + element(TRACKS, changed) + data[end:])
    with pytest.raises(SourceError, match=r"a\.mkv has an encrypted video stream"):
        next(decode_media(tmp_path / "a.mkv", DecodeOptions()))


# Clips that show the fault, where they are


@pytest.mark.skipif(not SHARED.exists(), reason="the clips are not there")
@pytest.mark.parametrize(
    ("name", "passed_over"),
    [
        ("10_default_sound_track_is_second.mkv", ["stream 1, audio, 4.0 s"]),
        ("10_small_proxy_track_first.mkv", ["stream 0, video of 64 x 48, 4.0 s"]),
    ],
)
def test_clips_whose_first_stream_is_not_the_one(name, passed_over):
    report = DecodeReport()
    assert list(decode_media(SHARED / "faults" / name, DecodeOptions(), report))
    assert report.skipped_streams == passed_over
