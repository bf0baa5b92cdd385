"""A list of things in, a matrix out; and the same as a step of a scikit-learn pipeline."""

import array
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import small_config, write_sound
from looklisten.errors import ConfigError, SourceError
from looklisten.inference.embedding.embed import embed
from looklisten.inference.embedding.embedder import Embedder
from looklisten.inference.embedding.sklearn import AudioEmbedder, ImageEmbedder
from looklisten.inference.embedding.stream import StreamingEmbedder
from looklisten.model.l3net import L3Net

RATE_HZ = 48_000


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return L3Net(small_config().model).eval()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Sounds of several lengths, as files."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    waves = [
        rng.standard_normal(round(seconds * RATE_HZ)).astype(np.float32) * 0.1
        for seconds in (2.2, 0.4, 1.0)
    ]
    return [write_sound(folder / f"{number}.wav", wave) for number, wave in enumerate(waves)]


def test_encode_gives_one_vector_per_source_in_order(model, sounds):
    embedder = Embedder(model)
    matrix = embedder.encode(sounds)
    assert matrix.shape == (3, 16)
    assert matrix.dtype == np.float32
    for row, path in zip(matrix, sounds, strict=True):
        assert np.allclose(row, embed(path, model).vectors.mean(0), atol=1e-6)
    assert np.array_equal(embedder.encode(sounds[::-1], batch_size=2), matrix[::-1]), (
        "in company of others, in any order"
    )
    assert np.array_equal(embedder.encode(sounds[1]), matrix[1]), (
        "a thing in no list gives a vector in no matrix"
    )


def test_sounds_and_images_can_be_in_one_list(model, sounds, tmp_path):
    Image.effect_noise((80, 70), 60).convert("RGB").save(tmp_path / "a.png")
    mixed = Embedder(model, layer="aligned").encode(
        [sounds[0], tmp_path / "a.png", np.zeros((50, 60, 3), np.uint8)]
    )
    assert mixed.shape == (3, 128)
    own = embed(tmp_path / "a.png", model, layer="aligned").vectors[0]
    assert np.allclose(mixed[1], own, atol=1e-6)


def test_poolings_and_the_options_of_sentence_transformers(model, sounds):
    own = embed(sounds[0], model).vectors
    assert np.array_equal(Embedder(model, pooling="max").encode(sounds[0]), own.max(0))
    assert np.array_equal(Embedder(model, pooling="middle").encode(sounds[0]), own[len(own) // 2])
    embedder = Embedder(model)
    unit = embedder.encode(sounds, normalize_embeddings=True, convert_to_tensor=True)
    assert isinstance(unit, torch.Tensor)
    assert torch.allclose(unit.norm(dim=1), torch.ones(3), atol=1e-6)
    similar = embedder.similarity(embedder.encode(sounds), unit.numpy())
    assert np.allclose(np.diag(similar), 1, atol=1e-5)
    assert np.allclose(similar, similar.T, atol=1e-5)
    reported = []
    embedder.encode(sounds, progress=lambda done, total, **facts: reported.append((done, total)))
    assert reported == [(1, 3), (2, 3), (3, 3)]


def test_a_run_is_opened_by_its_folder(run_path, sounds):
    assert Embedder(run_path).encode(sounds[1:]).shape == (2, 16)


def test_errors_of_encode(model, sounds, tmp_path):
    with pytest.raises(ConfigError, match="there is nothing to encode: the list is empty"):
        Embedder(model).encode([])
    with pytest.raises(SourceError, match=r"there is no file .*nowhere\.wav"):
        Embedder(model).encode([sounds[0], tmp_path / "nowhere.wav"])


def test_a_classifier_on_vectors_separates_two_classes(model):
    """Low tones and high ones, arrays as a user of scikit-learn has them; fitted on some, right
    about others.
    """
    rng = np.random.default_rng(0)
    pitches = np.concatenate([rng.uniform(200, 400, 12), rng.uniform(3000, 6000, 12)])
    waves = 0.3 * np.sin(2 * np.pi * pitches[:, None] * np.arange(RATE_HZ // 2) / RATE_HZ).astype(
        np.float32
    )
    labels = np.repeat(["low", "high"], 12)
    pipeline = make_pipeline(
        AudioEmbedder(model, sample_rate_hz=RATE_HZ), StandardScaler(), LogisticRegression()
    )
    pipeline.fit(waves[::2], labels[::2])
    assert pipeline.score(waves[1::2], labels[1::2]) == 1
    again = pickle.loads(pickle.dumps(pipeline))
    assert np.array_equal(again.predict(waves), pipeline.predict(waves))


@pytest.mark.parametrize("kind", [AudioEmbedder, ImageEmbedder])
def test_the_steps_work_as_scikit_learn_expects(run_path, kind, tmp_path):
    step = kind(run_path, layer="conv4_2", pooling="max")
    twin = clone(step)
    assert twin is not step
    assert twin.get_params() == step.get_params()
    twin.set_params(layer="pool4", batch_size=4)
    assert (step.layer, twin.layer) == ("conv4_2", "pool4")
    assert "conv4_2" in repr(step)
    if kind is AudioEmbedder:
        thing = write_sound(tmp_path / "a.wav", np.ones(RATE_HZ, np.float32) * 0.1)
    else:
        Image.new("RGB", (70, 70), "teal").save(tmp_path / "a.png")
        thing = tmp_path / "a.png"
    matrix = twin.fit_transform([thing, thing])
    assert matrix.shape == (2, 16)
    assert list(twin.get_feature_names_out()) == [
        f"{kind.__name__.lower()}{number}" for number in range(16)
    ]
    assert step.transform([thing]).shape[1] == len(step.get_feature_names_out())
    assert step.transform([]).shape == (
        0,
        matrix.shape[1] * {"AudioEmbedder": 12, "ImageEmbedder": 16}[kind.__name__],
    )


# Whatever type a thing has


class Column:
    """A column of a table, as pandas and others have it: an array of objects, with an index of its
    own to iterate wrongly by.
    """

    def __init__(self, values, shape=(-1,)):
        self._array = np.array(values, object).reshape(shape)

    def __array__(self, dtype=None, copy=None):
        return self._array

    def __iter__(self):
        return iter(["a heading"])


class Tensorlike:
    """An array of another library, which NumPy can read."""

    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array


class Fspath:
    def __init__(self, path):
        self._path = path

    def __fspath__(self):
        return self._path


COLLECTIONS = {
    "tuple": tuple,
    "generator": lambda paths: (path for path in paths),
    "map": lambda paths: map(str, paths),
    "dict values": lambda paths: dict(enumerate(paths)).values(),
    "dict keys": lambda paths: dict.fromkeys(paths).keys(),
    "array of strings": lambda paths: np.array([str(path) for path in paths]),
    "array of bytes": lambda paths: np.array([os.fsencode(path) for path in paths]),
    "array of objects": lambda paths: np.array(paths, object),
    "one column": lambda paths: np.array([str(path) for path in paths])[:, None],
    "series": lambda paths: Column([str(path) for path in paths]),
    "frame of one column": lambda paths: Column([str(path) for path in paths], (-1, 1)),
    "arrow": lambda paths: pa.array([str(path) for path in paths]),
    "arrow chunks": lambda paths: pa.chunked_array([[str(path)] for path in paths]),
    "paths of another kind": lambda paths: [Fspath(str(path)) for path in paths],
    "paths of bytes": lambda paths: [os.fsencode(path) for path in paths],
}


@pytest.mark.parametrize("collection", COLLECTIONS.values(), ids=COLLECTIONS)
def test_collections_of_paths_are_many_sources(model, sounds, collection):
    usual = Embedder(model).encode(sounds)
    assert np.array_equal(Embedder(model).encode(collection(sounds)), usual)
    assert np.array_equal(AudioEmbedder(model).transform(collection(sounds)), usual)
    with pytest.raises(ConfigError, match="embed takes one source, and this is a collection"):
        embed(collection(sounds), model)


def test_a_set_is_many_sources(model, sounds):
    usual = Embedder(model).encode(sounds)
    assert np.array_equal(np.sort(Embedder(model).encode(set(sounds)), 0), np.sort(usual, 0))


def test_a_single_path_can_have_any_type(model, sounds):
    usual = Embedder(model).encode(sounds[0])
    for path in (
        str(sounds[0]),
        np.str_(sounds[0]),
        np.array(str(sounds[0])),
        Fspath(str(sounds[0])),
        os.fsencode(sounds[0]),
    ):
        assert np.array_equal(Embedder(model).encode(path), usual)


def test_empty_collections_are_errors(model):
    for empty in ([], (), iter(()), np.array([], object), np.array([], str), Column([])):
        with pytest.raises(ConfigError, match="there is nothing to encode: the list is empty"):
            Embedder(model).encode(empty)


WAVE = (np.random.default_rng(1).standard_normal(RATE_HZ // 2) * 0.1).astype(np.float32)


def negated(wave):
    """The same sound as a view of numbers that PyTorch has yet to change the sign of."""
    return torch.complex(torch.zeros(len(wave)), -torch.from_numpy(wave.copy())).conj().imag


SOUNDS = {
    "float64": lambda wave: wave.astype(np.float64),
    "long double": lambda wave: wave.astype(np.longdouble),
    "big-endian": lambda wave: wave.astype(">f4"),
    "objects": lambda wave: wave.astype(object),
    "backwards twice": lambda wave: wave[::-1].copy()[::-1],
    "every second": lambda wave: np.repeat(wave, 2)[::2],
    "masked nothing": lambda wave: np.ma.array(wave),
    "list": lambda wave: wave.tolist(),
    "list of numpy's": list,
    "tuple": lambda wave: tuple(wave.tolist()),
    "array.array": lambda wave: array.array("f", wave),
    "memoryview": memoryview,
    "with a gradient": lambda wave: torch.from_numpy(wave).clone().requires_grad_(),
    "parameter": lambda wave: torch.nn.Parameter(torch.from_numpy(wave).clone()),
    "sparse": lambda wave: torch.from_numpy(wave).to_sparse(),
    "negative bit": negated,
    "another library's": Tensorlike,
    "arrow": pa.array,
}


@pytest.mark.parametrize("kind", SOUNDS.values(), ids=SOUNDS)
def test_arrays_of_every_library_are_one_sound(model, kind):
    usual = embed(WAVE, model, sample_rate_hz=RATE_HZ).vectors
    assert np.array_equal(embed(kind(WAVE), model, sample_rate_hz=RATE_HZ).vectors, usual)
    assert np.array_equal(Embedder(model).encode(kind(WAVE), sample_rate_hz=RATE_HZ), usual[0])
    assert np.array_equal(
        Embedder(model).encode([kind(WAVE), WAVE], sample_rate_hz=RATE_HZ), usual[[0, 0]]
    )
    assert np.array_equal(
        StreamingEmbedder(model).push(kind(np.resize(WAVE, RATE_HZ))).vectors.shape, (1, 16)
    )


def test_read_only_arrays_are_accepted(model):
    for given in (WAVE.copy(), np.full((60, 60, 3), 77, np.uint8)):
        rate = RATE_HZ if given.ndim == 1 else None
        usual = embed(given, model, sample_rate_hz=rate).vectors
        given.flags.writeable = False
        assert np.array_equal(embed(given, model, sample_rate_hz=rate).vectors, usual)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_half_precision_arrays_are_accepted(model, dtype):
    short = torch.from_numpy(WAVE).to(dtype)
    assert np.array_equal(
        embed(short, model, sample_rate_hz=RATE_HZ).vectors,
        embed(short.float(), model, sample_rate_hz=RATE_HZ).vectors,
    )
    pictures = torch.rand(1, 60, 70, 3).to(dtype)
    assert np.array_equal(embed(pictures, model).vectors, embed(pictures.float(), model).vectors)


def test_dlpack_is_enough(model):
    class Dlpack:
        def __dlpack__(self, **choices):
            return torch.from_numpy(WAVE).__dlpack__(**choices)

        def __dlpack_device__(self):
            return torch.from_numpy(WAVE).__dlpack_device__()

    usual = Embedder(model).encode(WAVE, sample_rate_hz=RATE_HZ)
    assert np.array_equal(Embedder(model).encode(Dlpack(), sample_rate_hz=RATE_HZ), usual)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, "something of type NoneType cannot be embedded; give a path, an array or a tensor"),
        (5, "something of type int cannot be embedded"),
        (object(), "something of type object cannot be embedded"),
        (
            {"a": 1},
            r"of type dict cannot be embedded; pass its values in a list, such as list\(x\.values",
        ),
        (io.BytesIO(b"RIFF"), "of type BytesIO cannot be embedded; pass the path of the file"),
        (b"RIFF\0\0", "of type bytes cannot be embedded; these are the contents of a file"),
        (
            Column(["a", "b", "c", "d"], (2, 2)),
            r"it is a table of 2 x 2; pass the column of the paths, such as table\['path'\]",
        ),
        (
            np.ma.array([0.1, 0.2], mask=[False, True]),
            r"the array masks 1 of its values; .* array.filled\(0\)",
        ),
        (torch.zeros(9, device="meta"), "on the device meta, which holds no values"),
        (np.zeros(3, "M8[s]"), "its values are of type datetime64"),
        (np.zeros(3, [("a", "f4")]), "its values are of type void32"),
        (np.zeros(9, complex), "sound of type complex128 has no known full scale"),
        (np.zeros(9, bool), "sound of type bool has no known full scale"),
        ([0, 1, 2], "sound of type int64 has no known full scale"),
        (np.float32(1), r"sound is \[samples\] or \[samples, channels\], and this array is \[\]"),
        (np.zeros(0, np.float32), "an array of sound holds no sound"),
        ([[0.1, 0.2], [0.1]], "of type list cannot be embedded; NumPy makes no array of it"),
        ("x" * 300, "cannot be opened: File name too long"),
    ],
)
def test_values_that_are_no_sound_give_an_error(model, given, sentence):
    with pytest.raises(SourceError, match=sentence):
        embed(given, model, sample_rate_hz=RATE_HZ)


def test_errors_name_an_array_by_its_number(model, sounds):
    with pytest.raises(
        SourceError,
        match=r"number 2 of the inputs: something of type float cannot .* it is NaN, so a value",
    ):
        Embedder(model).encode(Column([str(sounds[0]), float("nan")]))
    with pytest.raises(
        SourceError,
        match="number 2 of the inputs: the sound holds a value that is no number",
    ):
        Embedder(model).encode([WAVE, WAVE * np.nan], sample_rate_hz=RATE_HZ)


@pytest.mark.parametrize(
    ("rate", "sentence"),
    [
        (44.1, "44.1 Hz is too low for sound; 44.1 looks like kHz; give 44100"),
        (np.float32(48), "48 looks like kHz; give 48000"),
        (999, "999 Hz is too low for sound; give samples a second, such as 44100"),
        (0.5, "0.5 Hz is too low for sound; give samples a second"),
        (1e9, "1000000000 Hz is too high for sound"),
        (0, "0 Hz cannot be"),
        (float("nan"), "nan Hz cannot be"),
        ("44100", "a sample rate is a number of Hz such as 44100, and '44100' is of type str"),
        (True, "True is of type bool"),
        (np.True_, "is of type bool"),
        ([44100], r"\[44100\] is of type list"),
        (np.array([44100, 2]), "is of type ndarray"),
    ],
)
def test_impossible_rates_give_an_error(model, rate, sentence):
    for use in (
        lambda: embed(WAVE, model, sample_rate_hz=rate),
        lambda: StreamingEmbedder(model, rate),
    ):
        with pytest.raises(SourceError, match=sentence):
            use()


@pytest.mark.parametrize(
    "rate",
    [
        np.int32(22_050),
        np.float32(22_050),
        np.array(22_050),
        np.array([22_050]),
        torch.tensor(22_050),
    ],
)
def test_rates_can_be_numbers_of_any_library(model, rate):
    usual = embed(WAVE, model, sample_rate_hz=22_050).vectors
    assert np.array_equal(embed(WAVE, model, sample_rate_hz=rate).vectors, usual)


# Pictures of Pillow

MODES = {
    "1": "png",
    "L": "png",
    "P": "png",
    "RGB": "png",
    "RGBA": "png",
    "LA": "png",
    "CMYK": "tif",
    "I;16": "png",
    "I": "tif",
    "YCbCr": "tif",
}


@pytest.mark.parametrize("mode", MODES)
def test_an_image_in_memory_equals_the_image_file(model, mode, tmp_path):
    colors = np.random.default_rng(2).integers(0, 256, (60, 80, 4), np.uint8)
    if mode.startswith("I"):
        image = Image.fromarray((colors[..., 0].astype(np.uint16) << 8) + 13)
        image = image.convert("I") if mode == "I" else image
    else:
        whole = Image.fromarray(colors)
        image = (whole.convert("RGB") if mode == "P" else whole).convert(mode)
    assert image.mode == mode
    path = tmp_path / f"a.{MODES[mode]}"
    image.save(path)
    usual = embed(path, model).vectors
    assert np.array_equal(embed(image, model).vectors, usual)
    with Image.open(path) as opened:
        assert np.array_equal(Embedder(model).encode([opened, path]), usual[[0, 0]])
        assert np.array_equal(ImageEmbedder(model).transform([opened]), usual)


def test_an_image_in_memory_is_rotated_by_its_exif_data(model, tmp_path):
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (60, 80, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        assert np.array_equal(
            embed(opened, model).vectors, embed(tmp_path / "turned.png", model).vectors
        )
    assert not np.array_equal(
        embed(image, model).vectors, embed(tmp_path / "turned.png", model).vectors
    )


def test_colors_with_premultiplied_opacity_are_divided(model):
    colors = Image.fromarray(np.random.default_rng(2).integers(200, 256, (60, 80, 4), np.uint8))
    for plain, times in (("RGBA", "RGBa"), ("LA", "La")):
        image = colors.convert(plain)
        assert np.allclose(
            embed(image.convert(times), model).vectors, embed(image, model).vectors, atol=0.05
        )


def test_unreadable_images_give_an_error(model):
    with pytest.raises(
        SourceError, match="this image of mode F cannot be read: its values are floating-point"
    ):
        embed(Image.new("F", (60, 60)), model)
    with pytest.raises(SourceError, match="this image of 0 x 5 pixels is empty"):
        embed(Image.new("RGB", (0, 5)), model)
    with pytest.raises(SourceError, match="an image has no sound"):
        embed(Image.new("RGB", (60, 60)), model, side="audio")
    with pytest.raises(SourceError, match=r"this array is \[3, 60, 70\]; put the colors last"):
        embed(np.zeros((3, 60, 70), np.uint8), model)
    with pytest.raises(
        SourceError, match=r"images are uint8, or floats in 0\.\.1, and this array is bool"
    ):
        embed(np.zeros((60, 70, 3), bool), model)


# Processes

FORKING = """
import multiprocessing, os, sys
import numpy as np, torch
torch.set_num_threads(2)
import looklisten as ll
model = ll.load(sys.argv[1])
wave = (np.random.default_rng(0).standard_normal(48_000) * 0.1).astype(np.float32)
def vectors(number):
    return ll.embed(wave, model, sample_rate_hz=48_000).vectors
usual = vectors(0)
with multiprocessing.get_context("fork").Pool(2) as pool:
    for found in pool.map(vectors, range(3)):
        assert np.allclose(found, usual, atol=1e-5)
child = os.fork()
if not child:
    os._exit(0 if np.allclose(vectors(0), usual, atol=1e-5) else 3)
assert os.waitpid(child, 0)[1] == 0
assert torch.get_num_threads() == 2
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_can_embed(run_path):
    """In another process, so that a hang ends and the threads of the tests are not forked."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING, run_path],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
