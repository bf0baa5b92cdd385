"""A run knows which videos it was trained on, and does not go on over others without a word."""

import json
import shutil

import numpy as np
import pytest
import simplejpeg

from conftest import small_config
from looklisten.app.cli import main
from looklisten.config import Config
from looklisten.data.shards import FORMAT_VERSION, Clip, Shards, write_shards
from looklisten.errors import CheckpointError, ConfigError
from looklisten.model.checkpoint import open_checkpoint, saved_steps
from looklisten.training.loop import fitted, train
from looklisten.training.provenance import read_record, training_data, videos_trained_on
from looklisten.training.runlog import read_made

STEPS = {"batch_size": 4, "schedule": "constant", "log_every": 1}


def config(steps, **settings):
    return small_config(**STEPS | {"steps": steps} | settings)


def a_clip(number, split, start_seconds=0.0):
    """A second of noise of video `vNN`, with its frames."""
    rng = np.random.default_rng([number, int(start_seconds)])
    jpeg = simplejpeg.encode_jpeg(rng.integers(0, 256, (64, 64, 3), np.uint8))
    wave = rng.integers(-(2**14), 2**14, 60_000).astype(np.int16)
    name = f"v{number:02d}"
    return Clip(
        key=f"{name}@{start_seconds}",
        video_id=name,
        source=f"{name}.mp4",
        start_seconds=start_seconds,
        frame_seconds=(0.2, 0.6),
        frames=(jpeg, jpeg),
        waveform=wave,
        sample_rate_hz=48_000,
        split=split,
    )


def write_set(folder, training, held_out, more=()):
    """Shards of the numbered videos in two splits, and of the clips `more`."""
    folder.mkdir()
    clips = [a_clip(number, "train") for number in training] + [a_clip(number, "test") for number in held_out] + list(more)
    entries = write_shards(clips, folder, "clips-000000", 10**9)
    (folder / "index.json").write_text(json.dumps({"format": FORMAT_VERSION, "shards": entries}))
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The shards of a first training, and others that differ in one thing each."""
    folder = tmp_path_factory.mktemp("sets")
    return {
        "first": write_set(folder / "first", range(8), range(8, 12)),
        "enlarged": write_set(folder / "enlarged", [*range(8), *range(20, 26)], range(8, 12)),
        "other clips": write_set(folder / "other clips", range(8), range(8, 12), [a_clip(0, "train", 5.0)]),
        "fewer": write_set(folder / "fewer", range(6), [*range(8, 12)]),
        "trained ones held out": write_set(folder / "trained ones held out", range(6), [6, 7, *range(8, 12)]),
        "held-out ones trained on": write_set(folder / "held-out ones trained on", range(10), range(10, 12)),
        "strangers": write_set(folder / "strangers", range(50, 58), range(60, 64)),
    }


@pytest.fixture(scope="module")
def first_run(sets, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "first"
    train(sets["first"], config(2), run)
    return run


@pytest.fixture
def run(first_run, tmp_path):
    """A run of two steps over the first shards."""
    shutil.copytree(first_run, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_records_its_shards_and_videos(run, sets):
    (entry,) = read_record(run)
    assert entry["from_step"] == 0
    assert entry["videos"] == {"trained_on": 8, "kept_apart": 4}
    assert videos_trained_on(run, 2) == {f"v{number:02d}" for number in range(8)}
    data = Shards(sets["first"])
    backwards = training_data(data, (data.splits == "train"), data.splits != "train")
    assert entry["sha256"] == backwards.digests()


def test_the_same_shards_elsewhere_are_the_same(run, sets, tmp_path, caplog):
    shutil.copytree(sets["first"], tmp_path / "moved")
    assert train(tmp_path / "moved", config(3), run).resumed_from == 2
    assert len(read_record(run)) == 1
    assert "goes on with" not in caplog.text


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ("enlarged", "has 6 videos to train on that were not trained on before"),
        ("other clips", "has the same videos in other shards"),
        ("fewer", "does not train on 2 of the videos before"),
        ("strangers", "has 8 videos to train on that were not trained on before and does not train on 8 of the videos before"),
        ("trained ones held out", "2 videos that were trained on are held out now (v06, v07): the accuracy on held-out videos is too high"),
    ],
)
def test_other_shards_are_said_and_recorded(run, sets, caplog, other, sentence):
    assert train(sets[other], config(4), run).resumed_from == 2
    assert sentence in caplog.text
    assert "data.json says so" in caplog.text
    assert [entry["from_step"] for entry in read_record(run)] == [0, 2]
    assert [change["after_step"] for change in read_made(run)["other_data"]] == [2]
    caplog.clear()
    train(sets[other], config(5), run)
    assert "goes on with" not in caplog.text


def test_held_out_videos_are_not_trained_on_later(run, sets, caplog):
    before = sorted((path.name, path.read_bytes()) for path in run.rglob("*") if path.is_file())
    sentence = (
        r"was trained on .*first until step 2, and 2 videos that were held out then would be trained on now \(v08, v09\), .*"
        r"Give the shards of before, another run folder, or --resume other-data"
    )
    with pytest.raises(CheckpointError, match=sentence):
        train(sets["held-out ones trained on"], config(4), run)
    assert sorted((path.name, path.read_bytes()) for path in run.rglob("*") if path.is_file()) == before
    assert train(sets["held-out ones trained on"], config(4), run, resume="other-data").step == 4
    assert "2 videos that were held out until step 2 are trained on from now on (v08, v09)" in caplog.text
    assert {"v08", "v09"} <= videos_trained_on(run, 4)
    assert not {"v08", "v09"} & videos_trained_on(run, 2)


def test_videos_held_out_twice_ago_are_remembered(run, sets):
    """Held out at first, then in no shards, then trained on: it was never seen, so nothing but a measurement is lost."""
    train(sets["strangers"], config(4), run)
    with pytest.raises(CheckpointError, match=r"held out then would be trained on now \(v08, v09\)"):
        train(sets["held-out ones trained on"], config(6), run)


def test_what_was_recorded_and_never_trained_on_is_forgotten(run, sets, caplog):
    train(sets["strangers"], config(4), run)
    for path in saved_steps(run / "checkpoints"):
        if path.name > "step-000000002":
            shutil.rmtree(path)
    caplog.clear()
    train(sets["first"], config(4), run)
    assert "goes on with" not in caplog.text
    assert [entry["from_step"] for entry in read_record(run)] == [0]


def test_a_run_of_an_older_version_goes_on_and_is_recorded_from_then_on(run, sets, caplog):
    (run / "data.json").unlink()
    caplog.set_level("INFO")
    train(sets["held-out ones trained on"], config(3), run)
    assert "does not say which videos it was trained on" in caplog.text
    assert [entry["from_step"] for entry in read_record(run)] == [2]


def test_thresholds_stay_on_videos_that_were_not_trained_on(sets, tmp_path):
    """Validation videos are kept apart as held-out ones are."""
    settings = {"validation_fraction": 0.2}
    train(sets["first"], config(1, **settings), tmp_path / "run")
    data = Shards(sets["first"])
    kept = set(data.video_ids[data.validation(0.2, data.splits != "train")].tolist())
    trained_on = [number for number in range(8) if f"v{number:02d}" in kept]
    write_set(tmp_path / "moved", range(8, 16), [20, 21], [a_clip(trained_on[0], "train")])
    moved = Shards(tmp_path / "moved")
    now = set(moved.video_ids[moved.validation(0.2, moved.splits != "train")].tolist())
    assert f"v{trained_on[0]:02d}" not in now, "the lot must draw others for this test"
    with pytest.raises(CheckpointError, match="that were held out then would be trained on now"):
        train(tmp_path / "moved", config(2, **settings), tmp_path / "run")


def test_a_video_on_both_sides_is_said(tmp_path, caplog):
    write_set(tmp_path / "both", range(4), [0, 9])
    train(tmp_path / "both", config(1), tmp_path / "run")
    assert "1 videos of" in caplog.text
    assert "both to train on and held out (v00)" in caplog.text
    assert train(tmp_path / "both", config(2), tmp_path / "run").resumed_from == 1


def test_evaluate_says_when_held_out_videos_were_trained_on(run, sets, caplog):
    verb = ["evaluate", str(sets["trained ones held out"]), "--checkpoint", str(run), "--pairs", "8"]
    assert main(verb) == 0
    assert "2 videos bear the names of videos that" in caplog.text
    caplog.clear()
    assert main(["evaluate", str(sets["first"]), "--checkpoint", str(run), "--pairs", "8"]) == 0
    assert "bear the names" not in caplog.text


def test_nothing_to_train_on_names_the_splits(tmp_path):
    folder = write_set(tmp_path / "set", [], range(3), [a_clip(5, "practice"), a_clip(6, "practice")])
    with pytest.raises(ConfigError, match=r"there are \d; the splits of .* are practice \(2 videos\), test \(3 videos\), and `train` is"):
        train(folder, config(1), tmp_path / "run")


@pytest.mark.parametrize(
    ("videos", "ranks", "settings", "batch"),
    [(7, 1, {}, 7), (7, 2, {}, 6), (7, 1, {"negatives": "same-video"}, 6), (11, 3, {"negatives": "same-video"}, 6)],
)
def test_a_small_set_gives_a_batch_that_can_be_shared(caplog, videos, ranks, settings, batch):
    assert fitted(small_config(batch_size=12, **settings), videos, ranks).train.batch_size == batch
    assert f"the batch is lowered from 12 to {batch}" in caplog.text
    with pytest.raises(ConfigError, match="8 processes need a multiple of 8 videos to share a batch, and there are 7"):
        fitted(small_config(batch_size=16), 7, 8)


def test_how_steps_were_computed_is_kept_and_a_change_is_said(run, sets, caplog):
    """Precision and compilation that were chosen automatically stay what they were, on whatever machine the run goes on."""
    newest = saved_steps(run / "checkpoints")[-1] / "checkpoint.json"
    about = json.loads(newest.read_text())
    assert about["computing"]["precision"] == "float32"
    about["config"]["train"]["precision"] = "auto"
    about["computing"] |= {"precision": "bfloat16", "hardware": "another processor"}
    newest.write_text(json.dumps(about))
    automatic = Config.of(config(3).model_dump() | {"train": config(3).train.model_dump() | {"precision": "auto"}}, "the test")
    train(sets["first"], automatic, run)
    assert open_checkpoint(run).computing["precision"] == "bfloat16"
    assert "hardware was another processor and is " in caplog.text
    caplog.clear()
    train(sets["first"], config(4), run)
    assert open_checkpoint(run).computing["precision"] == "float32"
    assert "precision was bfloat16 and is float32" in caplog.text
