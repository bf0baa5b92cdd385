"""The vectors that the paper's evaluation takes from a tower have its sizes and come from where it says."""

import pytest
import torch
from torch.nn import functional

from conftest import small_config
from looklisten.config import ModelConfig
from looklisten.errors import ConfigError
from looklisten.inference.layers import side_vectors, width
from looklisten.model.l3net import L3Net


def test_the_papers_layers_have_the_papers_sizes():
    model = L3Net(ModelConfig())
    sizes = {layer: (width(model, "audio", layer), width(model, "vision", layer)) for layer in ("pool4", "conv4_2")}
    assert sizes == {"pool4": (512, 512), "conv4_2": (6144, 8192)}


@torch.inference_mode()
def test_at_the_papers_sizes_the_grid_is_plain_pooling():
    model = L3Net(ModelConfig(widths=(4, 4, 8, 8))).eval()
    heard = model.listen(torch.randint(-9000, 9000, (2, 48_000), dtype=torch.int16))
    seen = model.look(torch.randint(0, 255, (2, 3, 224, 224), dtype=torch.uint8))
    assert torch.equal(side_vectors(model, heard, "audio", "conv4_2"), functional.max_pool2d(heard.conv4_2, 8).flatten(1))
    assert torch.equal(side_vectors(model, seen, "vision", "conv4_2"), functional.max_pool2d(seen.map, 7).flatten(1))


@torch.inference_mode()
def test_aligned_vectors_are_those_of_the_fusion_and_a_network_without_them_says_what_to_train():
    model = L3Net(small_config().model).eval()
    heard = model.listen(torch.randint(-9000, 9000, (2, 48_000), dtype=torch.int16))
    seen = model.look(torch.randint(0, 255, (2, 3, 48, 48), dtype=torch.uint8))
    vision, audio = model.fusion.project(seen.vector, heard.vector)
    assert torch.allclose(side_vectors(model, seen, "vision", "aligned"), vision)
    assert torch.allclose(side_vectors(model, heard, "audio", "aligned"), audio)
    with pytest.raises(ConfigError, match="recipe tiny, contrastive or ave"):
        side_vectors(L3Net(ModelConfig(widths=(4, 8))), heard, "audio", "aligned")
