"""The protocol for images: an oracle is always right, random vectors are at chance, stored or
streamed; unreadable images are counted.
"""

import json
import math

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from conftest import small_config
from labeled_set_files import make_empty_files
from looklisten.app.cli import main
from looklisten.errors import ConfigError
from looklisten.evaluation.linear_probe.baselines import compared_extractors
from looklisten.evaluation.linear_probe.features import FeatureExtractor
from looklisten.evaluation.linear_probe.image_protocol import (
    ProbeImages,
    predict_images,
    split_items,
)
from looklisten.evaluation.linear_probe.images import (
    RANDOM_VIEWS,
    colors_and_edges,
    image_vectors,
    image_views,
    streamed_image_vectors,
)
from looklisten.evaluation.linear_probe.options import ProbeOptions
from looklisten.evaluation.linear_probe.public_sets import probe_images, probe_labeled_set
from looklisten.evaluation.linear_probe.softmax import SETTINGS, SoftmaxSetting, train_softmax
from looklisten.evaluation.sets.registry import open_labeled_set
from looklisten.model.l3net import L3Net

SYNSETS = ("n01440764", "n01443537", "n01484850")
IMAGES_PER_CLASS = {"train": 8, "val": 5}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """ImageNet's layout, smaller: noise in which one bright color channel tells the class."""
    root = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    for split, count in IMAGES_PER_CLASS.items():
        for channel, synset in enumerate(SYNSETS):
            (root / split / synset).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 128, (40 + number, 60, 3), dtype=np.uint8)
                pixels[..., channel] += 127
                jpeg = simplejpeg.encode_jpeg(pixels, quality=95)
                (root / split / synset / f"{synset}_{number}.JPEG").write_bytes(jpeg)
    return root


@pytest.fixture(scope="module")
def files(imagenet):
    return open_labeled_set("imagenet", imagenet, partial=True)


def mean_colors(frames):
    """An oracle: the brightest channel is the class."""
    return frames.float().mean((2, 3)) / 255


def extractor_of(encode, width=3):
    return FeatureExtractor("mine", encode, width, resize_pixels=40, crop_pixels=32)


@pytest.mark.parametrize("stream", [False, True])
def test_an_oracle_is_always_right(files, stream):
    table = probe_images(files, [extractor_of(mean_colors)], epochs=20, stream=stream)
    assert (table.rows[0].accuracy, table.rows[0].folds) == (1, (1.0,))
    assert (table.items, table.tested_folds) == (39, ("val",))
    assert np.isnan(table.rows[0].deviation)
    assert table.published[-1].accuracy == 0.323


@pytest.mark.parametrize("stream", [False, True])
def test_random_vectors_are_at_chance(files, stream):
    torch.manual_seed(0)
    random = extractor_of(lambda frames: torch.randn(len(frames), 30), 30)
    accuracies = []
    for _ in range(12):
        table = probe_images(files, [random], epochs=4, stream=stream)
        accuracies.append(table.rows[0].accuracy)
    assert np.mean(accuracies) == pytest.approx(1 / 3, abs=0.12)


@pytest.mark.parametrize("stream", [False, True])
def test_layers_are_trained_on_training_images_only(files, stream):
    read_items = []

    class RecordingImages(ProbeImages):
        def batches(self, items, epoch):
            read_items.append((set(items.tolist()), epoch))
            return super().batches(items, epoch)

    extractor = extractor_of(mean_colors)
    classes = torch.from_numpy(np.unique(files.labels, return_inverse=True)[1])
    stored = None if stream else image_vectors(files, extractor)
    predict_images(RecordingImages(files, extractor, classes, stored, {}), epochs=2)
    split = split_items(files, "val")
    fitted, validation, tested = (set(part.tolist()) for part in split)
    assert {frozenset(items) for items, epoch in read_items if epoch is not None} == {
        frozenset(fitted)
    }
    assert [items for items, epoch in read_items if epoch is None] == [validation, tested]
    assert not fitted & validation
    assert not (fitted | validation) & tested
    assert {str(files.folds[item]) for item in tested} == {"val"}


def test_the_split_val_chooses_the_setting_if_there_is_a_split_test(tmp_path):
    for split in ("train", "valid", "test"):
        for label in "ab":
            make_empty_files(tmp_path, *(f"{split}/{label}/{number}.jpg" for number in range(3)))
    files = open_labeled_set("images", tmp_path)
    for items, split in zip(split_items(files, "test"), ("train", "val", "test"), strict=True):
        assert set(files.folds[items]) == {split}
        assert len(items) == 6


def test_unreadable_images_are_counted_and_their_reason_reported(files, imagenet, tmp_path):
    rows = ["path,label,split"]
    for path, label, fold in zip(files.paths, files.labels, files.folds, strict=True):
        rows.append(f"{imagenet / path},{label},{fold}")
    (tmp_path / "cut.jpg").write_bytes((imagenet / files.paths[0]).read_bytes()[:500])
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(np.full((50, 50, 4), 255, np.uint8)).save(tmp_path / "fine.png")
    rows += [f"cut.jpg,{SYNSETS[0]},train", f"text.png,{SYNSETS[1]},val"]
    rows += [f"fine.png,{SYNSETS[2]},train"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    own_files = open_labeled_set("images", tmp_path)
    for stream in (False, True):
        table = probe_images(own_files, [extractor_of(mean_colors)], epochs=20, stream=stream)
        assert (table.items, table.failed, table.rows[0].accuracy) == (42, 2, 1)
        assert "cut.jpg cannot be read as" in table.failures[0]


def test_views_are_the_center_and_random_squares_that_their_key_chooses(files):
    extractor = extractor_of(mean_colors)
    views = image_views(files, extractor, 3, [None, (0, 1), (0, 2), (0, 1)])
    assert views.shape == (4, 3, 32, 32)
    assert torch.equal(views[1], views[3])
    assert not torch.equal(views[1], views[2])
    ((items, vectors),) = streamed_image_vectors(files, extractor, [3], (0, 1), {})
    assert items == [3]
    assert np.allclose(vectors[0], mean_colors(views[1:2])[0])
    stored = image_vectors(files, extractor)
    assert stored.vectors.shape == (39, 1 + RANDOM_VIEWS, 3)
    assert np.allclose(stored.vectors[3, 0], mean_colors(views[:1])[0])


def reference_scores(batches, epochs, steps, n_classes, setting, vectors):
    """Softmax regression with the gradient and Adam's update written out, in double precision."""
    examples = np.concatenate([batch for batch, _ in batches(0)])
    mean, deviation = examples.mean(0), examples.std(0)

    def columns_of(values):
        return np.concatenate([(values - mean) / deviation, np.ones((len(values), 1))], axis=1)

    weights = np.zeros((n_classes, examples.shape[1] + 1))
    gradient_mean = np.zeros_like(weights)
    square_mean = np.zeros_like(weights)
    step = 0
    for epoch in range(epochs):
        for number, (values, classes) in enumerate(batches(epoch)):
            columns = columns_of(values)
            exponentials = np.exp(columns @ weights.T)
            errors = exponentials / exponentials.sum(1, keepdims=True)
            errors[np.arange(len(classes)), classes] -= 1
            gradient = errors.T @ columns / len(classes) + setting.weight_decay * weights
            step += 1
            gradient_mean += 0.1 * (gradient - gradient_mean)
            square_mean += 0.001 * (gradient**2 - square_mean)
            size = np.sqrt(square_mean / (1 - 0.999**step)) + 1e-8
            rate = (
                setting.learning_rate
                * 0.5
                * (1 + math.cos(math.pi * (epoch + number / steps) / epochs))
            )
            weights -= rate * gradient_mean / (1 - 0.9**step) / size
    return columns_of(vectors) @ weights.T


def test_layers_are_those_of_the_equations():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 7)) * [1, 2, 3, 4, 5, 6, 7] + 3
    classes = rng.integers(0, 4, 200)

    def batches(epoch):
        order = np.random.default_rng(epoch).permutation(200)
        for items in np.split(order, 10):
            yield vectors[items], classes[items]

    def tensor_batches(epoch):
        for values, labels in batches(epoch):
            yield torch.from_numpy(values).float(), torch.from_numpy(labels)

    settings = (SoftmaxSetting(1e-2, 0.0), SoftmaxSetting(3e-3, 1e-2))
    layers = train_softmax(tensor_batches, 10, 4, 4, settings)
    scores = layers(torch.from_numpy(vectors).float()).detach().numpy()
    assert scores.shape == (2, 200, 4)
    for of_setting, setting in zip(scores, settings, strict=True):
        expected = reference_scores(batches, 4, 10, 4, setting, vectors)
        assert np.abs(expected).max() > 0.1
        assert np.allclose(of_setting, expected, atol=1e-4)


def test_an_interrupted_training_resumes_to_the_same_layers(tmp_path):
    torch.manual_seed(0)
    vectors, classes = torch.randn(60, 5), torch.randint(0, 3, (60,))

    def batches(epoch):
        order = torch.from_numpy(np.random.default_rng(epoch).permutation(60))
        for items in order.split(20):
            yield vectors[items], classes[items]

    def interrupted_batches(epoch):
        for number, batch in enumerate(batches(epoch)):
            if (epoch, number) == (2, 1):
                raise KeyboardInterrupt
            yield batch

    uninterrupted = train_softmax(batches, 3, 4, 3)
    state_file = tmp_path / "layers.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_softmax(interrupted_batches, 3, 4, 3, state_file=state_file)
    epochs_read = []

    def recorded_batches(epoch):
        epochs_read.append(epoch)
        return batches(epoch)

    resumed = train_softmax(recorded_batches, 3, 4, 3, state_file=state_file)
    # Epoch 0 is read for the means and deviations only.
    assert epochs_read == [0, 2, 3]
    assert len(resumed.layers) == len(SETTINGS)
    for name, values in uninterrupted.state_dict().items():
        assert torch.equal(values, resumed.state_dict()[name]), name


def test_colors_and_edges_by_hand():
    even = torch.full((1, 3, 16, 16), 51, dtype=torch.uint8)
    means, deviations, edges = colors_and_edges(even)[0].split([48, 48, 128])
    assert torch.allclose(means, torch.tensor(0.2))
    assert deviations.abs().max() < 1e-3
    assert edges.abs().max() < 1e-6
    ramp = torch.arange(16).mul(8).to(torch.uint8).expand(1, 3, 16, 16)
    edges = colors_and_edges(ramp)[0, 96:].view(8, 16)
    assert edges[0].min() > 0, "brightness rises to the right"
    assert edges[1:].abs().max() == 0
    edges_down = colors_and_edges(ramp.mT)[0, 96:].view(8, 16)
    assert edges_down[4].min() > 0
    assert edges_down[:4].abs().max() == 0


def test_baselines_of_images_are_not_those_of_sounds(files, imagenet):
    network = L3Net(small_config().model)
    rows = compared_extractors(network, files, ProbeOptions(device="cpu"))
    assert [(row.name, row.width) for row in rows] == [
        ("network", 16 * 16),
        ("untrained", 16 * 16),
        ("colors", 224),
    ]
    sentence = (
        "no baseline 'spectrogram' for ImageNet; "
        "choose all, none, or names out of untrained, colors"
    )
    with pytest.raises(ConfigError, match=sentence):
        options = ProbeOptions("spectrogram", partial=True)
        probe_labeled_set("imagenet", imagenet, "untrained:tiny", options)


def test_the_command_line_probes_images_in_folders(imagenet, tmp_path, capsys):
    recipe = tmp_path / "small.toml"
    recipe.write_text(small_config().toml())
    network = ["--checkpoint", f"untrained:{recipe}"]
    cache = ["--cache", str(tmp_path / "cache")]
    assert main(["probe", "images", str(imagenet), *network, *cache, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = [(row["name"], row["features"]) for row in result["rows"]]
    assert rows == [("untrained", 256), ("colors", 224)]
    assert result["rows"][1]["accuracy"] > 0.6, "brightness of channels is in the description"
