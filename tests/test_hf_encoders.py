"""Whole models of the Hugging Face Hub: vectors of pictures, sounds and texts, search, figures."""

import json
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.nn.functional import normalize

import looklisten as ll
from conftest import write_sound
from hf_models import save_clap, save_clip, save_pe_audio, save_pictures, tiny_pe_av
from looklisten.app.cli import main
from looklisten.errors import CheckpointError, ConfigError, LookListenError, PublishedFileError
from looklisten.evaluation.encoder_pairs import encoder_pairs
from looklisten.evaluation.linear_probe.options import ProbeOptions
from looklisten.evaluation.linear_probe.public_sets import probe_labeled_set
from looklisten.inference.encoder import Encoder, TextEncoder
from looklisten.interop.hf.encoder import HfEncoder, ModelReaders
from looklisten.interop.hf.pictures import PictureInput, video_picture_input
from looklisten.interop.hf.source import hf_source
from looklisten.model.networks import open_network

TEXTS = ["a dog barks", "rain"]
HALF = (0.5,) * 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder)
    return folder


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clap")
    save_clap(folder)
    return folder


def second_of_noise(seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, 48_000).astype(np.float32)


def square(seed=0, pixels=32):
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return blocks.repeat(pixels // 4, 0).repeat(pixels // 4, 1)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_model_of_pictures_and_texts_gives_its_own_unit_vectors(tmp_path, kind):
    model = save_clip(tmp_path, kind)
    encoder = ll.load(f"hf:{tmp_path}")
    assert isinstance(encoder, Encoder) and isinstance(encoder, TextEncoder)
    assert encoder.layers == {"vision": ("aligned",)}
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    pixels = processor(Image.fromarray(square()), return_tensors="pt")
    padding = "max_length" if kind == "siglip" else True
    with torch.inference_mode():
        theirs = model.get_image_features(**pixels).pooler_output
        tokens = tokenizer(
            TEXTS, padding=padding, max_length=16, truncation=True, return_tensors="pt"
        )
        if kind == "siglip":
            tokens.pop("attention_mask", None)
        their_texts = model.get_text_features(**tokens).pooler_output
    assert not np.allclose(theirs.norm(dim=-1), 1, atol=0.01)
    vectors = ll.embed(square(), encoder, side="vision").vectors
    assert vectors == pytest.approx(normalize(theirs).numpy(), abs=1e-4)
    texts = encoder.encode_text(TEXTS, "vision")
    assert torch.allclose(texts, normalize(their_texts), atol=1e-4)
    assert (texts[0] - texts[1]).abs().max() > 0.01


def test_a_model_of_sounds_and_texts_gives_its_own_unit_vectors(tmp_path):
    model = save_clap(tmp_path)
    encoder = ll.load(f"hf:{tmp_path}")
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    sound = second_of_noise()
    with torch.inference_mode():
        features = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        theirs = model.get_audio_features(**features).pooler_output
    vectors = ll.embed(sound, encoder, sample_rate_hz=48_000).vectors
    assert vectors == pytest.approx(normalize(theirs).numpy(), abs=1e-4)
    # A key that names the folder would change when the folder moves.
    assert str(tmp_path) not in encoder.sound_input
    texts = encoder.encode_text(TEXTS, "audio")
    assert texts.norm(dim=-1).tolist() == pytest.approx([1, 1])
    assert (texts[0] - texts[1]).abs().max() > 1e-3


def test_pe_audio_has_vectors_of_sounds_and_texts(tmp_path):
    model = save_pe_audio(tmp_path)
    encoder = ll.load(f"hf:{tmp_path}")
    sound = torch.from_numpy(second_of_noise())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokens = tokenizer(TEXTS[:1], return_tensors="pt")
    with torch.inference_mode():
        # What the model itself compares.
        theirs = model(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            input_values=sound[None, None],
        )
    assert float(theirs.audio_embeds.norm()) != pytest.approx(1, abs=0.01)
    vectors = ll.embed(sound, encoder, sample_rate_hz=48_000).vectors
    assert vectors == pytest.approx(normalize(theirs.audio_embeds).numpy(), abs=1e-4)
    texts = encoder.encode_text(TEXTS[:1], "audio")
    assert torch.allclose(texts, normalize(theirs.text_audio_embeds), atol=1e-4)


def pe_av(tmp_path):
    """An encoder of pictures, sounds and texts.

    The published models take pictures by a network of `timm`; this one has another one there.
    """
    save_pe_audio(tmp_path)
    readers = ModelReaders(
        picture=PictureInput(32, 32, "squeeze", 1.0, HALF, HALF),
        extractor=transformers.AutoFeatureExtractor.from_pretrained(tmp_path),
        tokenizer=transformers.AutoTokenizer.from_pretrained(tmp_path),
    )
    return HfEncoder("hf:pe-av", tiny_pe_av(), readers)


def test_pe_av_has_vectors_of_both_sides_and_of_texts_for_each(tmp_path):
    encoder = pe_av(tmp_path)
    assert set(encoder.layers) == {"vision", "audio"}
    sound = torch.from_numpy(second_of_noise())[None]
    frames = torch.from_numpy(square()).permute(2, 0, 1)[None]
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)(TEXTS[:1], return_tensors="pt")
    with torch.inference_mode():
        theirs = encoder.model(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            input_values=sound[:, None],
            pixel_values_videos=(frames[:, None] / 255 - 0.5) / 0.5,
        )
    for ours, expected in (
        (encoder.encode("audio", sound, "aligned"), theirs.audio_embeds),
        (encoder.encode("vision", frames, "aligned"), theirs.video_embeds),
        (encoder.encode_text(TEXTS[:1], "audio"), theirs.text_audio_embeds),
        (encoder.encode_text(TEXTS[:1], "vision"), theirs.text_video_embeds),
    ):
        assert torch.allclose(ours, normalize(expected), atol=1e-4)


def test_the_pictures_of_a_whole_pe_av_need_timm(tmp_path):
    tiny_pe_av().save_pretrained(tmp_path)
    save_pe_audio(tmp_path / "parts")
    for path in (tmp_path / "parts").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            shutil.copy(path, tmp_path)
    settings = {"size": {"height": 32, "width": 32}, "image_mean": HALF, "image_std": HALF}
    settings |= {"do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(settings))
    picture = video_picture_input(hf_source(f"hf:{tmp_path}"))
    assert (picture.resize_pixels, picture.crop_pixels, picture.frame_fit) == (32, 32, "squeeze")
    assert (picture.scale, picture.mean) == (pytest.approx(1), HALF)
    if find_spec("timm"):
        pytest.skip("timm is here")
    with pytest.raises(PublishedFileError, match="requires the timm library"):
        ll.load(f"hf:{tmp_path}")


def test_both_sides_are_evaluated_by_the_cosine_of_their_vectors(tmp_path, shards):
    encoder = pe_av(tmp_path)
    clips = shards.select(np.arange(len(shards)) < 6)
    pairs = encoder_pairs(encoder, clips, per_clip=2)
    figures = pairs.as_dict()
    assert (figures["clips"], figures["moments"]) == (6, 12)
    assert "accuracy" not in figures
    low, high = figures["one_of_two_ci95"]
    assert 0 <= low <= figures["one_of_two"] <= high <= 1
    assert pairs.as_dict() == encoder_pairs(encoder, clips, per_clip=2).as_dict()


def test_evaluate_refuses_a_model_of_one_side(clip, shards_path, capsys):
    assert main(["evaluate", str(shards_path), "--checkpoint", f"hf:{clip}"]) == 1
    assert "this network has none of audio" in capsys.readouterr().err
    arguments = ["evaluate", str(shards_path), "--checkpoint", f"hf:{clip}"]
    assert main([*arguments, "--task", "localization"]) == 1
    assert "is a model of transformers, which gives vectors alone" in capsys.readouterr().err
    assert main([*arguments, "--threshold", "validation"]) == 2


# Search.


@pytest.fixture(scope="module")
def media(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    for path in sorted(world.rglob("*.mp4"))[:3]:
        shutil.copy(path, folder)
    for number in range(3):
        Image.fromarray(square(number, 64)).save(folder / f"picture{number}.png")
    t = np.arange(96_000) / 48_000
    write_sound(folder / "tone.wav", (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32))
    return folder


def test_pictures_are_found_by_words(clip, media, tmp_path, capsys):
    db = tmp_path / "index"
    run = open_network(f"hf:{clip}")
    result = ll.index([media], db, run)
    assert result.failed == 0
    with ll.open_index(db, f"hf:{clip}") as index:
        assert index.encoder.sides == ("vision",)
        hits = index.search(text="a dog barks", k=20)
        assert len(hits) >= 4 and hits.scenes[0].matched == "picture"
        scores = [scene.score for scene in hits.scenes]
        assert scores == sorted(scores, reverse=True)
        # The score is made of the cosine of the text with the picture.
        text = run.network.encode_text(["a dog barks"], "vision")[0]
        for number in range(3):
            picture = ll.embed(media / f"picture{number}.png", run.network).vectors[0]
            cosine = float(picture @ text.numpy())
            (scene,) = [s for s in hits.scenes if s.source.endswith(f"picture{number}.png")]
            assert scene.score == pytest.approx((1 + cosine) / 2, abs=1e-3)
        # A picture finds itself, and a sound finds nothing.
        assert index.search(media / "picture1.png").scenes[0].source.endswith("picture1.png")
        assert index.search(media / "tone.wav").nothing_found
        assert "no vectors of a sound" in index.search(text="rain", find="sound").reason
    # The command line finds the network by its name in the index.
    assert main(["search", "--text", "a dog barks", "--db", str(db), "-k", "2", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [row["source"] for row in values["hits"]] == [s.source for s in hits.scenes[:2]]
    assert main(["search", "--text", "a dog", "--tag", "Dog", "--db", str(db)]) == 2
    assert main(["search", "--text", " ", "--db", str(db)]) == 1
    assert "a text without a word" in capsys.readouterr().err


def test_sounds_are_found_by_words(clap, media, tmp_path):
    db = tmp_path / "index"
    ll.index([media / "tone.wav", *sorted(media.glob("*.mp4"))[:1]], db, f"hf:{clap}")
    with ll.open_index(db) as index:
        hits = index.search(text="rain")
        assert {scene.matched for scene in hits.scenes} == {"sound"}


def test_an_index_says_that_its_network_knows_no_words(run_path, tmp_path, media):
    recipe = tmp_path / "linear.toml"
    recipe.write_text('[model]\nfusion = "linear"\nwidths = [4, 8]\n', encoding="utf-8")
    db = tmp_path / "index"
    ll.index([media / "tone.wav"], db, f"untrained:{recipe}")
    with (
        ll.open_index(db) as index,
        pytest.raises(ConfigError, match="no vectors of texts; search"),
    ):
        index.search(text="rain")


def test_the_space_of_a_model_is_known_by_its_weights_and_its_input(clip, tmp_path):
    space = ll.load(f"hf:{clip}").space_id
    moved = tmp_path / "moved"
    shutil.copytree(clip, moved)
    run = open_network(f"hf:{moved}")
    assert run.network.space_id == run.network_key == space
    settings = json.loads((moved / "preprocessor_config.json").read_text())
    settings["image_mean"] = [0.1, 0.1, 0.1]
    (moved / "preprocessor_config.json").write_text(json.dumps(settings))
    assert ll.load(f"hf:{moved}").space_id != space


def test_a_labeled_set_is_probed_with_a_model_of_the_hub(clip, tmp_path):
    for label in ("dark", "light"):
        (tmp_path / label).mkdir()
        for number in range(10):
            pixels = square(number, 64) // 4 + (160 if label == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / label / f"{number}.png")
    options = ProbeOptions(compare="none")
    table = probe_labeled_set("images", tmp_path, f"hf:{clip}", options)
    (row, *_) = table.rows
    assert row.accuracy > 0.6


# Refusals.


def test_a_model_without_vectors_of_texts_is_refused(tmp_path):
    save_pictures(tmp_path, "dinov2")
    with pytest.raises(ConfigError, match=r"is a dinov2, and encoders are .* can be a backbone"):
        ll.load(f"hf:{tmp_path}")
    with pytest.raises(LookListenError, match="there is no folder"):
        ll.load("hf:./none")


def test_a_run_of_a_model_has_no_towers_and_no_training(clip):
    run = open_network(f"hf:{clip}")
    assert (run.step, run.knows_split) == (None, False)
    for ask in (lambda: run.l3net, lambda: run.config):
        with pytest.raises(
            CheckpointError, match="is a model of transformers, which gives vectors"
        ):
            ask()
    with pytest.raises(ConfigError, match="this network has no audio side; it encodes vision"):
        ll.embed(second_of_noise(), run.network, sample_rate_hz=48_000)


@pytest.mark.parametrize(
    "file", ["model.safetensors", "tokenizer.json", "preprocessor_config.json"]
)
def test_a_cut_or_missing_file_is_one_sentence(clip, tmp_path, file):
    folder = tmp_path / "model"
    shutil.copytree(clip, folder)
    (folder / file).write_bytes((folder / file).read_bytes()[:-20])
    with pytest.raises(PublishedFileError, match="cannot be loaded") as cut:
        ll.load(f"hf:{folder}")
    (folder / file).unlink()
    with pytest.raises(PublishedFileError, match="cannot be loaded") as missing:
        ll.load(f"hf:{folder}")
    for raised in (cut, missing):
        assert "\n" not in str(raised.value)


def test_a_missing_extra_is_one_sentence(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'looklisten\[hf\]'"):
        ll.load(f"hf:{clip}")
