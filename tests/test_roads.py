"""The roads of data in docs/architecture.md are those that the code takes."""

import importlib
import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import small_config, write_clock_video
from looklisten.app.cli import main
from looklisten.data.cutting import ClipCutter
from looklisten.data.options import PrepareOptions
from looklisten.data.sources import Source
from looklisten.inference.embedding.embed import embed
from looklisten.model.networks import load
from looklisten.training.batches import training_stream
from looklisten.training.learner import Learner

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
STOP = re.compile(r"^\d+\. `([\w/]+)\.py: ([\w.]+)` ", re.MULTILINE)
TITLES = [
    "A waveform becomes a vector",
    "A video becomes a batch of training",
    "A video becomes an overlay",
]


def code_of_stops(title):
    """The code of each function of a road, by its name."""
    section = PAGE.read_text(encoding="utf-8").split(f"### {title}\n")[1].split("\n#")[0]
    codes = {}
    for module, name in STOP.findall(section):
        function = importlib.import_module("looklisten." + module.replace("/", "."))
        for part in name.split("."):
            function = getattr(function, part)
        codes[name] = inspect.unwrap(function).__code__
    return codes


def entered(codes, action):
    """The names of `codes` whose functions `action` enters, in the order of first entry."""
    names = {code: name for name, code in codes.items()}
    first_entries = {}

    def note(frame, event, _):
        if event == "call" and frame.f_code in names:
            first_entries.setdefault(names[frame.f_code])

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return list(first_entries)


@pytest.mark.parametrize("title", TITLES)
def test_every_stop_is_a_function(title):
    assert len(code_of_stops(title)) >= 5


def test_a_waveform_takes_its_road(run_path):
    codes = code_of_stops("A waveform becomes a vector")
    network = load(run_path)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 200_000).astype(np.float32)
    taken = entered(codes, lambda: embed(noise, network, sample_rate_hz=44_100))
    # These are entered early. `concatenate` takes the blocks as they come; the first chunk holds no
    # whole window and gives a block without vectors; the size of batches depends on a spectrogram.
    early = {"concatenate", "audio_embeddings", "LogSpectrogram.forward"}
    assert set(taken) == set(codes)
    assert [name for name in taken if name not in early] == [
        name for name in codes if name not in early
    ]


def test_a_video_takes_its_road_to_clips(tmp_path):
    video = tmp_path / "clip.mp4"
    write_clock_video(video, seconds=4.0)
    codes = code_of_stops("A video becomes a batch of training")
    road = list(codes)
    in_worker = road[road.index("ClipCutter.cut") : road.index("PairStream.batch")]
    cutter = ClipCutter(Source(video.name), PrepareOptions(clip_seconds=2.0))
    taken = entered({name: codes[name] for name in in_worker}, lambda: list(cutter.cut(video)))
    # Which of the two streams comes first is the file's choice.
    assert sorted(taken[2:4]) == ["AudioDecoder.feed", "VideoDecoder.feed"]
    assert taken[:2] + sorted(taken[2:4], reverse=True) + taken[4:] == in_worker


def test_a_batch_takes_its_road_to_a_loss(shards):
    codes = code_of_stops("A video becomes a batch of training")
    road = list(codes)
    in_training = road[road.index("PairStream.batch") :]
    config = small_config()
    stream = training_stream(shards, config)
    learner = Learner(config, "cpu")
    # The interface has no code of its own.
    forward = type(learner.module.objective).forward
    codes["Objective.forward"] = inspect.unwrap(forward).__code__
    taken = entered(
        {name: codes[name] for name in in_training},
        lambda: learner.step([stream.batch(0)], 1, 0.001),
    )
    assert taken == in_training


def test_a_video_takes_its_road_to_an_overlay(run_path, tmp_path):
    video = tmp_path / "clip.mp4"
    write_clock_video(video, seconds=2.0)
    codes = code_of_stops("A video becomes an overlay")
    words = ["localize", str(video), "--checkpoint", str(run_path), "-o", str(tmp_path / "out")]
    assert entered(codes, lambda: main(words)) == list(codes)
