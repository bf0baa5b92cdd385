"""Videos of a user's own pictures and sounds: joined by class, no file on two sides of the split,
the same bytes each time.
"""

import csv

import numpy as np
import pytest
import simplejpeg
import torch

from conftest import write_wav
from looklisten.app.cli import main
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError, SourceError
from looklisten.media.synth import synth
from looklisten.media.synth.collage import Collage, moving_camera
from looklisten.media.synth.library import Item, read_items, split_items
from test_synth import digest

PITCH = {"bell": 900.0, "drum kit": 120.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Eight pictures and eight sounds of two classes; the sounds call one of them "drum"."""
    root = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for label, pitch in PITCH.items():
        for number in range(8):
            picture = np.full((60, 80, 3), 40 if label == "bell" else 200, np.uint8) + rng.integers(
                0, 30, (60, 80, 3), dtype=np.uint8
            )
            path = root / "pictures" / label / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(simplejpeg.encode_jpeg(picture))
            t = np.arange(int(16_000 * (0.4 + 0.3 * number))) / 16_000
            sound = 0.5 * np.sin(2 * np.pi * pitch * (1 + number / 50) * t)
            write_wav(
                root / "sounds" / label.replace("drum kit", "drum") / f"{number}.wav", sound, 16_000
            )
    return root


def collage(folders, **changes):
    settings = {
        "videos": 24,
        "seconds": 1.5,
        "side_pixels": 64,
        "frames_per_second": 5,
        "same": (("drum kit", "drum"),),
    }
    return Collage(str(folders / "pictures"), str(folders / "sounds"), **settings | changes)


def test_no_picture_and_no_recording_is_in_two_splits(folders, tmp_path):
    made = collage(folders, videos=200)
    sides = {"train": set(), "test": set()}
    for index in range(made.videos):
        label, split, picture, sound = made.chosen(index)
        assert picture.label == sound.label == label
        sides[split] |= {picture.path, sound.path}
    assert made.classes == ("bell", "drum_kit")
    assert sides["train"] and sides["test"]
    assert not sides["train"] & sides["test"]


def test_the_same_files_for_any_workers_and_prepare_takes_them(folders, tmp_path):
    synth(tmp_path / "a", collage(folders), workers=1)
    synth(tmp_path / "b", collage(folders), workers=2)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    prepare([tmp_path / "a" / "labels.csv"], tmp_path / "shards", workers=1)
    shards = Shards(tmp_path / "shards")
    assert {labels[0] for labels in shards.labels} == {"bell", "drum_kit"}
    # The loudest frequency and the brightness tell the class, so both halves are of the class that
    # the table names.
    for clip in (shards[number] for number in range(8)):
        spectrum = np.abs(np.fft.rfft(clip.waveform))
        loudest = spectrum.argmax() / len(clip.waveform) * 48_000
        bright = simplejpeg.decode_jpeg(clip.frames[0]).mean()
        assert (loudest > 400) == (clip.labels[0] == "bell") == (bright < 128)


def test_from_the_shell(folders, tmp_path, capsys):
    options = [
        "--videos",
        "4",
        "--seconds",
        "1",
        "--side-pixels",
        "64",
        "--pictures",
        str(folders / "pictures"),
    ]
    assert (
        main(
            [
                "synth",
                str(tmp_path / "w"),
                *options,
                "--sounds",
                str(folders / "sounds"),
                "--same",
                "drum kit=drum",
            ]
        )
        == 0
    )
    assert len(list((tmp_path / "w").glob("*.mp4"))) == 4
    assert main(["synth", str(tmp_path / "v"), *options]) == 2
    assert "--pictures and --sounds go together" in capsys.readouterr().err


def test_classes_that_do_not_meet_are_told_with_what_to_write(folders):
    with pytest.raises(
        ConfigError,
        match=r"found bell; classes of the pictures: bell, drum_kit; of the sounds: bell, drum; .*--same",
    ):
        collage(folders, same=())
    with pytest.raises(ConfigError, match=r"nowhere is not there"):
        Collage(str(folders / "nowhere"), str(folders / "sounds"))


def test_the_camera_moves_and_stays_inside_the_picture():
    picture = np.zeros((90, 120, 3), np.uint8)
    picture[:, :, 0] = np.linspace(50, 250, 120).astype(np.uint8)
    shown = list(moving_camera(np.random.default_rng(3), torch.from_numpy(picture), 48, 5))
    assert all(one.shape == (48, 48, 3) and one.dtype == np.uint8 for one in shown)
    assert not np.array_equal(shown[0], shown[-1])
    assert (
        min(one[..., 0].min() for one in shown) >= 30
    )  # nothing from beyond the edge, which would be black
    assert max(one[..., 1].max() for one in shown) == 0


def test_splits_follow_names_then_groups_then_files():
    named = [
        Item(f"{k}", "a", group) for k, group in enumerate(["train", "train", "valid", "Test"])
    ]
    assert [len(split_items(named, 0.5)["a", side]) for side in ("train", "test")] == [2, 2]
    folds = [
        Item(f"{label}{fold}{k}", label, fold)
        for label in "ab"
        for fold in "12345"
        for k in range(3)
    ]
    found = split_items(folds, 0.2)
    assert {i.group for i in found["a", "test"]} == {i.group for i in found["b", "test"]}
    assert len({i.group for i in found["a", "test"]}) == 1
    alone = [Item(f"{k}", "a") for k in range(10)]
    assert len(split_items(alone, 0.3)["a", "test"]) == 3
    more = split_items([*alone, Item("x", "a")], 0.3)["a", "test"]
    assert len({i.path for i in more} ^ {i.path for i in split_items(alone, 0.3)["a", "test"]}) <= 2


def test_copies_count_once_and_tables_are_read(folders, tmp_path):
    first = sorted((folders / "pictures" / "bell").glob("*.jpg"))[0]
    (tmp_path / "bell").mkdir()
    for name in ("one.jpg", "two.jpg"):
        (tmp_path / "bell" / name).write_bytes(first.read_bytes())
    assert len(read_items(tmp_path, {".jpg"})) == 1
    table = tmp_path / "own.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "class", "fold"), ("bell/one.jpg", "bell", "2")])
    assert [(i.label, i.group) for i in read_items(table, {".jpg"})] == [("bell", "2")]
    table.write_text("path,class\nbell/gone.jpg,bell\n")
    with pytest.raises(
        ConfigError, match=r"names 1 files that are not there, the first is .*gone\.jpg"
    ):
        read_items(table, {".jpg"})
    table.write_text("file\nx\n")
    with pytest.raises(ConfigError, match="needs the columns path and label; it has file"):
        read_items(table, {".jpg"})


def test_a_file_that_is_no_sound_is_named(folders, tmp_path):
    for label in ("bell", "drum"):
        for number in range(8):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{number}.wav").write_text(f"no sound {label} {number}")
    made = Collage(str(folders / "pictures"), str(tmp_path), same=(("drum kit", "drum"),))
    with pytest.raises(SourceError, match=r"\.wav cannot be opened"):
        made.film(0)
