"""The vectors that the paper's evaluation takes from a tower have its sizes and come from where it
says.
"""

import pytest
import torch
from torch.nn import functional

from conftest import small_config
from looklisten.config import ModelConfig
from looklisten.errors import ConfigError
from looklisten.inference.embedding.dense import DenseAudio
from looklisten.inference.embedding.options import EmbedOptions
from looklisten.inference.encoder import choose_layer, encode_rows, encoder_of
from looklisten.inference.towers import TEXTURE_BANDS, layer_width, side_vectors, texture
from looklisten.interop.onnx import write_onnx
from looklisten.model.l3net import L3Net
from looklisten.search.indexing.moment_encoder import MomentEncoder


def test_the_papers_layers_have_the_papers_sizes():
    model = L3Net(ModelConfig())
    sizes = {
        layer: (layer_width(model, "audio", layer), layer_width(model, "vision", layer))
        for layer in ("pool4", "conv4_2")
    }
    assert sizes == {"pool4": (512, 512), "conv4_2": (6144, 8192)}


@torch.inference_mode()
def test_at_the_papers_sizes_the_grid_is_plain_pooling():
    model = L3Net(ModelConfig(widths=(4, 4, 8, 8))).eval()
    heard = model.listen(torch.randint(-9000, 9000, (2, 48_000), dtype=torch.int16))
    seen = model.look(torch.randint(0, 255, (2, 3, 224, 224), dtype=torch.uint8))
    assert torch.equal(
        side_vectors(model, heard, "audio", "conv4_2"),
        functional.max_pool2d(heard.named_maps["conv4_2"], 8).flatten(1),
    )
    assert torch.equal(
        side_vectors(model, seen, "vision", "conv4_2"),
        functional.max_pool2d(seen.map, 7).flatten(1),
    )


@torch.inference_mode()
def test_aligned_vectors_are_those_of_the_fusion_and_a_network_without_them_says_what_to_train():
    model = L3Net(small_config().model).eval()
    heard = model.listen(torch.randint(-9000, 9000, (2, 48_000), dtype=torch.int16))
    seen = model.look(torch.randint(0, 255, (2, 3, 48, 48), dtype=torch.uint8))
    vision, audio = model.fusion.project(seen.vector, heard.vector)
    assert torch.allclose(side_vectors(model, seen, "vision", "aligned"), vision)
    assert torch.allclose(side_vectors(model, heard, "audio", "aligned"), audio)
    with pytest.raises(ConfigError, match="recipe general, contrastive or tiny"):
        choose_layer(encoder_of(L3Net(ModelConfig(widths=(4, 8)))), "audio", "aligned")


@torch.inference_mode()
def test_an_aligned_vector_of_a_frame_can_come_from_its_positions():
    model = L3Net(small_config().changed("model", fusion="similarity").model).eval()
    frames = torch.randint(0, 255, (2, 3, 48, 48), dtype=torch.uint8)
    seen = model.look(frames)
    vectors = side_vectors(model, seen, "vision", "aligned")
    assert torch.equal(vectors, model.fusion.aligned_frame(seen))
    indexed = MomentEncoder(model).encode_frames(list(frames.permute(0, 2, 3, 1)))
    for encoded, vector in zip(indexed, vectors, strict=True):
        assert encoded.tags == {}
        assert torch.allclose(torch.from_numpy(encoded.vector), vector, atol=1e-5)


def noise(rows=2):
    return torch.randint(
        -9000, 9000, (rows, 48_000), dtype=torch.int16, generator=torch.Generator().manual_seed(0)
    )


@torch.inference_mode()
def test_a_texture_is_the_means_and_deviations_over_time_of_all_blocks_by_bands():
    model = L3Net(ModelConfig(widths=(4, 6), front_end="compact")).eval()
    vectors = texture(model, noise())
    assert (
        vectors.shape == (2, layer_width(model, "audio", "texture")) == (2, 2 * TEXTURE_BANDS * 10)
    )
    raw = model.listen(noise()).named_maps["conv4_2"]
    quarter = raw.shape[2] // TEXTURE_BANDS
    means, deviations = (
        vectors[:, 2 * TEXTURE_BANDS * 4 :].unflatten(1, (2, 6, TEXTURE_BANDS)).unbind(1)
    )
    for band in range(TEXTURE_BANDS):
        over_time = raw[:, :, band * quarter : (band + 1) * quarter].mean(2)
        assert torch.allclose(means[:, :, band], over_time.mean(2), atol=1e-5)
        assert torch.allclose(deviations[:, :, band], over_time.std(2, correction=0), atol=1e-5)


@torch.inference_mode()
def test_a_texture_tells_a_beat_from_a_steady_sound_whose_maximum_is_the_same():
    model = L3Net(small_config().model).eval()
    steady = noise(1).float() / 32768
    beating = steady * (torch.arange(48_000) % 6000 < 3000)
    units = model.config.widths[0]
    _, deviations = torch.cat([texture(model, steady), texture(model, beating)])[
        :, : 2 * TEXTURE_BANDS * units
    ].chunk(2, 1)
    assert (deviations[1] > 2 * deviations[0]).float().mean() > 0.9


def test_a_texture_is_of_sound_window_by_window(tmp_path):
    model = L3Net(small_config().model).eval()
    encoder = encoder_of(model)
    assert choose_layer(encoder, "audio", "texture") == "texture"
    assert encode_rows(encoder, "audio", "texture", noise(3), 2).shape == (
        3,
        layer_width(model, "audio", "texture"),
    )
    with pytest.raises(ConfigError, match="cannot be used for frames"):
        choose_layer(encoder, "vision", "texture")
    with pytest.raises(ConfigError, match="with dense"):
        DenseAudio(encoder, EmbedOptions(layer="texture", hop_seconds=0.1), "noise")
    with pytest.raises(ConfigError, match="or in an ONNX file"):
        write_onnx(model, "audio", "texture", tmp_path / "a.onnx")
