"""The fused form of a tower gives what the tower gives, and follows its weights."""

import copy

import pytest
import torch

from conftest import small_config
from looklisten.config import Config, ModelConfig
from looklisten.inference.encoder import SMALL_TOWER_ROWS, encode_rows, encoder_of, rows_at_once
from looklisten.inference.towers import fused_form, listen, look
from looklisten.model.backbones import Backbone
from looklisten.model.backbones.efficientnet import EfficientNetLite0
from looklisten.model.backbones.same_padding import FusedSameConvolution, SamePaddingConv2d
from looklisten.model.backbones.yamnet import Yamnet
from looklisten.model.fused_convolution import FusedConvolution
from looklisten.model.l3net import L3Net
from looklisten.model.pooling import max_pooled
from looklisten.model.winograd import WinogradConvolution

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def trained(network):
    """`network` with statistics and gains of batch-norm as training leaves them."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            with torch.no_grad():
                # Some gains are negative.
                module.weight.uniform_(-0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
    return network.eval()


def a_network(**settings):
    torch.manual_seed(0)
    return trained(L3Net(ModelConfig(**settings)))


SMALL = {"widths": (4, 8, 6), "resize_pixels": 48, "crop_pixels": 40}
NETWORKS = {
    "as the paper": SMALL,
    "stride 2, time kept": SMALL | {"first_stride": 2, "pools_keeping_time": 1},
    "decibels": SMALL | {"front_end": "mel128"},
    "wide": SMALL | {"widths": (16, 64, 128)},
}


def sounds(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-9000, 9000, (rows, 48_000), dtype=torch.int16, generator=generator)


def pictures(rows, pixels=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, 3, pixels, pixels)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def lowest_cosine(a, b):
    return torch.nn.functional.cosine_similarity(a.flatten(1).float(), b.flatten(1).float()).min()


@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("precision", DTYPES)
@torch.inference_mode()
def test_a_fused_form_gives_the_same_maps(settings, precision):
    """Also the convolution before batch-norm and ReLU, of which conv4_2 of sound is pooled."""
    network = a_network(**settings)
    heard, seen = listen(network, sounds(2), DTYPES[precision]), look(network, pictures(2))
    for fused, exact in ((heard, network.listen(sounds(2))), (seen, network.look(pictures(2)))):
        assert fused.map.shape == exact.map.shape
        is_exact = precision == "float32" or fused is seen
        least = 0.9999 if is_exact else 0.995
        assert lowest_cosine(fused.map, exact.map) > least
        assert lowest_cosine(fused.vector, exact.vector) > least
        raw = fused.named_maps["conv4_2"]
        assert lowest_cosine(raw, exact.named_maps["conv4_2"]) > least
        assert raw.min() < 0, "before ReLU"
        if is_exact:
            assert torch.allclose(fused.map, exact.map, rtol=1e-3, atol=1e-4 * exact.map.max())


@torch.inference_mode()
def test_a_fused_convolution_is_that_of_float64():
    generator = torch.Generator().manual_seed(0)
    convolution = torch.nn.Conv2d(5, 7, 3, stride=2, padding=1)
    x = torch.randn(2, 5, 9, 12, generator=generator)
    norm = trained(torch.nn.Sequential(torch.nn.BatchNorm2d(7)))[0]
    expected = norm.double()(convolution.double()(x.double())).relu()
    norm, convolution = norm.float(), convolution.float()
    fused = FusedConvolution(convolution, norm, torch.float32)(x)
    assert torch.allclose(fused.double(), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(9, 12), (12, 9), (8, 8), (7, 5)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 1), (1, 1)])
@pytest.mark.parametrize("groups", [1, 6])
@torch.inference_mode()
def test_a_fused_convolution_pads_as_tensorflow_does(kernel, stride, groups, size):
    torch.manual_seed(0)
    convolution = SamePaddingConv2d(6, 6, kernel, stride, groups)
    norm = trained(torch.nn.Sequential(torch.nn.BatchNorm2d(6)))[0]
    x = 9 * torch.randn(2, 6, *size)
    expected = norm.double()(convolution.double()(x.double())).clamp(0, 6)
    norm, convolution = norm.float(), convolution.float()
    fused = FusedSameConvolution(convolution, norm, torch.float32, "relu6")(x)
    assert torch.allclose(fused.double(), expected, atol=1e-4)
    assert expected.max() == 6, "else ReLU would do"


def published(side):
    """A tower of one of the published architectures, with weights drawn at random."""
    torch.manual_seed(0)
    tower = {"vision": EfficientNetLite0, "audio": Yamnet}[side]()
    for module in tower.modules():
        if isinstance(module, torch.nn.Conv2d):
            # The usual initial weights would let the signal fade.
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return trained(tower)


@pytest.mark.parametrize(
    ("side", "shape"),
    [
        ("vision", (3, 64, 64)),
        ("vision", (3, 65, 91)),
        ("audio", (1, 64, 96)),
        ("audio", (1, 64, 101)),
    ],
)
@pytest.mark.parametrize("precision", DTYPES)
@torch.inference_mode()
def test_a_fused_published_tower_gives_the_same_maps(side, shape, precision):
    tower = published(side)
    inputs = torch.randn(2, *shape)
    exact, fused = tower(inputs), fused_form(tower, DTYPES[precision])(inputs)
    least = 0.99999 if precision == "float32" else 0.98
    assert fused.map.shape == exact.map.shape
    assert fused.pooling == exact.pooling
    assert lowest_cosine(fused.map, exact.map) > least
    assert lowest_cosine(fused.vector, exact.vector) > least
    assert fused.named_maps.keys() == exact.named_maps.keys()
    for name, map_ in exact.named_maps.items():
        assert lowest_cosine(fused.named_maps[name], map_) > least


@pytest.mark.parametrize("pool", [(2, 2), (2, 1)])
def test_pooling_is_that_of_pytorch(pool):
    x = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(max_pooled(x, pool), torch.nn.functional.max_pool2d(x, pool))


@pytest.mark.parametrize("size", [(16, 16), (17, 19), (3, 5), (35, 41)])
@torch.inference_mode()
def test_a_convolution_by_tiles_is_that_of_float64(size):
    generator = torch.Generator().manual_seed(0)
    convolution = torch.nn.Conv2d(7, 5, 3, padding=1).double()
    x = torch.randn(3, 7, *size, generator=generator)
    weight, bias = convolution.weight.float(), convolution.bias.float()
    expected = convolution(x.double())
    y = WinogradConvolution(weight, bias, relu=False)(x)
    assert torch.allclose(y.double(), expected, atol=3e-5)
    assert torch.equal(WinogradConvolution(weight, bias, relu=True)(x), y.relu())
    assert torch.equal(WinogradConvolution(weight, bias, relu=False)(x[1:2]), y[1:2])


def test_a_fused_form_follows_the_weights_of_its_tower():
    network = a_network(**SMALL)
    tower = network.audio
    assert fused_form(tower, torch.float32) is fused_form(tower, torch.float32), "it is kept"
    optimizer = torch.optim.AdamW(tower.parameters(), 0.1, fused=True)

    def step():
        network.listen(sounds(2)).vector.sum().backward()
        optimizer.step()

    def load():
        other = a_network(**SMALL | {"window": "hamming"})
        torch.nn.init.normal_(other.audio.blocks[0].conv1.weight)
        network.load_state_dict(other.state_dict())

    def new_statistics():
        tower.blocks[0].bn1.running_mean += 1

    for change in (step, load, new_statistics):
        before = fused_form(tower, torch.float32)
        change()
        assert fused_form(tower, torch.float32) is not before
        with torch.inference_mode():
            own = listen(network, sounds(1)).vector
            assert lowest_cosine(own, network.listen(sounds(1)).vector) > 0.9999
    copied = copy.deepcopy(network)
    assert fused_form(copied.audio, torch.float32) is not fused_form(tower, torch.float32)


def test_a_backbone_without_a_fused_form_is_its_own():
    network = a_network(**SMALL)
    tower = network.vision
    assert Backbone.fused(tower, torch.float32) is tower


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("layer", ["pool4", "conv4_2", "aligned", "texture"])
def test_neighbors_and_places_do_not_change_a_vector(precision, threads, layer):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    encoder = encoder_of(trained(L3Net(small_config().model)), precision)
    assert rows_at_once(encoder, "audio", 32) == SMALL_TOWER_ROWS
    generator = torch.Generator().manual_seed(1)
    rows = sounds(11)
    alone = torch.cat([encode_rows(encoder, "audio", layer, row[None], 1) for row in rows])
    for _ in range(4):
        order = torch.randint(11, (13,), generator=generator)
        together = encode_rows(encoder, "audio", layer, rows[order], 4)
        assert torch.equal(together, alone[order])


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_neighbors_and_places_do_not_change_a_vector_of_tiny(precision, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    encoder = encoder_of(trained(L3Net(Config.load("tiny").model)), precision)
    generator = torch.Generator().manual_seed(1)
    rows = sounds(9)
    rows[3] = 0
    alone = torch.cat([encode_rows(encoder, "audio", "pool4", row[None], 1) for row in rows])
    for _ in range(3):
        order = torch.randperm(9, generator=generator)
        assert torch.equal(encode_rows(encoder, "audio", "pool4", rows[order], 32), alone[order])


@pytest.mark.parametrize("threads", [1, 2])
def test_neighbors_and_places_do_not_change_a_vector_of_published_towers(threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = ModelConfig(
        vision_backbone="efficientnet-lite0",
        audio_backbone="yamnet",
        front_end="yamnet",
        resize_pixels=64,
        crop_pixels=64,
        fusion="linear",
    )
    network = L3Net(config)
    network.vision.load_state_dict(published("vision").state_dict())
    network.audio.load_state_dict(published("audio").state_dict())
    encoder = encoder_of(network.eval())
    for side, rows in (("audio", sounds(9)), ("vision", pictures(9, 64))):
        alone = torch.cat([encode_rows(encoder, side, "mean", row[None], 1) for row in rows])
        order = torch.randperm(9)
        assert torch.equal(encode_rows(encoder, side, "mean", rows[order], 32), alone[order])


def test_a_large_tower_computes_one_row_at_a_time():
    encoder = encoder_of(L3Net(ModelConfig()))
    assert rows_at_once(encoder, "audio", 32) == 1
    assert rows_at_once(encoder, "vision", 32) == 1
