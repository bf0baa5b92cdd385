"""A picture is seen upright whatever the display matrix of its file says: turned, mirrored, or
both.
"""

import struct

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from PIL import Image

from looklisten.media.decode.decode import decode_media
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.orientation import Orientation, orientation_of_matrix
from looklisten.media.decode.records import Frame
from looklisten.media.images import read_image
from looklisten.media.isolation.readers import read_video_info, redraw_video
from test_cutting import noise, write_video

HEIGHT, WIDTH = 96, 160
STORED = np.full((HEIGHT, WIDTH), 60, np.uint8)
STORED[: HEIGHT // 2, : WIDTH // 2] = 250
STORED[: HEIGHT // 4, WIDTH // 2 :] = 150
"""A picture that looks different from each of the eight sides."""

MATRICES = {
    "as it is": ((1, 0, 0, 1), lambda p: p),
    "to the right": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "half a turn": ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
    "to the left": ((0, -1, 1, 0), lambda p: np.rot90(p)),
    "left and right change": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "top and bottom change": ((1, 0, 0, -1), lambda p: p[::-1]),
    "rows become columns": ((0, 1, 1, 0), lambda p: p.T),
    "rows become columns, from the end": ((0, -1, -1, 0), lambda p: p[::-1, ::-1].T),
}
"""The numbers a, b, c, d of ISO 14496-12, 8.3.2, and what they make of the rows and columns of a
picture.
"""


def with_matrix(path, numbers):
    """Write the matrix into the header of the first track."""
    a, b, c, d = (number << 16 for number in numbers)
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("orientation") / "film.mp4"
    frames = np.repeat(np.repeat(STORED[None, :, :, None], 3, 3), 30, 0)
    write_video(path, frames, noise(1.2))
    return path


def first_luma(path):
    event = next(event for event in decode_media(path, DecodeOptions()) if isinstance(event, Frame))
    return event.planes[0].astype(int)


@pytest.mark.parametrize("name", MATRICES)
def test_all_eight_matrices_are_followed(film, name):
    numbers, turned = MATRICES[name]
    with_matrix(film, numbers)
    wanted = turned(STORED).astype(int)
    height, width = wanted.shape
    seen = first_luma(film)
    assert seen.shape == wanted.shape
    assert np.abs(seen - wanted).mean() < 5
    size = read_video_info(film)
    assert (size.height, size.width) == wanted.shape

    def copy(at_seconds, picture, canvas):
        for plane, target in zip(picture, canvas, strict=True):
            target[...] = plane

    redraw_video(film, film.with_name("redrawn.mp4"), (width, height), (width, height), copy)
    assert np.abs(first_luma(film.with_name("redrawn.mp4")) - wanted).mean() < 5


def test_pixels_that_are_not_square_are_made_square_before_the_turn(tmp_path):
    path = tmp_path / "wide.mp4"
    frames = np.repeat(np.repeat(STORED[None, :, :, None], 3, 3), 30, 0)
    write_video(path, frames, noise(1.2), sample_aspect_ratio=2)
    with_matrix(path, (0, 1, 1, 0))
    assert first_luma(path).shape == (WIDTH, HEIGHT // 2)
    assert (read_video_info(path).height, read_video_info(path).width) == (WIDTH, HEIGHT // 2)


@pytest.mark.parametrize(
    ("matrix", "orientation"),
    [
        ((7, 0, 0, 7), Orientation()),
        ((0, 0, 0, 0), Orientation()),
        ((1, 1, 1, 1), Orientation()),
        ((0.99, 0.1, -0.1, 0.99), Orientation()),
        ((0.1, 0.99, -0.99, 0.1), Orientation(False, 3)),
        ((-0.99, -0.1, -0.1, 0.99), Orientation(True, 0)),
    ],
)
def test_a_matrix_becomes_the_nearest_quarter_turn(matrix, orientation):
    assert orientation_of_matrix(*matrix) == orientation


EXIF = {1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1]}
EXIF |= {
    5: lambda p: p.T,
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].T,
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("number", EXIF)
def test_all_eight_orientations_of_photographs_are_followed(tmp_path, suffix, number):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = number
    Image.fromarray(STORED).save(path, exif=exif)
    wanted = EXIF[number](STORED)
    seen = read_image(path, HEIGHT).numpy()[..., 0]
    assert seen.shape == wanted.shape
    assert np.abs(seen.astype(int) - wanted).mean() < 3


def test_the_matrix_of_a_frame_is_read_from_pyav(film):
    """PyAV gives side data in the byte order of the file; a change of that would show here."""
    with_matrix(film, (0, 1, 1, 0))
    with av.open(film) as container:
        frame = next(container.decode(video=0))
        assert struct.unpack_from("=5i", bytes(frame.side_data["DISPLAYMATRIX"])) == (
            0,
            1 << 16,
            0,
            1 << 16,
            0,
        )


def cropped(film, path, left):
    """A copy of a film whose stream hides columns at the left."""
    with av.open(film) as source, av.open(path, "w") as target:
        stored = source.streams.video[0]
        stream = target.add_stream_from_template(stored)
        crop = BitStreamFilterContext(f"h264_metadata=crop_left={left}", stored, stream)
        for packet in source.demux(stored):
            for changed in crop.filter(packet if packet.size else None):
                changed.stream = stream
                target.mux(changed)
    return path


@pytest.mark.parametrize("left", [16, 32])
def test_columns_that_a_stream_hides_are_not_seen(film, tmp_path, left):
    with_matrix(film, MATRICES["as it is"][0])
    path = cropped(film, tmp_path / "cropped.mp4", left)
    luma = next(decode_media(path, DecodeOptions(audio=False))).planes[0].astype(int)
    assert luma.shape == (HEIGHT, WIDTH - left)
    assert np.abs(luma - STORED[:, left:]).mean() < 4
