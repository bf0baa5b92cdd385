"""OpenL3's networks give OpenL3's numbers, through its own functions; what differs is a right
vector or one clear sentence.
"""

import json
import wave
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from conftest import SHARED
from keras_weights import keras_layers, write_keras
from looklisten.inference.encoder import Encoder, encoder_of
from looklisten.interop import openl3
from looklisten.interop.openl3.audio import cut_windows
from looklisten.interop.openl3.resampling import KaiserBest, resampled
from looklisten.interop.openl3.variants import BLOB_IDS, variant_named
from looklisten.model.networks import is_openl3

GIVEN = SHARED / "openl3"
needs_expected = pytest.mark.skipif(
    not (GIVEN / "expected.npz").exists(), reason="OpenL3's own values are not beside this checkout"
)
SEEDS = {"linear": 100, "mel128": 101, "mel256": 102}


@pytest.fixture(scope="module")
def weights(openl3_weights):
    return openl3_weights


@pytest.fixture(scope="module")
def hears(weights):
    return openl3.models.load_audio_embedding_model_from_path(
        weights / "openl3_audio_mel256_music.h5", "mel256", 512
    )


@pytest.fixture(scope="module")
def sees(weights):
    return openl3.models.load_image_embedding_model_from_path(
        weights / "openl3_image_mel256_music.h5", 512
    )


def tone(seconds=1.5, rate_hz=48_000):
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    return (
        0.4 * np.sin(2 * np.pi * (500 * t + 900 * t**2))
        + 0.01 * np.random.default_rng(1).normal(size=len(t))
    ).astype(np.float32)


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# The network.


def keras_by_hand(image, seed, late_norm):
    """OpenL3's layers one by one, from the file's order, each batch-norm written out (epsilon
    1e-3).
    """
    layers = [weights for _, weights in keras_layers(seed, image.shape[1]) if weights]

    def norm(x, w):
        gamma, beta, mean, variance = (
            torch.from_numpy(w[f"{k}:0"]).float()[:, None, None]
            for k in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / (variance + 1e-3).sqrt() * gamma + beta

    x = norm(image, layers[0])
    for number in range(8):
        conv = layers[1 + 2 * number]
        kernel = torch.from_numpy(conv["kernel:0"]).float().permute(3, 2, 0, 1)
        x = functional.conv2d(x, kernel, torch.from_numpy(conv["bias:0"]).float(), padding=1)
        if number == 7:
            break
        after = layers[2 + 2 * number]
        x = (
            norm(functional.relu(x), after)
            if number == late_norm
            else functional.relu(norm(x, after))
        )
        if number % 2:
            x = functional.max_pool2d(x, 2)
    return x


@pytest.mark.parametrize("side", ["audio", "image"])
def test_the_network_is_keras_layer_by_layer(weights, side):
    rng = np.random.default_rng(0)
    if side == "audio":
        net = openl3.load(weights / "openl3_audio_mel128_music.h5")
        image = torch.from_numpy(rng.uniform(-80, 0, (1, 1, 128, 199))).float()
        last, pools = keras_by_hand(image, SEEDS["mel128"], late_norm=-1), (4, 8)
    else:
        net = openl3.load(weights / "openl3_image_mel256_music.h5")
        image = torch.from_numpy(rng.uniform(-1, 1, (1, 3, 224, 224))).float()
        last, pools = keras_by_hand(image, 200, late_norm=1), (7, 7)
    with torch.inference_mode():
        for layer, pool in (("conv4_2", pools), ("pool4", last.shape[2:])):
            pooled = (
                functional.max_pool2d(last, pool).permute(0, 2, 3, 1).flatten(1)
            )  # Keras flattens channels last
            assert torch.allclose(
                net.vectors(image, layer), pooled, rtol=1e-3, atol=1e-3 * float(pooled.abs().max())
            )


@needs_expected
@pytest.mark.parametrize(
    ("key", "size", "hop", "center"),
    [
        ("mel256_512_center1", 512, 0.1, True),
        ("mel256_6144_center1", 6144, 0.5, True),
        ("mel256_6144_center0", 6144, 0.5, False),
    ],
)
def test_sound_that_must_be_resampled_is_openl3s(given_weights, key, size, hop, center):
    expected = np.load(GIVEN / "expected.npz")
    sr, audio = read_wav(GIVEN / "tone.wav")
    net = openl3.models.load_audio_embedding_model_from_path(
        given_weights / "openl3_audio_mel256_env.h5", "mel256", size
    )
    vectors, times = openl3.get_audio_embedding(audio, sr, model=net, center=center, hop_size=hop)
    assert np.array_equal(times, expected[f"{key}_ts"])
    assert cosines(vectors, expected[key]).min() > 0.9999


@needs_expected
def test_sound_at_48_khz_is_openl3s(given_weights):
    expected = np.load(GIVEN / "expected.npz")
    sr, audio = read_wav(GIVEN / "tone48.wav")
    net = openl3.models.load_audio_embedding_model_from_path(
        given_weights / "openl3_audio_mel256_env.h5", "mel256", 512
    )
    vectors, times = openl3.get_audio_embedding(audio, sr, model=net, hop_size=0.25)
    assert np.array_equal(times, expected["mel256_512_tone48_hop025_ts"])
    wanted = expected["mel256_512_tone48_hop025"]
    assert (np.abs(vectors - wanted).max(1) < 1e-4 * np.abs(wanted).max(1)).all()
    net.precision = "bfloat16"
    assert (
        cosines(openl3.get_audio_embedding(audio, sr, model=net, hop_size=0.25)[0], vectors).min()
        > 0.999
    )


@needs_expected
@pytest.mark.parametrize("size", [512, 8192])
def test_pictures_are_openl3s(given_weights, size):
    expected = np.load(GIVEN / "expected.npz")
    net = openl3.models.load_image_embedding_model_from_path(
        given_weights / "openl3_image_mel256_env.h5", size
    )
    square, large = (
        openl3.get_image_embedding(np.array(Image.open(GIVEN / f"{name}.png")), model=net)
        for name in ("texture224", "texture")
    )
    assert np.linalg.norm(square - expected[f"image224_{size}"]) < 1e-3 * np.linalg.norm(square)
    assert cosines(large, expected[f"image_{size}"]).min() > 0.999


@pytest.fixture(scope="module")
def given_weights(tmp_path_factory):
    """The very weights that the expected values are of."""
    import runpy

    folder = tmp_path_factory.mktemp("given")
    script = runpy.run_path(str(GIVEN / "make_weights.py"))
    script["main"](folder)
    return folder


def read_wav(path):
    with wave.open(str(path)) as file:
        return file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), np.int16)


# Sound.


def test_lists_give_what_each_gives_alone(hears):
    sounds = [tone(1.2), tone(0.7, 44_100)]
    with pytest.warns(openl3.OpenL3Warning, match="shorter than a second"):
        vectors, times = openl3.get_audio_embedding(
            sounds, [48_000, 44_100], model=hears, hop_size=0.4, batch_size=2
        )
        alone = [
            openl3.get_audio_embedding(one, sr, model=hears, hop_size=0.4)
            for one, sr in zip(sounds, (48_000, 44_100), strict=True)
        ]
    for row, (expected, at) in enumerate(alone):
        assert np.allclose(vectors[row], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
        assert np.array_equal(times[row], at)
        assert vectors[row].dtype == np.float32


def test_five_seconds_make_46_windows():
    """As OpenL3 counts them (openl3#24), and each begins where its time says."""
    ramp = np.arange(5 * 48_000, dtype=np.float32) + 1
    found = list(cut_windows([ramp], 0.1, center=True))
    assert len(found) == 46
    assert [row[24_000] for row in found[:40]] == [4_800 * i + 1 for i in range(40)]
    assert found[0][:24_000].max() == 0
    assert found[-1][0] == 45 * 4_800 - 24_000 + 1


def test_a_hop_that_is_no_whole_number_of_samples_does_not_drift():
    ramp = np.arange(30 * 48_000, dtype=np.float32)
    firsts = [row[0] for row in cut_windows([ramp], 0.0333, center=False)]
    assert max(abs(first - i * 0.0333 * 48_000) for i, first in enumerate(firsts)) <= 0.5


def test_windows_do_not_depend_on_how_the_sound_is_cut():
    rng = np.random.default_rng(0)
    sound = rng.normal(size=123_456).astype(np.float32)
    whole = np.stack(list(cut_windows([sound], 0.13, True)))
    pieces = np.split(sound, np.sort(rng.integers(0, len(sound), 40)))
    assert np.array_equal(np.stack(list(cut_windows(pieces, 0.13, True))), whole)


def test_channels_integers_and_floats_are_one_sound(hears):
    audio = np.round(tone(1.0) * 2**15).astype(np.int16)
    both = np.stack([audio, audio], axis=1)
    forms = [audio, both, audio / 2**15, audio.astype(np.int32) * 2**16]
    found = [
        openl3.get_audio_embedding(form, 48_000, model=hears, center=False)[0] for form in forms
    ]
    assert all(np.array_equal(one, found[0]) for one in found[1:])


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 96_000])
def test_resampling_keeps_a_tone_and_does_not_depend_on_how_the_sound_is_cut(rate_hz):
    t = np.arange(rate_hz) / rate_hz
    sound = np.sin(2 * np.pi * 1_000 * t).astype(np.float32)
    whole = resampled(sound, rate_hz)
    assert len(whole) == 48_000
    expected = np.sin(2 * np.pi * 1_000 * np.arange(48_000) / 48_000)
    assert np.abs(whole - expected)[1_000:-1_000].max() < 1e-4
    stream = KaiserBest(rate_hz)
    pieces = [stream.resample_chunk(piece) for piece in np.array_split(sound, 7)]
    assert np.array_equal(
        np.concatenate([*pieces, stream.resample_chunk(sound[:0], last=True)]), whole
    )


def test_resampling_cuts_off_where_resampys_best_filter_does():
    """Half the amplitude at 0.917 of the Nyquist frequency, all of it a little below, next to
    nothing a little above.
    """
    t = np.arange(44_100) / 44_100
    gains = [
        np.abs(resampled(np.sin(2 * np.pi * hz * t).astype(np.float32), 44_100)[9_000:-9_000]).max()
        for hz in (18_500, 20_227.5, 21_900)
    ]
    assert gains == pytest.approx([1, 0.5, 0], abs=2e-3)


def test_predict_takes_what_preprocess_audio_returns(weights, hears):
    audio = tone(1.3)
    direct, _ = openl3.get_audio_embedding(audio, 48_000, model=hears, hop_size=0.5)
    assert np.allclose(
        hears.predict(openl3.preprocess_audio(audio, 48_000, hop_size=0.5), verbose=0), direct
    )
    centered = openl3.models.load_audio_embedding_model_from_path(
        weights / "openl3_audio_mel256_music.h5", "mel256", 512, "librosa"
    )
    images = openl3.preprocess_audio(audio, 48_000, hop_size=0.5, input_repr="mel256")
    assert images.shape == (3, 256, 199, 1)
    direct, _ = openl3.get_audio_embedding(
        audio, 48_000, model=centered, hop_size=0.5, frontend="librosa"
    )
    assert np.allclose(
        centered.predict(images), direct, rtol=1e-3, atol=1e-3 * np.abs(direct).max()
    )


@pytest.mark.filterwarnings("ignore::looklisten.interop.openl3.OpenL3Warning")
@pytest.mark.parametrize(
    ("audio", "sr", "sentence"),
    [
        (np.zeros(0), 48_000, "the audio is empty"),
        (
            np.zeros((2, 48_000)),
            48_000,
            r"\[samples, channels\]; this has the shape \(2, 48000\); transpose it",
        ),
        (np.zeros((4, 2, 2)), 48_000, r"this has the shape \(4, 2, 2\)"),
        (np.array(["a", "b"]), 48_000, "a numpy array of numbers"),
        (np.array([0.0, 0.1, np.nan]), 48_000, "NaN or infinity, first at sample 2"),
        (np.zeros(48_000), 0, "0 is no sample rate"),
        ([np.zeros(9), np.zeros(9)], [48_000], "2 sounds came with 1 sample rates"),
    ],
)
def test_bad_sound_is_one_sentence(hears, audio, sr, sentence):
    with pytest.raises(openl3.OpenL3Error, match=sentence):
        openl3.get_audio_embedding(audio, sr, model=hears)


def test_bad_words_are_one_sentence(weights, hears, sees):
    audio = tone(1.0)
    for options, sentence in (
        ({"hop_size": 0.0}, "0.0 is no hop size"),
        ({"batch_size": 0}, "the batch size 0"),
        ({"frontend": "librosa"}, 'loaded with frontend="kapre"'),
        ({"model": sees}, "not openl3:image-mel256"),
    ):
        with pytest.raises(openl3.OpenL3Error, match=sentence):
            openl3.get_audio_embedding(audio, 48_000, **{"model": hears} | options)
    for words, sentence in (
        (
            ("mel512", "env", 512),
            "no input representation 'mel512'; there are linear, mel128, mel256",
        ),
        (("mel256", "news", 512), "no content type 'news'"),
        (("mel256", "env", 300), "no embedding size 300 for audio; there are 6144 and 512"),
        (("mel256", "env", 512, "torch"), "no front end 'torch'; there are kapre and librosa"),
    ):
        with pytest.raises(openl3.OpenL3Error, match=sentence):
            openl3.models.load_audio_embedding_model(*words)
    with pytest.raises(openl3.OpenL3Error, match="no setting n_fft"):
        openl3.preprocess_audio(audio, 48_000, input_repr="linear", n_fft=1024)


@pytest.mark.filterwarnings("ignore:the audio is all zeros")
def test_silence_is_embedded_with_a_warning(hears):
    with pytest.warns(openl3.OpenL3Warning, match="all zeros"):
        vectors, _ = openl3.get_audio_embedding(np.zeros(48_000), 48_000, model=hears, center=False)
    assert np.isfinite(vectors).all()


# Pictures.


def picture(height, width):
    rng = np.random.default_rng(3)
    return rng.integers(0, 200, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)


def test_picture_values_are_openl3s_for_every_size(sees):
    """-1..1 at exactly 224 pixels, 0..1 where it is scaled down, over the maximum where it is only
    cropped.
    """
    from looklisten.interop.openl3.images import center_squares

    exact, scaled, cropped = (
        next(center_squares(picture(*size)[None])) for size in ((224, 224), (320, 400), (240, 248))
    )
    assert np.array_equal(exact, picture(224, 224).transpose(2, 0, 1) / np.float32(255) * 2 - 1)
    assert 0 <= scaled.min() < scaled.max() <= 200 / 255
    middle = picture(240, 248)[8:232, 12:236].transpose(2, 0, 1)
    assert np.allclose(cropped, middle / middle.max(), atol=1e-6)
    sixteen = next(center_squares(picture(320, 400)[None].astype(np.uint16) * 257))
    assert np.allclose(sixteen, scaled, atol=1e-6)


def test_frames_with_a_rate_come_with_times(sees):
    frames = np.stack([picture(224, 224), picture(224, 224)[::-1]])
    vectors, times = openl3.get_image_embedding(frames, frame_rate=25, model=sees)
    assert vectors.shape == (2, 512)
    assert times.tolist() == [0, 1 / 25]
    listed = openl3.get_image_embedding([frames[0], frames], model=sees)
    assert [one.shape for one in listed] == [(1, 512), (2, 512)]
    assert np.allclose(listed[1], vectors, rtol=1e-3, atol=1e-3 * np.abs(vectors).max())


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((0, 224, 3), np.uint8), "the image is empty"),
        (np.zeros((300, 300), np.uint8), r"in RGB; this has the shape \(300, 300\)"),
        (np.zeros((300, 300, 4), np.uint8), r"in RGB; this has the shape \(300, 300, 4\)"),
        (np.ones((1, 1, 3), np.uint8), "at least 224 x 224 pixels; this has 1 x 1"),
        (np.full((300, 300, 3), np.nan), "the image holds NaN"),
    ],
)
def test_bad_pictures_are_one_sentence(sees, image, sentence):
    with pytest.raises(openl3.OpenL3Error, match=sentence):
        openl3.get_image_embedding(image, model=sees)


# Networks.


def test_a_network_is_an_encoder(hears, sees):
    assert isinstance(hears, Encoder)
    assert encoder_of(sees) is sees
    assert hears.layers == {"audio": ("pool4", "conv4_2")}
    assert sees.layers == {"vision": ("pool4", "conv4_2")}
    assert (sees.resize_pixels, sees.crop_pixels) == (256, 224)
    audio = tone(1.0)
    with torch.inference_mode():
        for layer, size in (("pool4", 512), ("conv4_2", 6144)):
            assert hears.encode("audio", torch.from_numpy(audio)[None], layer).shape == (1, size)
        as_int16 = hears.encode(
            "audio", torch.from_numpy(np.round(audio * 2**15).astype(np.int16))[None], "pool4"
        )
        frames = torch.from_numpy(picture(224, 224)).permute(2, 0, 1)[None]
        seen = sees.encode("vision", frames, "pool4")
    assert (
        cosines(
            as_int16.numpy(),
            openl3.get_audio_embedding(audio, 48_000, model=hears, center=False)[0],
        ).min()
        > 0.9999
    )
    assert np.allclose(
        seen.numpy(),
        openl3.get_image_embedding(picture(224, 224), model=sees),
        rtol=1e-4,
        atol=1e-4,
    )
    with pytest.raises(openl3.OpenL3Error, match="a network for audio; load image-… for vision"):
        hears.encode("vision", frames, "pool4")
    with pytest.raises(openl3.OpenL3Error, match="the layers are pool4 and conv4_2"):
        hears.encode("audio", torch.from_numpy(audio)[None], "aligned")


def test_a_converted_folder_is_the_same_network_without_h5py(weights, tmp_path):
    said = openl3.convert(weights / "openl3_audio_linear_music.h5", tmp_path / "linear")
    assert said == {"network": "openl3:audio-linear-music", "folder": str(tmp_path / "linear")}
    assert sorted(path.name for path in (tmp_path / "linear").iterdir()) == [
        "model.safetensors",
        "openl3.json",
    ]
    assert is_openl3(tmp_path / "linear")
    one, two = (
        openl3.load(weights / "openl3_audio_linear_music.h5"),
        openl3.load(tmp_path / "linear"),
    )
    assert all(
        torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items()
    )
    assert two.variant == variant_named("openl3:audio-linear-music")
    assert (
        json.loads((tmp_path / "linear" / "openl3.json").read_text())["source"]
        == "openl3_audio_linear_music.h5"
    )
    (tmp_path / "linear" / "model.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(openl3.OpenL3Error, match="is damaged"):
        openl3.load(tmp_path / "linear")


def test_bad_weight_files_are_one_sentence(weights, tmp_path):
    (tmp_path / "openl3_audio_mel256_env.h5").write_bytes(b"text")
    (tmp_path / "cut.h5.gz").write_bytes(
        write_keras(tmp_path / "whole_mel256.h5.gz", 1, 1).read_bytes()[:9_999]
    )
    write_keras(tmp_path / "audio_mel256.h5", 1, 3)
    write_keras(tmp_path / "nameless.h5", 1, 1)
    with h5py.File(tmp_path / "image_mel256.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        file.create_group("dense").attrs["weight_names"] = [b"dense/kernel:0"]
        file["dense"].create_dataset("dense/kernel:0", data=np.zeros((2, 2), np.float32))
    for name, sentence in (
        ("openl3_audio_mel256_env.h5", "is no Keras weight file, or a damaged one"),
        ("cut.h5.gz", "is no Keras weight file, or a damaged one"),
        ("missing_mel256.h5", "there is no weight file"),
        ("audio_mel256.h5", "named as a network for audio, and its first layer is one for image"),
        ("nameless.h5", "does not tell the spectrogram"),
        ("image_mel256.h5", "has 1 layers with weights; a network of OpenL3 has 16"),
    ):
        with pytest.raises(openl3.OpenL3Error, match=sentence):
            openl3.load(tmp_path / name)


def test_names_of_published_networks():
    assert {
        variant_named(f"openl3:{stem.removeprefix('openl3_').replace('_', '-')}").stem
        for stem in BLOB_IDS
    } == set(BLOB_IDS)
    assert len(BLOB_IDS) == 12
    for wrong in ("openl3:audio-mel256", "openl3:mel256-env", "openl3:audio-mel256-env-x"):
        assert is_openl3(wrong)
        with pytest.raises(openl3.OpenL3Error, match="no network that OpenL3 published; a name is"):
            openl3.load(wrong)
    assert not is_openl3("runs/tiny")
    published = GIVEN / "blobs.txt"
    if published.exists():
        rows = [
            line.split()
            for line in published.read_text().splitlines()
            if line and not line.startswith("#")
        ]
        assert {name.removesuffix("-v0_4_0.h5.gz"): blob for blob, name in rows} == BLOB_IDS


def test_nothing_heavy_is_imported_at_import():
    import subprocess
    import sys

    code = "import sys; from looklisten.interop import openl3; print(sorted({'torch', 'h5py', 'PIL', 'av'} & set(sys.modules)))"
    source = str(Path(openl3.__file__).parents[3])
    process = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": source},
    )
    assert process.stdout.strip() == "[]"
