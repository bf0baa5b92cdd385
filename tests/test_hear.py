"""What hear-validator checks (hearbenchmark/hear-validator, validate.py), with its lengths of
sound, and laws it cannot check.
"""

import numpy as np
import pytest
import torch

import looklisten as ll
from conftest import small_config
from looklisten.config import ModelConfig
from looklisten.inference.encoder import NetworkEncoder
from looklisten.interop import hear
from looklisten.media.spectrogram import WINDOW_SAMPLES

ALLOWED_SAMPLE_RATES = (16000, 22050, 32000, 44100, 48000)


def noise(sounds, seconds, rate=48_000):
    return (
        torch.rand(sounds, int(seconds * rate), generator=torch.Generator().manual_seed(1)) * 2 - 1
    )


@pytest.fixture(scope="module")
def model(run_path):
    return hear.load_model(str(run_path))


def test_the_model_is_a_module_with_three_whole_numbers(model):
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in ALLOWED_SAMPLE_RATES
    for size in (model.scene_embedding_size, model.timestamp_embedding_size):
        assert type(size) is int
    assert len(list(model.parameters())) == len(list(model.network.parameters())), (
        "to(device) moves the network"
    )
    assert not model.network.training


@pytest.mark.parametrize("seconds", [1.07, 1.98, 4.0])
def test_timestamps_are_as_the_validator_wants_them(model, seconds):
    audio = noise(2, seconds)
    vectors, times = hear.get_timestamp_embeddings(audio, model)
    assert (vectors.dtype, vectors.ndim, times.ndim) == (torch.float32, 3, 2)
    assert vectors.shape[:2] == times.shape
    assert (len(vectors), vectors.shape[2]) == (2, model.timestamp_embedding_size)
    assert vectors.device == audio.device
    milliseconds = times.numpy()
    steps = np.diff(milliseconds)
    assert steps.max() <= 50.0
    assert np.abs(steps - steps.mean()).max() <= 1
    assert milliseconds.min() <= steps.mean()
    assert 1000 * seconds - min(steps.mean(), 50) <= milliseconds.max() <= 1000 * seconds


def test_scenes_are_as_the_validator_wants_them(model):
    vectors = hear.get_scene_embeddings(noise(4, 2.74), model)
    assert (vectors.dtype, vectors.shape) == (torch.float32, (4, model.scene_embedding_size))


def test_a_timestamp_is_the_vector_of_the_second_around_it(model):
    audio = noise(1, 3.0)
    vectors, times = hear.get_timestamp_embeddings(audio, model)
    at = 31
    assert times[0, at] == 1550
    center = 1550 * 48
    alone = model.encode(audio[:, center - WINDOW_SAMPLES // 2 : center + WINDOW_SAMPLES // 2])
    torch.testing.assert_close(vectors[:, at], alone)
    first = model.encode(
        torch.cat([torch.zeros(1, WINDOW_SAMPLES // 2), audio[:, : WINDOW_SAMPLES // 2]], 1)
    )
    torch.testing.assert_close(vectors[:, 0], first)


def test_times_do_not_drift():
    samples = hear.timestamp_samples(3600 * 48_000)
    assert samples.shape == (72_001,)
    assert int(samples[-1]) == 3600 * 48_000


def test_a_scene_is_the_mean_of_seconds_from_the_first_to_the_last(model):
    audio = noise(1, 1.3)
    starts = (0, 7200, 14_400)
    parts = torch.stack(
        [model.encode(audio[:, start : start + WINDOW_SAMPLES]) for start in starts]
    )
    torch.testing.assert_close(hear.get_scene_embeddings(audio, model), parts.mean(0))


def test_short_sounds_have_vectors_too(model):
    short = noise(2, 0.01)
    vectors, times = hear.get_timestamp_embeddings(short, model)
    assert times.tolist() == [[0.0], [0.0]]
    assert torch.isfinite(vectors).all()
    padded = torch.nn.functional.pad(short, (23_760, 23_760))
    torch.testing.assert_close(hear.get_scene_embeddings(short, model), model.encode(padded))


def test_floats_are_heard_as_the_16_bit_sound_that_a_network_is_trained_on():
    torch.manual_seed(0)
    settings = small_config().model.model_dump() | {"front_end": "paper"}
    network = hear.HearModel(ll.L3Net(ModelConfig.model_validate(settings)).eval())
    quiet = noise(1, 1.0) * 1e-4
    stored = (quiet * 2**15).round() / 2**15
    assert not torch.equal(quiet, stored)
    assert torch.equal(
        hear.get_scene_embeddings(quiet, network), hear.get_scene_embeddings(stored, network)
    )
    with torch.inference_mode():
        own = network.network.audio(
            network.network.front_end((stored * 2**15).to(torch.int16))
        ).vector
    # Not to the bit: an encoder computes the fused form of the tower.
    torch.testing.assert_close(hear.get_scene_embeddings(quiet, network), own)


def test_twice_is_equal_and_a_sound_does_not_depend_on_its_neighbours(model):
    audio = noise(3, 1.2)
    for one in (hear.get_scene_embeddings, lambda *given: hear.get_timestamp_embeddings(*given)[0]):
        assert torch.equal(one(audio, model), one(audio, model))
        torch.testing.assert_close(one(audio, model)[1:2], one(audio[1:2], model))


def test_the_layer_is_an_option_of_load_model(run_path, model):
    aligned = hear.load_model(str(run_path), layer="conv4_2")
    assert aligned.scene_embedding_size == 12 * model.scene_embedding_size
    assert hear.get_scene_embeddings(noise(1, 1.0), aligned).shape == (
        1,
        aligned.scene_embedding_size,
    )
    with pytest.raises(ll.LookListenError, match="there is no layer 'pool9'; the layers are pool4"):
        hear.load_model(str(run_path), layer="pool9")


def test_without_a_path_the_environment_names_the_network(run_path, model, monkeypatch):
    monkeypatch.delenv("LOOKLISTEN_HEAR_MODEL", raising=False)
    with pytest.raises(ll.LookListenError, match="give --model RUN, or set LOOKLISTEN_HEAR_MODEL"):
        hear.load_model()
    monkeypatch.setenv("LOOKLISTEN_HEAR_MODEL", str(run_path))
    audio = noise(1, 1.0)
    assert torch.equal(
        hear.get_scene_embeddings(audio, hear.load_model()), hear.get_scene_embeddings(audio, model)
    )


@pytest.mark.parametrize(
    ("audio", "sentence"),
    [
        (
            torch.zeros(48_000),
            r"a float tensor \[n_sounds, n_samples\] .* this is torch.float32 \[48000\]",
        ),
        (torch.zeros(1, 0), r"not empty, and this is torch.float32 \[1, 0\]"),
        (torch.zeros(1, 48_000, dtype=torch.int16), "a float tensor .* this is torch.int16"),
        (torch.full((1, 48_000), torch.nan), "values that are no numbers"),
    ],
)
def test_what_is_no_sound_is_one_sentence(model, audio, sentence):
    for one in (hear.get_scene_embeddings, hear.get_timestamp_embeddings):
        with pytest.raises(ll.LookListenError, match=sentence):
            one(audio, model)


def test_a_network_for_pictures_alone_is_refused(model):
    class ImagesOnly(NetworkEncoder):
        @property
        def layers(self):
            return {"vision": ("pool4",)}

    with pytest.raises(ll.LookListenError, match="embeds images only, and HEAR needs sound"):
        hear.HearModel(ImagesOnly(model.network))
