"""Pictures of high dynamic range are seen as on an ordinary display: known brightness becomes a
known gray.
"""

from fractions import Fraction

import av
import numpy as np
import pytest

from conftest import SHARED
from looklisten.data.cutting import cut
from looklisten.data.options import PrepareOptions
from looklisten.data.sources import Source
from looklisten.media.decode.decode import decode_media
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport, Frame
from looklisten.media.isolation.readers import redraw_video
from test_cutting import mux_sound, noise

BT709, BT2020, BT2020_10, PQ, HLG = 1, 9, 14, 16, 18
LIMITED, FULL = 1, 2
NITS = np.array([0, 1, 5, 20, 50, 100, 203, 1000])
GRAYS = np.rint(255 * np.clip(NITS / 203, 0, 1) ** (1 / 2.4))
"""What BT.1886 makes of them where 203 nits are white."""

SIDE, STRIPE = 256, 32


def pq(nits):
    """The signal of a brightness, SMPTE ST 2084, equation 5.2."""
    power = (np.asarray(nits) / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(nits):
    """The signal of a gray of a brightness on a display of 1,000 nits, ITU-R BT.2100, tables 5."""
    scene = (np.asarray(nits) / 1000) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    )


def write_stripes(
    path, luma, blue=0.0, red=0.0, transfer=PQ, primaries=BT2020, matrix=BT2020, color_range=LIMITED
):
    """A 10-bit film of eight stripes: luma 0..1, blue and red differences -0.5..0.5."""
    scale, floor, chroma = (876, 64, 896) if color_range == LIMITED else (1023, 0, 1023)
    values = (
        floor + scale * np.asarray(luma),
        512 + chroma * np.asarray(blue),
        512 + chroma * np.asarray(red),
    )
    with av.open(path, "w") as container:
        video = container.add_stream("ffv1", 25)
        video.width, video.height, video.pix_fmt = SIDE, 64, "yuv444p10le"
        codec = video.codec_context
        codec.color_trc, codec.color_primaries, codec.colorspace, codec.color_range = (
            transfer,
            primaries,
            matrix,
            color_range,
        )
        audio = container.add_stream("pcm_s16le", 48_000, layout="mono")
        for number in range(30):
            frame = av.VideoFrame(SIDE, 64, "yuv444p10le")
            for plane, value in zip(frame.planes, values, strict=True):
                rows = np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2)
                rows[:, :SIDE] = np.repeat(
                    np.rint(np.broadcast_to(value, 8)).astype(np.uint16), STRIPE
                )
            frame.pts, frame.time_base = number, Fraction(1, 25)
            frame.colorspace, frame.color_range = matrix, color_range
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        mux_sound(container, audio, noise(1.2), "mono")
    return path


def stripes(path):
    """The middle of each stripe as RGB `[8, 3]`, and the marks of the file."""
    report = DecodeReport()
    frame = next(
        event for event in decode_media(path, DecodeOptions(), report) if isinstance(event, Frame)
    )
    return frame.rgb()[32, STRIPE // 2 :: STRIPE].astype(int), report.flags


@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize(("signal", "transfer"), [(pq, PQ), (hlg, HLG)])
def test_known_brightness_becomes_a_known_gray(tmp_path, signal, transfer, color_range):
    path = write_stripes(
        tmp_path / "a.mkv", signal(NITS), transfer=transfer, color_range=color_range
    )
    seen, marks = stripes(path)
    assert np.abs(seen - GRAYS[:, None]).max() <= 3
    assert marks == {"hdr"}
    (clip,) = cut(path, Source("a.mkv"), PrepareOptions())
    assert "hdr" in clip.marks

    def copy(at_seconds, picture, canvas):
        for plane, target in zip(picture, canvas, strict=True):
            target[...] = plane

    redraw_video(path, tmp_path / "drawn.mp4", (SIDE, 64), (SIDE, 64), copy)
    assert np.abs(stripes(tmp_path / "drawn.mp4")[0] - GRAYS[:, None]).max() <= 8


def yuv2020(rgb):
    """Luma and differences of blue and red of a signal, ITU-R BT.2020, table 4."""
    luma = 0.2627 * rgb[0] + 0.6780 * rgb[1] + 0.0593 * rgb[2]
    return luma, (rgb[2] - luma) / 1.8814, (rgb[0] - luma) / 1.4746


TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""Linear light of BT.709 -> of BT.2020 (ITU-R BT.2087)."""

COLORS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 60)])


@pytest.mark.parametrize("kind", ["PQ", "10 bits of wide gamut"])
@pytest.mark.parametrize("color", COLORS)
def test_colors_of_a_wide_gamut_come_through(tmp_path, kind, color):
    """A color of ordinary video, written in BT.2020, is that color again."""
    light = TO_BT2020 @ (color / 255) ** 2.4
    if kind == "PQ":
        path = write_stripes(tmp_path / "a.mkv", *yuv2020(pq(203 * light)))
    else:
        path = write_stripes(tmp_path / "a.mkv", *yuv2020(light ** (1 / 2.4)), transfer=BT2020_10)
    seen, marks = stripes(path)
    assert np.abs(seen[4] - color).max() < 30  # next to black, a step of ten bits is seen
    assert marks == ({"hdr"} if kind == "PQ" else set())


@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize(("primaries", "matrix"), [(BT709, BT709), (BT2020, BT2020), (2, 2)])
def test_ten_bits_of_the_ordinary_range_stay_as_they_are(tmp_path, primaries, matrix, color_range):
    grays = np.linspace(0, 1, 8)
    path = write_stripes(
        tmp_path / "a.mkv",
        grays,
        transfer=BT709,
        primaries=primaries,
        matrix=matrix,
        color_range=color_range,
    )
    seen, marks = stripes(path)
    assert np.abs(seen - 255 * grays[:, None]).max() <= 3
    assert marks == set()


@pytest.mark.skipif(not SHARED.exists(), reason="the clip is not there")
def test_a_clip_of_high_range_is_marked():
    clips = list(cut(SHARED / "faults" / "14_hdr10_pq.mp4", Source("14"), PrepareOptions()))
    assert all("hdr" in clip.marks for clip in clips)
