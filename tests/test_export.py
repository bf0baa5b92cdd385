"""Exported towers give the network's vectors: to the bit from weights, to a tolerance that is
checked from ONNX.
"""

import json
import logging
import re
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import soxr
import torch

import looklisten as ll
from conftest import small_config
from looklisten.app.cli import main
from looklisten.config import ModelConfig
from looklisten.inference.encoder import encoder_of
from looklisten.interop.onnx import (
    ConvolvedSpectrogram,
    _quiet_loggers,
    pool_in_cells,
    trial_batch,
    write_onnx,
)
from looklisten.media.front_ends import FRONT_ENDS
from looklisten.media.spectrogram import WINDOWS, LogSpectrogram
from looklisten.model.backbones import Layer
from looklisten.model.backbones.backbone import pool
from looklisten.model.l3net import L3Net

SOUND = torch.randint(
    -9000, 9000, (3, 48_000), dtype=torch.int16, generator=torch.Generator().manual_seed(5)
)
FRAMES = torch.randint(
    0, 256, (3, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(6)
)


def batch_of(side):
    return (SOUND / 2**15 if side == "audio" else FRAMES).clone()


@pytest.fixture(scope="module")
def exported(run_path, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "towers"
    ll.export(run_path, out)
    return out


@pytest.mark.parametrize("side", ["audio", "vision"])
@torch.inference_mode()
def test_the_snippet_loads_a_tower_that_gives_equal_vectors(exported, run_path, side, monkeypatch):
    monkeypatch.chdir(exported)
    snippets = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.S)
    program = next(snippet for snippet in snippets if f"{side}.safetensors" in snippet)
    batch = {
        "audio": "torch.zeros(1, WINDOW_SAMPLES)",
        "vision": "torch.zeros(1, 3, 224, 224, dtype=torch.uint8)",
    }[side]
    assert batch in program
    names = {"given": batch_of(side)}
    exec(program.replace(batch, "given"), names)
    model = ll.load(run_path)
    truth = model.listen(SOUND) if side == "audio" else model.look(FRAMES)
    assert torch.equal(names["vectors"], truth.vector)


def test_the_whole_lies_beside_the_towers(exported, run_path):
    assert {file.name for file in exported.iterdir()} == {
        "audio.safetensors",
        "vision.safetensors",
        "full.safetensors",
        "config.json",
        "README.md",
    }
    model = ll.load(exported)
    assert all(
        torch.equal(value, model.state_dict()[key])
        for key, value in ll.load(run_path).state_dict().items()
    )


def test_keys_are_the_towers_own(exported):
    from safetensors import safe_open

    with safe_open(exported / "audio.safetensors", "pt") as weights:
        assert "blocks.0.conv1.weight" in weights.keys()  # noqa: SIM118 (no mapping)
        assert not any(key.startswith(("audio.", "module.")) for key in weights.keys())  # noqa: SIM118


def test_one_side_alone_says_how_it_is_loaded(run_path, tmp_path):
    ll.export(run_path, tmp_path / "one", side="vision")
    assert {file.name for file in (tmp_path / "one").iterdir()} == {
        "vision.safetensors",
        "config.json",
        "README.md",
    }
    with pytest.raises(
        ll.LookListenError,
        match=r"holds no whole network .* README\.md says how to load a single tower",
    ):
        ll.load(tmp_path / "one")


def test_weights_have_no_layer_to_choose(run_path, tmp_path, capsys):
    assert main(["export", str(run_path), str(tmp_path), "--layer", "pool4"]) == 1
    assert "there is no pool4 to choose; --layer is for --format onnx" in re.sub(
        r"\s+", " ", capsys.readouterr().err
    )


@pytest.mark.parametrize("window", sorted(WINDOWS))
@pytest.mark.parametrize("name", sorted(FRONT_ENDS))
def test_the_convolved_spectrogram_is_the_spectrogram(name, window):
    sounds = trial_batch(L3Net(small_config().model), "audio")[[0, 1, 4]]
    # Decibels are 8.7 to a unit of the natural logarithm, which the others divide by 2 or more.
    tolerance = 2e-3 if FRONT_ENDS[name].range_decibels else 2e-4
    torch.testing.assert_close(
        ConvolvedSpectrogram(name, window)(sounds),
        LogSpectrogram(name, window)(sounds),
        rtol=0,
        atol=tolerance,
    )


@pytest.mark.parametrize(
    ("height", "width"), [(4, 3), (32, 24), (28, 28), (7, 7), (4, 6), (5, 9), (3, 2)]
)
def test_cells_are_those_of_adaptive_pooling(height, width):
    image = torch.rand(2, 3, height, width)
    for pooling in ("maximum", "mean"):
        layer = Layer(3, (4, 3), pooling=pooling)
        cells = pool_in_cells(image, layer).flatten(1)
        torch.testing.assert_close(cells, pool(image, pooling, layer.grid))


def small(**model):
    torch.manual_seed(0)
    network = L3Net(ModelConfig(**small_config().model.model_dump() | model))
    for module in network.modules():  # statistics as after training, not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.mark.parametrize(
    ("side", "layer", "model"),
    [
        ("audio", "aligned", {}),
        ("audio", "conv4_2", {"front_end": "paper", "fusion": "concat", "first_stride": 1}),
        ("vision", "conv4_2", {"frames_per_pair": 3}),
        pytest.param(
            "audio",
            "block11",
            {"audio_backbone": "yamnet", "front_end": "yamnet"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_onnx_gives_the_networks_vectors_for_any_batch(side, layer, model, tmp_path):
    network = small(**model)
    path = tmp_path / "tower.onnx"
    difference = write_onnx(network, side, layer, path)
    assert 0 <= difference < 1e-3
    session = onnxruntime.InferenceSession(path)
    (given,), (output,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type) == (
        ("waveforms", "tensor(float)") if side == "audio" else ("frames", "tensor(uint8)")
    )
    assert output.name == "vectors"
    whole = batch_of(side).repeat(
        1,
        network.config.frames_per_pair if side == "vision" else 1,
        *([1, 1] if side == "vision" else []),
    )
    for rows in (1, 2, 3):
        (vectors,) = session.run(None, {given.name: whole[:rows].numpy()})
        with torch.inference_mode():
            truth = encoder_of(network).encode(side, whole[:rows], layer).numpy()
        np.testing.assert_allclose(vectors, truth, rtol=0, atol=2e-5 * np.abs(truth).max())
    about = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert (about["side"], about["layer"]) == (side, layer)
    assert (
        ModelConfig.model_validate(json.loads(about["config"])["config"]["model"]) == network.config
    )


@pytest.mark.parametrize(("front_end", "tolerance"), [("paper", 2e-4), ("compact", 2e-5)])
def test_onnx_rounds_floats_to_16_bits_as_the_network_does(front_end, tolerance, tmp_path):
    """Sound brought from 16 to 48 kHz has nothing above 8 kHz but its rounding, and the file must
    hear the same of it.
    """
    network = small(front_end=front_end, fusion="concat")
    write_onnx(network, "audio", "pool4", tmp_path / "tower.onnx")
    sound = torch.randint(
        -9000, 9000, (2, 16_000), dtype=torch.int16, generator=torch.Generator().manual_seed(7)
    )
    floats = np.stack(
        [soxr.resample(row / np.float32(2**15), 16_000, 48_000, "HQ") for row in sound.numpy()]
    )
    stored = np.clip(np.rint(floats * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    session = onnxruntime.InferenceSession(tmp_path / "tower.onnx")
    (of_floats,) = session.run(None, {"waveforms": floats})
    (of_stored,) = session.run(None, {"waveforms": stored / np.float32(2**15)})
    assert np.array_equal(of_floats, of_stored)
    with torch.inference_mode():
        truth = encoder_of(network).encode("audio", torch.from_numpy(stored), "pool4").numpy()
    np.testing.assert_allclose(of_floats, truth, rtol=0, atol=tolerance * np.abs(truth).max())


def test_a_file_that_disagrees_is_not_written(tmp_path):
    class TooLoudSpectrogram(ConvolvedSpectrogram):
        def magnitude(self, waves):
            return 1.1 * super().magnitude(waves)

    with pytest.raises(
        ll.LookListenError,
        match=r"tower\.onnx is not written: onnxruntime's vectors differ from PyTorch's by",
    ):
        write_onnx(
            small(),
            "audio",
            "pool4",
            tmp_path / "tower.onnx",
            make_front_end=TooLoudSpectrogram,
        )
    assert not list(tmp_path.iterdir())


def test_the_verb_says_how_far_it_is_from_pytorch(run_path, tmp_path, capsys):
    assert (
        main(
            ["export", str(run_path), str(tmp_path / "out"), "--format", "onnx", "--side", "vision"]
        )
        == 0
    )
    printed = capsys.readouterr()
    assert printed.err == "", "nothing of what goes on inside of the exporter"
    said = json.loads(printed.out)
    assert said["max_relative_difference"]["vision"] < 1e-3
    assert said["files"] == [str(tmp_path / "out" / "vision.onnx")]
    about = {entry.key: entry.value for entry in onnx.load(said["files"][0]).metadata_props}
    assert (about["layer"], json.loads(about["config"])["step"]) == ("pool4", 20)


def test_a_layer_that_the_network_lacks_says_what_to_train(tmp_path):
    with pytest.raises(ll.LookListenError, match="train one with the recipe general"):
        write_onnx(small(fusion="concat"), "audio", "aligned", tmp_path / "tower.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_extra_the_sentence_says_what_to_install(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ll.LookListenError, match=r"the format onnx needs .*pip install 'looklisten\[onnx\]'"
    ):
        write_onnx(small(), "audio", "pool4", tmp_path / "tower.onnx")


def test_networks_of_another_house_are_exported_by_their_own(tmp_path):
    with pytest.raises(ll.LookListenError, match="is a network of OpenL3"):
        ll.export("openl3:audio-mel256-env", tmp_path)


def test_the_exporter_logs_only_when_it_is_asked_to(caplog):
    exporter = logging.getLogger("torch.onnx")
    rewriter = logging.getLogger("onnxscript")
    rewriter.setLevel(logging.DEBUG)
    try:
        with _quiet_loggers():
            exporter.warning("an internal")
            rewriter.debug("asked for")
        exporter.warning("afterwards")
    finally:
        rewriter.setLevel(logging.NOTSET)
    assert [record.message for record in caplog.records] == ["asked for", "afterwards"]
