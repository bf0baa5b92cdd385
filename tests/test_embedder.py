"""A list of things in, a matrix out; and the same as a step of a scikit-learn pipeline."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import small_config, write_sound
from looklisten.errors import ConfigError, SourceError
from looklisten.inference.embed import embed
from looklisten.inference.embedder import Embedder
from looklisten.inference.transformers import AudioEmbedder, ImageEmbedder
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
    waves = [rng.standard_normal(round(seconds * RATE_HZ)).astype(np.float32) * 0.1 for seconds in (2.2, 0.4, 1.0)]
    return [write_sound(folder / f"{number}.wav", wave) for number, wave in enumerate(waves)]


def test_one_vector_a_thing_in_the_order_of_the_list(model, sounds):
    embedder = Embedder(model)
    matrix = embedder.encode(sounds)
    assert matrix.shape == (3, 16)
    assert matrix.dtype == np.float32
    for row, path in zip(matrix, sounds, strict=True):
        assert np.allclose(row, embed(path, model).vectors.mean(0), atol=1e-6)
    assert np.array_equal(embedder.encode(sounds[::-1], batch_size=2), matrix[::-1]), "in company of others, in any order"
    assert np.array_equal(embedder.encode(sounds[1]), matrix[1]), "a thing in no list gives a vector in no matrix"


def test_sounds_and_pictures_may_stand_in_one_list(model, sounds, tmp_path):
    Image.effect_noise((80, 70), 60).convert("RGB").save(tmp_path / "a.png")
    mixed = Embedder(model, layer="aligned").encode([sounds[0], tmp_path / "a.png", np.zeros((50, 60, 3), np.uint8)])
    assert mixed.shape == (3, 128)
    own = embed(tmp_path / "a.png", model, layer="aligned").vectors[0]
    assert np.allclose(mixed[1], own, atol=1e-6)


def test_poolings_and_what_users_of_sentence_transformers_expect(model, sounds):
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
    told = []
    embedder.encode(sounds, progress=lambda done, total, **facts: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_run_is_opened_by_its_folder(run_path, sounds):
    assert Embedder(run_path).encode(sounds[1:]).shape == (2, 16)


def test_what_cannot_be_encoded_is_told(model, sounds, tmp_path):
    with pytest.raises(ConfigError, match="there is nothing to encode: the list is empty"):
        Embedder(model).encode([])
    with pytest.raises(SourceError, match=r"there is no file .*nowhere\.wav"):
        Embedder(model).encode([sounds[0], tmp_path / "nowhere.wav"])


def test_a_classifier_is_built_on_it(model):
    """Low tones and high ones, arrays as a user of scikit-learn has them; fitted on some, right about others."""
    rng = np.random.default_rng(0)
    pitches = np.concatenate([rng.uniform(200, 400, 12), rng.uniform(3000, 6000, 12)])
    waves = 0.3 * np.sin(2 * np.pi * pitches[:, None] * np.arange(RATE_HZ // 2) / RATE_HZ).astype(np.float32)
    labels = np.repeat(["low", "high"], 12)
    pipeline = make_pipeline(AudioEmbedder(model, sample_rate_hz=RATE_HZ), StandardScaler(), LogisticRegression())
    pipeline.fit(waves[::2], labels[::2])
    assert pipeline.score(waves[1::2], labels[1::2]) == 1
    again = pickle.loads(pickle.dumps(pipeline))
    assert np.array_equal(again.predict(waves), pipeline.predict(waves))


@pytest.mark.parametrize("kind", [AudioEmbedder, ImageEmbedder])
def test_transformers_are_scikit_learns(run_path, kind, tmp_path):
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
    assert list(twin.get_feature_names_out()) == [f"{kind.__name__.lower()}{number}" for number in range(16)]
    assert step.transform([thing]).shape[1] == len(step.get_feature_names_out())
    assert step.transform([]).shape == (0, matrix.shape[1] * {"AudioEmbedder": 12, "ImageEmbedder": 16}[kind.__name__])
