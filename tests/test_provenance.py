"""A run knows which videos it was trained on, and does not go on over others without a word."""

import json
import shutil

import pytest

from conftest import small_config
from looklisten.app.cli import main
from looklisten.config import Config
from looklisten.data.shards import Shards
from looklisten.errors import CheckpointError, ConfigError
from looklisten.model.checkpoint import open_checkpoint, saved_steps
from looklisten.model.training_videos import TRAINED_ON, read_record, recorded_videos
from looklisten.training.batches import fit_batch_size
from looklisten.training.loop import train
from looklisten.training.provenance import continue_record, start_record, training_data
from looklisten.training.run_facts import read_run_facts
from noise_shards import a_clip, write_set

STEPS = {"batch_size": 4, "schedule": "constant", "log_every": 1}


def config(steps, **settings):
    return small_config(**STEPS | {"steps": steps} | settings)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The shards of a first training, and others that differ in one thing each."""
    folder = tmp_path_factory.mktemp("sets")
    return {
        "first": write_set(folder / "first", range(8), range(8, 12)),
        "enlarged": write_set(folder / "enlarged", [*range(8), *range(20, 26)], range(8, 12)),
        "other clips": write_set(
            folder / "other clips", range(8), range(8, 12), [a_clip(0, "train", 5.0)]
        ),
        "fewer": write_set(folder / "fewer", range(6), [*range(8, 12)]),
        "trained ones held out": write_set(
            folder / "trained ones held out", range(6), [6, 7, *range(8, 12)]
        ),
        "held-out ones trained on": write_set(
            folder / "held-out ones trained on", range(10), range(10, 12)
        ),
        "others held out": write_set(folder / "others held out", range(8), range(30, 34)),
        "unseen videos": write_set(folder / "unseen", range(50, 58), range(60, 64)),
    }


def read(folder):
    """What a training on the split `train` of these shards reads."""
    data = Shards(folder)
    return training_data(data, data.splits == "train", data.splits != "train")


@pytest.fixture
def recorded(sets, tmp_path):
    """The folder of a run that began on the first shards."""
    start_record(tmp_path / "recorded", read(sets["first"]))
    return tmp_path / "recorded"


def test_a_run_records_its_shards_and_videos(recorded, sets):
    (entry,) = read_record(recorded)
    assert entry["from_step"] == 0
    assert entry["videos"] == {"trained_on": 8, "kept_apart": 4}
    assert entry["shards"] == str(sets["first"])
    assert recorded_videos(recorded, 1)[TRAINED_ON] == {f"v{number:02d}" for number in range(8)}


def test_the_same_shards_in_another_folder_are_the_same(recorded, sets, tmp_path, caplog):
    shutil.copytree(sets["first"], tmp_path / "moved")
    assert not continue_record(recorded, read(tmp_path / "moved"), 8)
    assert len(read_record(recorded)) == 1
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ("enlarged", "has 6 videos to train on that were not trained on before"),
        ("other clips", "has the same videos in other shards"),
        ("fewer", "does not train on 2 of the earlier videos"),
        ("others held out", "has the same videos to train on and holds out others"),
        (
            "unseen videos",
            "has 8 videos to train on that were not trained on before "
            "and does not train on 8 of the earlier videos",
        ),
        (
            "trained ones held out",
            "2 videos that were trained on are held out now (v06, v07): "
            "the accuracy on held-out videos is too high",
        ),
    ],
)
def test_other_shards_are_reported_and_recorded(recorded, sets, caplog, other, sentence):
    assert continue_record(recorded, read(sets[other]), 8)
    assert sentence in caplog.text
    assert (
        f"was trained on {sets['first']} until step 8, and is resumed with {sets[other]}, which"
        in caplog.text
    )
    assert [entry["from_step"] for entry in read_record(recorded)] == [0, 8]
    caplog.clear()
    assert not continue_record(recorded, read(sets[other]), 12)
    assert caplog.text == ""


def test_held_out_videos_are_not_trained_on_later(recorded, sets, caplog):
    before = {path: path.read_bytes() for path in recorded.rglob("*") if path.is_file()}
    other = read(sets["held-out ones trained on"])
    sentence = (
        r"was trained on .*first until step 8, and 2 videos that were held out then "
        r"would be trained on now \(v08, v09\), .*"
        r"Give the earlier shards, another run folder, or --resume other-data"
    )
    with pytest.raises(CheckpointError, match=sentence):
        continue_record(recorded, other, 8)
    assert {path: path.read_bytes() for path in recorded.rglob("*") if path.is_file()} == before
    assert continue_record(recorded, other, 8, other_data=True)
    assert (
        "2 videos that were held out until step 8 are trained on from now on (v08, v09)"
        in caplog.text
    )
    assert {"v08", "v09"} <= recorded_videos(recorded, 9)[TRAINED_ON]
    assert not {"v08", "v09"} & recorded_videos(recorded, 8)[TRAINED_ON]


def test_videos_held_out_by_earlier_shards_stay_recorded(recorded, sets):
    continue_record(recorded, read(sets["unseen videos"]), 8)
    with pytest.raises(
        CheckpointError, match=r"held out then would be trained on now \(v08, v09\)"
    ):
        continue_record(recorded, read(sets["held-out ones trained on"]), 12)


def test_an_entry_of_lost_steps_is_removed(recorded, sets, caplog):
    """A run that was killed before its next checkpoint goes on from the same step."""
    continue_record(recorded, read(sets["unseen videos"]), 8)
    caplog.clear()
    assert not continue_record(recorded, read(sets["first"]), 8)
    assert caplog.text == ""
    assert [entry["from_step"] for entry in read_record(recorded)] == [0]


def test_a_run_without_the_lists_of_its_record_is_refused(recorded, sets, caplog):
    (recorded / "data/from-step-000000000.parquet").unlink()
    with pytest.raises(
        CheckpointError,
        match=r"data lacks the lists of videos .* Copy the folder data .* --resume other-data",
    ):
        continue_record(recorded, read(sets["first"]), 8)
    assert continue_record(recorded, read(sets["first"]), 8, other_data=True)
    assert "is resumed all the same" in caplog.text
    assert [entry["from_step"] for entry in read_record(recorded)] == [0, 8]


def test_a_run_without_a_record_is_resumed_and_recorded_from_then_on(recorded, sets, caplog):
    (recorded / "data.json").unlink()
    caplog.set_level("INFO")
    continue_record(recorded, read(sets["held-out ones trained on"]), 8)
    assert "does not say which videos it was trained on" in caplog.text
    assert [entry["from_step"] for entry in read_record(recorded)] == [8]


def test_a_video_on_both_sides_of_the_split_is_warned_of(tmp_path, caplog):
    both = read(write_set(tmp_path / "both", range(4), [0, 9]))
    start_record(tmp_path / "run", both)
    assert "1 videos of" in caplog.text
    assert "both to train on and held out (v00)" in caplog.text
    assert not continue_record(tmp_path / "run", both, 4)


@pytest.fixture(scope="module")
def one_held_out(tmp_path_factory):
    """Shards with one held-out video: too few to measure on, so training takes seconds."""
    return write_set(tmp_path_factory.mktemp("one") / "set", range(8), [8])


@pytest.fixture(scope="module")
def first_run(one_held_out, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "first"
    train(one_held_out, config(2), run)
    return run


@pytest.fixture
def run(first_run, tmp_path):
    """A run of two steps."""
    shutil.copytree(first_run, tmp_path / "run")
    return tmp_path / "run"


def test_training_refuses_other_data_unless_it_is_allowed(run, tmp_path, caplog):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    others = write_set(tmp_path / "others", range(10), [20])
    with pytest.raises(
        CheckpointError, match="1 videos that were held out then would be trained on now"
    ):
        train(others, config(3), run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert train(others, config(3), run, resume="other-data").resumed_from == 2
    (change,) = read_run_facts(run)["other_data"]
    assert change["after_step"] == 2
    assert change["trained_on"]["videos"] == 10
    assert "v08" in caplog.text


def test_videos_that_thresholds_are_chosen_on_are_kept_apart_too(one_held_out, tmp_path):
    settings = {"validation_fraction": 0.2}
    train(one_held_out, config(1, **settings), tmp_path / "run")
    data = Shards(one_held_out)
    kept = sorted(set(data.video_ids[data.validation_mask(0.2, 0.1)].tolist()))
    # Among many other videos the lot falls on others.
    write_set(tmp_path / "more", range(40), [50])
    more = Shards(tmp_path / "more")
    now = set(more.video_ids[more.validation_mask(0.2, 0.1)].tolist())
    freed = [video for video in [*kept, "v08"] if video not in now]
    assert freed
    with pytest.raises(
        CheckpointError,
        match=f"{len(freed)} videos that were held out then would be trained on now",
    ):
        train(tmp_path / "more", config(2, **settings), tmp_path / "run")


def test_evaluate_warns_when_held_out_videos_were_trained_on(first_run, sets, caplog):
    verb = [
        "evaluate",
        str(sets["trained ones held out"]),
        "--checkpoint",
        str(first_run),
        "--pairs",
        "8",
    ]
    assert main(verb) == 0
    assert "2 videos have the same ids as videos that" in caplog.text
    caplog.clear()
    assert (
        main(["evaluate", str(sets["first"]), "--checkpoint", str(first_run), "--pairs", "8"]) == 0
    )
    assert "have the same ids" not in caplog.text


def test_the_error_of_too_few_videos_names_the_splits(tmp_path):
    folder = write_set(
        tmp_path / "set", [], range(3), [a_clip(5, "practice"), a_clip(6, "practice")]
    )
    with pytest.raises(
        ConfigError,
        match=r"there are \d; the splits of .* are practice \(2 videos\), test \(3 videos\), "
        r"and `train` is",
    ):
        train(folder, config(1), tmp_path / "run")


@pytest.mark.parametrize(
    ("videos", "ranks", "settings", "batch"),
    [
        (7, 1, {}, 7),
        (7, 2, {}, 6),
        (7, 1, {"negatives": "same-video"}, 6),
        (11, 3, {"negatives": "same-video"}, 6),
    ],
)
def test_a_small_set_gives_a_batch_that_can_be_shared(caplog, videos, ranks, settings, batch):
    assert (
        fit_batch_size(small_config(batch_size=12, **settings), videos, ranks).train.batch_size
        == batch
    )
    assert f"the batch is lowered from 12 to {batch}" in caplog.text
    with pytest.raises(
        ConfigError,
        match="8 processes need a multiple of 8 videos to share a batch, and there are 7",
    ):
        fit_batch_size(small_config(batch_size=16), 7, 8)


def test_how_steps_were_computed_is_recorded_and_a_change_is_reported(run, one_held_out, caplog):
    """Precision and compilation that were chosen automatically stay what they were, on whatever
    machine the run goes on.
    """
    newest = saved_steps(run / "checkpoints")[-1] / "checkpoint.json"
    about = json.loads(newest.read_text())
    assert about["computing"]["precision"] == "float32"
    about["config"]["train"]["precision"] = "auto"
    about["computing"] |= {"precision": "bfloat16", "hardware": "another processor"}
    newest.write_text(json.dumps(about))
    automatic = Config.of(
        config(3).model_dump() | {"train": config(3).train.model_dump() | {"precision": "auto"}},
        "the test",
    )
    train(one_held_out, automatic, run)
    assert open_checkpoint(run).computation["precision"] == "bfloat16"
    assert "hardware was another processor and is " in caplog.text
    caplog.clear()
    train(one_held_out, config(4), run)
    assert open_checkpoint(run).computation["precision"] == "float32"
    assert "precision was bfloat16 and is float32" in caplog.text
