"""Whatever is handed over to be embedded gives a right vector or one sentence that says what, where
and what to do.
"""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import small_config, write_clock_video, write_sound
from looklisten.config import ModelConfig
from looklisten.errors import ConfigError, LookListenError, SourceError
from looklisten.inference.embedding.embed import embed
from looklisten.inference.embedding.stream import StreamingEmbedder
from looklisten.model.l3net import L3Net

RATE_HZ = 48_000


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return L3Net(small_config().model).eval()


def tone(seconds=1.5, rate_hz=RATE_HZ):
    return (0.5 * np.sin(np.arange(round(seconds * rate_hz)) * 0.1)).astype(np.float32)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# Sound: a sentence


@pytest.mark.parametrize(
    ("wave", "rate", "sentence"),
    [
        (np.zeros(0, np.float32), RATE_HZ, "an array of sound holds no sound"),
        (
            np.zeros((2, 0), np.float32),
            RATE_HZ,
            r"\[2, 0\] cannot be \[samples, channels\]|holds no sound",
        ),
        (
            np.where(np.arange(RATE_HZ) == 24_000, np.nan, 0.1),
            RATE_HZ,
            "holds a value that is no number .* at 0.500 s; repair it",
        ),
        (
            np.where(np.arange(RATE_HZ) == 4_800, -np.inf, 0.1),
            RATE_HZ,
            "holds a value that is no number .* at 0.100 s",
        ),
        (
            np.full(RATE_HZ, 20_000.0),
            RATE_HZ,
            r"reaches 20000 at 0.000 s, where floats lie in -1..1; divide it, or give it as int16",
        ),
        (np.zeros((2, 3, 100)), RATE_HZ, r"this array is \[2, 3, 100\]"),
        (np.zeros(()), RATE_HZ, r"this array is \[\]"),
        (np.zeros((100, 99)), RATE_HZ, r"\[100, 99\] cannot be .* with 1 to 64 channels"),
        (
            np.zeros(RATE_HZ, np.int64),
            RATE_HZ,
            "sound of type int64 has no known full scale; give floats",
        ),
        (np.zeros(RATE_HZ, bool), RATE_HZ, "sound of type bool"),
        (np.zeros(RATE_HZ, complex), RATE_HZ, "sound of type complex128"),
        (tone(), 0, "a sample rate of 0 Hz cannot be; give the rate of the array, such as 44100"),
        (tone(), float("nan"), "a sample rate of nan Hz"),
    ],
)
def test_what_is_no_sound_is_refused(model, wave, rate, sentence):
    with pytest.raises(SourceError, match=sentence):
        embed(wave, model, sample_rate_hz=rate)
    if wave.size and wave.ndim == 1 and rate == RATE_HZ:
        with pytest.raises(SourceError, match=sentence):
            StreamingEmbedder(model).push(wave)


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"hop_seconds": 0.0}, "hop_seconds 0 must be a number above 0"),
        ({"hop_seconds": -1.0}, "hop_seconds -1 must be a number above 0"),
        ({"hop_seconds": float("nan")}, "hop_seconds nan must be a number above 0"),
        ({"hop_seconds": 1e-6}, "must be at least one sample"),
        (
            {"layer": "pool5"},
            "there is no layer 'pool5'; the layers are pool4, conv4_2, aligned, texture",
        ),
        ({"batch_size": 0}, "batch_size 0 must be at least 1"),
        ({"align": True}, "align needs a video, which has two sides"),
        (
            {"sample_rate_hz": None},
            r"images are \[height, width, 3\] .* this array is \[72000\]; "
            "for sound pass sample_rate_hz",
        ),
        (
            {"sample_rate_hz": None, "side": "audio"},
            "an array of sound needs its rate: pass sample_rate_hz",
        ),
    ],
)
def test_choices_that_cannot_be_met_are_refused(model, choices, sentence):
    with pytest.raises(LookListenError, match=sentence):
        embed(tone(), model, **({"sample_rate_hz": RATE_HZ} | choices))


def test_a_network_without_a_shared_space_says_what_to_train():
    with pytest.raises(ConfigError, match="recipe general, contrastive or tiny"):
        embed(tone(), L3Net(ModelConfig(widths=(4, 8))), sample_rate_hz=RATE_HZ, layer="aligned")


# Sound: a right vector


def test_silence_and_a_single_sample_have_finite_vectors(model):
    for wave in (np.zeros(RATE_HZ, np.float32), np.ones(1, np.float32)):
        found = embed(wave, model, sample_rate_hz=RATE_HZ)
        assert found.vectors.shape == (1, 16)
        assert np.isfinite(found.vectors).all()
    normalized = embed(np.zeros(RATE_HZ, np.float32), model, sample_rate_hz=RATE_HZ, normalize=True)
    assert np.isfinite(normalized.vectors).all()


def seven(path):
    quiet = np.zeros((72_000, 7), np.float32)
    quiet[:, 2] = tone()
    return write_sound(path, quiet, codec="pcm_s16le", layout="7.0")


SOUNDS = {
    "8-bit": lambda folder: write_sound(folder / "a.wav", tone(), codec="pcm_u8"),
    "24-bit": lambda folder: write_sound(folder / "a.wav", tone(), codec="pcm_s24le"),
    "double": lambda folder: write_sound(folder / "a.wav", tone(), codec="pcm_f64le"),
    "stereo": lambda folder: write_sound(
        folder / "a.wav", np.stack([tone(), tone()], 1), layout="stereo"
    ),
    "flac": lambda folder: write_sound(folder / "a.flac", tone(), codec="flac"),
    "mp3": lambda folder: write_sound(folder / "a.mp3", tone(), codec="mp3"),
    "opus": lambda folder: write_sound(folder / "a.opus", tone(), codec="libopus"),
    "8 kHz": lambda folder: write_sound(folder / "a.wav", tone(rate_hz=8_000), 8_000),
    "no suffix": lambda folder: write_sound(folder / "a.wav", tone()).rename(folder / "recording"),
}


@pytest.mark.parametrize("kind", SOUNDS)
def test_files_of_any_kind_of_sound_are_heard(model, tmp_path, kind):
    found = embed(SOUNDS[kind](tmp_path), model)
    reference = embed(
        tone(rate_hz=8_000) if kind == "8 kHz" else tone(),
        model,
        sample_rate_hz=8_000 if kind == "8 kHz" else RATE_HZ,
    )
    assert abs(len(found) - len(reference)) <= 1
    assert cosine(found.vectors[0], reference.vectors[0]) > 0.99


def test_seven_channels_are_mixed(model, tmp_path):
    """The tone is in one of seven: it is heard, more quietly."""
    found = embed(seven(tmp_path / "a.wav"), model)
    assert len(found) == 2
    silence = embed(np.zeros(RATE_HZ, np.float32), model, sample_rate_hz=RATE_HZ)
    assert not np.allclose(found.vectors[0], silence.vectors[0])
    array = np.zeros((7, 72_000), np.float32)
    array[2] = 7 * 0.1 * tone()
    assert np.allclose(
        embed(array, model, sample_rate_hz=RATE_HZ).vectors,
        embed(0.1 * tone(), model, sample_rate_hz=RATE_HZ).vectors,
        atol=1e-4,
    )


def test_files_whose_floats_are_no_numbers(model, tmp_path):
    """A file's NaN is a hole of one sample, silent as a hole is; what is infinite is an error."""
    wave = tone()
    wave[100] = np.nan
    assert np.isfinite(embed(write_sound(tmp_path / "a.wav", wave), model).vectors).all()
    wave[100] = np.inf
    with pytest.raises(SourceError, match="the sound reaches"):
        embed(write_sound(tmp_path / "a.wav", wave), model)


# Files


@pytest.mark.parametrize("name", ["a.wav", "a.png", "a.mp4", "a"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Dear all,\n\nplease find attached\n" * 50,
        b"\x89PNG\r\n\x1a\n" + bytes(99),
        b"RIFF\xff\x00\x00\x00WAVEfmt ",
    ],
)
def test_files_that_are_no_media_are_refused(model, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as raised:
        embed(tmp_path / name, model)
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_and_a_folder_are_refused(model, tmp_path):
    for path in (tmp_path / "nowhere.wav", tmp_path):
        with pytest.raises(SourceError, match=re.escape(f"there is no file {path}")):
            embed(path, model)


def test_a_side_that_a_file_lacks_is_refused(model, tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    sound = write_sound(tmp_path / "a.wav", tone())
    with pytest.raises(SourceError, match="is an image and has no sound"):
        embed(tmp_path / "a.png", model, side="audio")
    with pytest.raises(SourceError, match="has no video stream that can be decoded"):
        embed(sound, model, side="vision")
    with pytest.raises(
        SourceError,
        match="has no video stream that can be decoded; both video and audio are needed",
    ):
        embed(sound, model, align=True)
    with pytest.raises(ConfigError, match="align needs a video, which has two sides"):
        embed(tmp_path / "a.png", model, align=True)


def test_a_video_that_breaks_off_gives_what_is_there_and_says_so(model, tmp_path):
    write_clock_video(tmp_path / "whole.mkv", seconds=4.0)
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(whole[: len(whole) // 2])
    found = embed(tmp_path / "half.mkv", model)
    assert 0 < len(found) < len(embed(tmp_path / "whole.mkv", model))
    assert re.search(r"it ends after .* s of the 4\.", found.stop_reason)


# Pictures

SQUARE = np.kron(np.random.default_rng(0).integers(0, 255, (6, 8, 3)), np.ones((10, 10, 1))).astype(
    np.uint8
)


def save(folder, name, image, **options):
    image.save(folder / name, **options)
    return folder / name


def upright(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    return save(
        folder, "a.jpg", Image.fromarray(np.rot90(SQUARE)), exif=exif, quality=95, subsampling=0
    )


def sixteen_bit_grey(folder):
    grey = SQUARE[..., 0].astype(np.uint16) * 257
    return save(folder, "a.png", Image.fromarray(grey))


def animated(folder):
    frames = [Image.fromarray(SQUARE), Image.fromarray(255 - SQUARE)]
    return save(folder, "a.gif", frames[0], save_all=True, append_images=frames[1:])


def transparent(folder):
    """The hidden half is black; on white it is white."""
    rgba = np.dstack([SQUARE, np.full(SQUARE.shape[:2], 255, np.uint8)])
    rgba[:30] = 0
    return save(folder, "a.png", Image.fromarray(rgba))


PICTURES = {
    "png": (lambda folder: save(folder, "a.png", Image.fromarray(SQUARE)), SQUARE),
    "jpeg": (
        lambda folder: save(folder, "a.jpg", Image.fromarray(SQUARE), quality=95, subsampling=0),
        SQUARE,
    ),
    "cmyk jpeg": (
        lambda folder: save(folder, "a.jpg", Image.fromarray(SQUARE).convert("CMYK"), quality=95),
        SQUARE,
    ),
    "16-bit png": (sixteen_bit_grey, np.dstack([SQUARE[..., 0]] * 3)),
    "palette": (lambda folder: save(folder, "a.png", Image.fromarray(SQUARE).quantize(64)), SQUARE),
    "black and white": (
        lambda folder: save(folder, "a.png", Image.fromarray(SQUARE[..., 0] > 99)),
        np.dstack([(SQUARE[..., 0] > 99) * np.uint8(255)] * 3),
    ),
    "animated gif": (animated, SQUARE),
    "transparent": (transparent, np.concatenate([np.full_like(SQUARE[:30], 255), SQUARE[30:]])),
    "turned by exif": (upright, SQUARE),
    "webp without suffix": (
        lambda folder: save(folder, "a.webp", Image.fromarray(SQUARE), lossless=True).rename(
            folder / "a"
        ),
        SQUARE,
    ),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_of_any_kind_are_seen(model, tmp_path, kind):
    make, truth = PICTURES[kind]
    found = embed(make(tmp_path), model)
    assert (found.side, found.vectors.shape) == ("vision", (1, 16))
    near = cosine(found.vectors[0], embed(truth, model).vectors[0])
    far = cosine(found.vectors[0], embed(255 - truth, model).vectors[0])
    assert near > 0.999 > far


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 2)])
def test_pictures_of_odd_sizes_are_seen(model, tmp_path, size):
    found = embed(save(tmp_path, "a.png", Image.new("RGB", size, "teal")), model)
    plain = embed(np.full((64, 64, 3), (0, 128, 128), np.uint8), model)
    assert np.array_equal(found.vectors, plain.vectors)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (
            np.zeros((4, 5), np.uint8),
            r"images are \[height, width, 3\] .* this array is \[4, 5\]; "
            "for sound pass sample_rate_hz",
        ),
        (np.zeros((4, 5, 4), np.uint8), r"this array is \[4, 5, 4\]"),
        (np.zeros((0, 5, 5, 3), np.uint8), r"this array is \[0, 5, 5, 3\]"),
        (
            np.full((4, 5, 3), 200.0),
            "images of floats lie in 0..1, and these do not; divide them, or pass uint8",
        ),
        (np.full((4, 5, 3), np.nan), "images of floats lie in 0..1, and these do not"),
        (
            np.zeros((4, 5, 3), np.int32),
            "images are uint8, or floats in 0..1, and this array is int32",
        ),
    ],
)
def test_arrays_that_are_no_images_are_refused(model, array, sentence):
    with pytest.raises(SourceError, match=sentence):
        embed(array, model)


def test_images_that_cannot_be_read_are_refused(model, tmp_path):
    Image.fromarray(SQUARE[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(SourceError, match="its values are floating-point, without a known white"):
        embed(tmp_path / "float.tif", model)
    whole = save(tmp_path, "a.jpg", Image.fromarray(SQUARE)).read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"half\.jpg cannot be read as an image: .*truncated"):
        embed(tmp_path / "half.jpg", model)


def test_a_picture_that_unfolds_is_refused(model, tmp_path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")
    with pytest.raises(SourceError, match=r"bomb\.png .*; scale it down first"):
        embed(tmp_path / "bomb.png", model)
