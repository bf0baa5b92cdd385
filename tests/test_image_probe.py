"""The protocol for pictures: 100 % for who knows, chance for who does not, kept or streamed;
pictures that are broken stop nothing.
"""

import json

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from conftest import small_config
from looklisten.app.cli import main
from looklisten.errors import ConfigError
from looklisten.evaluation.linear_probe.baselines import contenders
from looklisten.evaluation.linear_probe.features import Extractor
from looklisten.evaluation.linear_probe.image_protocol import Pictures, parts
from looklisten.evaluation.linear_probe.images import (
    VIEWS,
    colors_and_edges,
    picture_vectors,
    streamed_vectors,
    views,
)
from looklisten.evaluation.linear_probe.options import ProbeOptions
from looklisten.evaluation.linear_probe.public_sets import probe_images, probe_labeled_set
from looklisten.evaluation.linear_probe.softmax import SETTINGS, Layers, Setting, train
from looklisten.evaluation.sets.registry import open_labeled_set
from looklisten.model.l3net import L3Net

CLASSES = ("n01440764", "n01443537", "n01484850")
SIZES = {"train": 8, "val": 5}


@pytest.fixture(autouse=True)
def _threads():
    """One thread: the products here are small, and two that wait for each other on a busy machine
    take minutes for them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """ImageNet's layout, smaller: noise in which one channel is bright, which says the class."""
    root = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    for split, count in SIZES.items():
        for number, synset in enumerate(CLASSES):
            (root / split / synset).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 128, (40 + i, 60, 3), dtype=np.uint8)
                pixels[..., number] += 127
                (root / split / synset / f"{synset}_{i}.JPEG").write_bytes(
                    simplejpeg.encode_jpeg(pixels, quality=95)
                )
    return root


@pytest.fixture(scope="module")
def benchmark(root):
    return open_labeled_set("imagenet", root, partial=True)


def brightness(frames):
    return frames.float().mean((2, 3)) / 255


def eyes(encode, width=3, **more):
    return Extractor("eyes", encode, width, resize_pixels=40, crop_pixels=32, **more)


@pytest.mark.parametrize("stream", [False, True])
def test_an_oracle_is_always_right(benchmark, stream):
    table = probe_images(benchmark, [eyes(brightness)], epochs=20, stream=stream)
    assert (table.rows[0].accuracy, table.rows[0].folds, table.items, table.tested_folds) == (
        1,
        (1.0,),
        39,
        ("val",),
    )
    assert np.isnan(table.rows[0].deviation)
    assert table.published[-1].accuracy == 0.323


@pytest.mark.parametrize("stream", [False, True])
def test_vectors_of_chance_are_at_chance(benchmark, stream):
    torch.manual_seed(0)
    found = [
        probe_images(
            benchmark,
            [eyes(lambda frames: torch.randn(len(frames), 30), 30)],
            epochs=4,
            stream=stream,
        )
        .rows[0]
        .accuracy
        for _ in range(12)
    ]
    assert np.mean(found) == pytest.approx(1 / 3, abs=0.12)


@pytest.mark.parametrize("stream", [False, True])
def test_only_training_pictures_are_trained_on(benchmark, stream, monkeypatch):
    asked = []
    batches = Pictures._batches

    def spying(self, items, epoch):
        asked.append((set(items.tolist()), epoch))
        return batches(self, items, epoch)

    monkeypatch.setattr(Pictures, "_batches", spying)
    probe_images(benchmark, [eyes(brightness)], epochs=2, stream=stream)
    fit, choose, test = (set(part.tolist()) for part in parts(benchmark, "val"))
    assert {frozenset(items) for items, epoch in asked if epoch is not None} == {frozenset(fit)}
    assert [items for items, epoch in asked if epoch is None] == [choose, test]
    assert not fit & choose
    assert not (fit | choose) & test
    assert {str(benchmark.folds[item]) for item in test} == {"val"}


def test_the_owners_validation_split_chooses_where_there_is_a_test_split(tmp_path):
    for split in ("train", "valid", "test"):
        for kind in "ab":
            (tmp_path / split / kind).mkdir(parents=True)
            for i in range(3):
                (tmp_path / split / kind / f"{i}.jpg").write_bytes(b"")
    found = open_labeled_set("images", tmp_path)
    for part, split in zip(parts(found, "test"), ("train", "val", "test"), strict=True):
        assert set(found.folds[part]) == {split}
        assert len(part) == 6


def test_broken_pictures_are_counted_and_told(benchmark, root, tmp_path):
    rows = [
        f"{root / path},{label},{fold}"
        for path, label, fold in zip(
            benchmark.paths, benchmark.labels, benchmark.folds, strict=True
        )
    ]
    (tmp_path / "cut.jpg").write_bytes((root / benchmark.paths[0]).read_bytes()[:500])
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.full((50, 50, 4), 255, np.uint8)).save(tmp_path / "fine.png")
    rows += [
        f"cut.jpg,{CLASSES[0]},train",
        f"text.png,{CLASSES[1]},val",
        f"fine.png,{CLASSES[2]},train",
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    for stream in (False, True):
        table = probe_images(
            open_labeled_set("images", tmp_path), [eyes(brightness)], epochs=20, stream=stream
        )
        assert (table.items, table.failed, table.rows[0].accuracy) == (42, 2, 1)
        assert "cut.jpg cannot be read as a picture" in table.failures[0]


def test_views_are_the_centre_and_random_places_that_their_key_draws(benchmark):
    extractor = eyes(brightness)
    one = views(benchmark, extractor, 3, [None, (0, 1), (0, 2), (0, 1)])
    assert one.shape == (4, 3, 32, 32)
    assert torch.equal(one[1], one[3])
    assert not torch.equal(one[1], one[2])
    ((items, vectors),) = streamed_vectors(benchmark, extractor, [3], (0, 1), {})
    assert items == [3]
    assert np.allclose(vectors[0], brightness(one[1:2])[0])
    store = picture_vectors(benchmark, extractor)
    assert store.values.shape == (39, 1 + VIEWS, 3)
    assert np.allclose(store.values[3, 0], brightness(one[:1])[0])


def test_a_layer_is_what_pytorchs_adam_makes_of_it():
    torch.manual_seed(0)
    vectors, classes = torch.randn(200, 7), torch.randint(0, 4, (200,))
    setting = Setting(3e-3, 1e-2)
    ours = Layers.begin(vectors, 4, 2)
    linear = torch.nn.Linear(7, 4)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    adam = torch.optim.Adam(linear.parameters(), setting.rate, weight_decay=setting.decay)
    scaled = (vectors - vectors.mean(0)) / vectors.std(0, correction=0)
    for step in range(40):
        some = torch.arange(5 * step, 5 * step + 5)
        losses = ours.step(vectors[some], classes[some], (Setting(1e-5, 0.0), setting), share=0.0)
        loss = torch.nn.functional.cross_entropy(linear(scaled[some]), classes[some])
        adam.zero_grad()
        loss.backward()
        adam.step()
        assert float(losses[1]) == pytest.approx(loss.item(), abs=1e-5)
    assert torch.allclose(ours.scores(vectors)[1], linear(scaled).detach(), atol=1e-4)


def test_an_interrupted_training_goes_on_to_the_same_layers(tmp_path):
    torch.manual_seed(0)
    vectors, classes = torch.randn(60, 5), torch.randint(0, 3, (60,))

    def batches(epoch):
        order = torch.from_numpy(np.random.default_rng(epoch).permutation(60))
        for some in order.split(20):
            yield vectors[some], classes[some]

    def cut_off(epoch):
        for number, batch in enumerate(batches(epoch)):
            if (epoch, number) == (2, 1):
                raise KeyboardInterrupt
            yield batch

    whole = train(batches, 3, 4, 3)
    with pytest.raises(KeyboardInterrupt):
        train(cut_off, 3, 4, 3, kept=tmp_path / "layers.safetensors")
    resumed = train(batches, 3, 4, 3, kept=tmp_path / "layers.safetensors")
    assert whole.steps == resumed.steps == 12
    assert torch.equal(whole.weights, resumed.weights)
    assert len(whole.weights) == len(SETTINGS)


def test_colors_and_edges_by_hand():
    plain = torch.full((1, 3, 16, 16), 51, dtype=torch.uint8)
    means, deviations, edges = colors_and_edges(plain)[0].split([48, 48, 128])
    assert torch.allclose(means, torch.tensor(0.2))
    assert deviations.abs().max() < 1e-3
    assert edges.abs().max() < 1e-6
    ramp = torch.arange(16).mul(8).to(torch.uint8).expand(1, 3, 16, 16)
    edges = colors_and_edges(ramp)[0, 96:].view(8, 16)
    assert edges[0].min() > 0, "brightness rises to the right"
    assert edges[1:].abs().max() == 0
    down = colors_and_edges(ramp.mT)[0, 96:].view(8, 16)
    assert down[4].min() > 0
    assert down[:4].abs().max() == 0


def test_the_rivals_of_pictures_and_of_sounds_are_not_the_same(benchmark, root):
    rows = contenders(
        benchmark, L3Net(small_config().model), ["untrained", "colors"], "conv4_2", "cpu"
    )
    assert [(row.name, row.width) for row in rows] == [
        ("network", 16 * 16),
        ("untrained", 16 * 16),
        ("colors", 224),
    ]
    with pytest.raises(
        ConfigError, match="no rival 'spectrogram' for ImageNet; choose of untrained, colors"
    ):
        probe_labeled_set(
            "imagenet", root, "untrained:tiny", ProbeOptions("spectrogram", partial=True)
        )


def test_the_shell_measures_pictures_by_folders(root, tmp_path, capsys):
    recipe = tmp_path / "small.toml"
    recipe.write_text(small_config().toml())
    told = [
        "probe",
        "images",
        str(root),
        "--checkpoint",
        f"untrained:{recipe}",
        "--cache",
        str(tmp_path / "cache"),
        "--json",
    ]
    assert main(told) == 0
    result = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["features"]) for row in result["rows"]] == [
        ("untrained", 256),
        ("colors", 224),
    ]
    assert result["rows"][1]["accuracy"] > 0.6, "brightness of channels is in the description"
