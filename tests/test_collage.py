"""Videos composed of a user's own images and sounds: matched by class, no file in two splits."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch

from conftest import write_wav
from looklisten.app.cli import main
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.media.synth.collage import moving_camera, read_collage
from looklisten.media.synth.labeled_files import LabeledFile, read_labeled_files, split_files
from looklisten.media.synth.options import CollageOptions
from looklisten.media.synth.synth import synth
from test_synth import digest

PITCH = {"bell": 900.0, "drum kit": 120.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Eight images and eight sounds of two classes; among the sounds one is named "drum"."""
    root = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for label, pitch in PITCH.items():
        for number in range(8):
            image = np.full((60, 80, 3), 40 if label == "bell" else 200, np.uint8) + rng.integers(
                0, 30, (60, 80, 3), dtype=np.uint8
            )
            path = root / "images" / label / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(simplejpeg.encode_jpeg(image))
            t = np.arange(int(16_000 * (0.4 + 0.3 * number))) / 16_000
            sound = 0.5 * np.sin(2 * np.pi * pitch * (1 + number / 50) * t)
            write_wav(
                root / "sounds" / label.replace("drum kit", "drum") / f"{number}.wav", sound, 16_000
            )
    return root


def options_of(folders, **changes):
    fields = {
        "images": str(folders / "images"),
        "sounds": str(folders / "sounds"),
        "videos": 24,
        "seconds": 1.5,
        "side_pixels": 64,
        "frames_per_second": 5,
        "same": (("drum kit", "drum"),),
    }
    return CollageOptions(**fields | changes)


def test_no_file_is_in_two_splits(folders):
    collage = read_collage(options_of(folders, videos=200), workers=1)
    files = {"train": set(), "test": set()}
    for index in range(200):
        made_of = collage.ingredients(index)
        assert made_of.image.label == made_of.sound.label == made_of.label
        files[made_of.split] |= {made_of.image.path, made_of.sound.path}
    assert collage.classes == ("bell", "drum_kit")
    assert files["train"] and files["test"]
    assert not files["train"] & files["test"]


def test_the_same_files_for_any_workers_and_prepare_takes_them(folders, tmp_path):
    synth(tmp_path / "a", options_of(folders), workers=1)
    synth(tmp_path / "b", options_of(folders), workers=2)
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
        "--images",
        str(folders / "images"),
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
    assert "--images and --sounds go together" in capsys.readouterr().err


def test_classes_without_a_partner_are_named(folders):
    with pytest.raises(
        ConfigError,
        match=r"found bell; .* images: bell, drum_kit; of the sounds: bell, drum; .*--same",
    ):
        read_collage(options_of(folders, same=()), workers=1)
    with pytest.raises(ConfigError, match=r"nowhere does not exist"):
        read_collage(options_of(folders, images=str(folders / "nowhere")), workers=1)


def test_the_camera_moves_and_stays_inside_the_image():
    image = np.zeros((90, 120, 3), np.uint8)
    image[:, :, 0] = np.linspace(50, 250, 120).astype(np.uint8)
    frames = list(moving_camera(np.random.default_rng(3), torch.from_numpy(image), 48, 5))
    assert all(frame.shape == (48, 48, 3) and frame.dtype == np.uint8 for frame in frames)
    assert not np.array_equal(frames[0], frames[-1])
    # Beyond the edge it would be black.
    assert min(frame[..., 0].min() for frame in frames) >= 30
    assert max(frame[..., 1].max() for frame in frames) == 0


def test_splits_follow_names_then_groups_then_files():
    named = [
        LabeledFile(f"{k}", "a", group)
        for k, group in enumerate(["train", "train", "valid", "Test"])
    ]
    assert [len(split_files(named, 0.5)["a", side]) for side in ("train", "test")] == [2, 2]
    folds = [
        LabeledFile(f"{label}{fold}{k}", label, fold)
        for label in "ab"
        for fold in "12345"
        for k in range(3)
    ]
    found = split_files(folds, 0.2)
    assert {i.group for i in found["a", "test"]} == {i.group for i in found["b", "test"]}
    assert len({i.group for i in found["a", "test"]}) == 1
    alone = [LabeledFile(f"{k}", "a") for k in range(10)]
    assert len(split_files(alone, 0.3)["a", "test"]) == 3
    more = split_files([*alone, LabeledFile("x", "a")], 0.3)["a", "test"]
    assert len({i.path for i in more} ^ {i.path for i in split_files(alone, 0.3)["a", "test"]}) <= 2


def test_copies_count_once_and_tables_are_read(folders, tmp_path):
    first = sorted((folders / "images" / "bell").glob("*.jpg"))[0]
    (tmp_path / "bell").mkdir()
    for name in ("one.jpg", "two.jpg"):
        (tmp_path / "bell" / name).write_bytes(first.read_bytes())
    assert len(read_labeled_files(tmp_path, {".jpg"})[0]) == 1
    table = tmp_path / "own.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "class", "fold"), ("bell/one.jpg", "bell", "2")])
    assert [(i.label, i.group) for i in read_labeled_files(table, {".jpg"})[0]] == [("bell", "2")]
    table.write_text("path,class\nbell/gone.jpg,bell\n")
    with pytest.raises(
        ConfigError, match=r"none of the 1 files .* the first: .*gone\.jpg: there is no such file"
    ):
        read_labeled_files(table, {".jpg"})
    table.write_text("file\nx\n")
    with pytest.raises(ConfigError, match="needs the columns path and label; it has file"):
        read_labeled_files(table, {".jpg"})
    table.write_text("path,class,tags\nbell/one.jpg,bell,[a]\nbell/gone.jpg,bell,\n")
    files, failures = read_labeled_files(table, {".jpg"})
    assert [file.label for file in files] == ["bell"]
    assert [line["reason"] for line in failures] == ["there is no such file"]


def test_a_folder_is_named_from_another_one_and_in_any_bytes(folders, tmp_path, monkeypatch):
    for kind in ("images", "sounds"):
        shutil.copytree(folders / kind, tmp_path / kind)
        for label in list((tmp_path / kind).iterdir()):
            label.rename(label.with_name(label.name + os.fsdecode(b"\xe9")))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    same = (("drum kit\\xe9", "drum\\xe9"),)
    options = options_of(folders, images="../images", sounds="../sounds", same=same, videos=2)
    synth(tmp_path / "out", options)
    assert "bell\\xe9" in (tmp_path / "out" / "labels.csv").read_text("utf-8")


def test_files_that_cannot_be_decoded_are_named_and_left_out(folders, tmp_path, capsys):
    """One bad file never stops the work; the exit code says that some failed."""
    own = tmp_path / "own"
    shutil.copytree(folders, own)
    (own / "images" / "bell" / "bad.jpg").write_text("no image")
    (own / "sounds" / "drum" / "bad.wav").write_text("no sound")
    arguments = ["synth", str(tmp_path / "out"), "--videos", "4", "--seconds", "1"]
    arguments += ["--side-pixels", "64", "--same", "drum kit=drum"]
    arguments += ["--images", str(own / "images"), "--sounds", str(own / "sounds")]
    assert main([*arguments, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["failed"] == 2
    lines = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    names = {Path(json.loads(line)["source"]).name for line in lines}
    assert names == {"bad.jpg", "bad.wav"}
    table = (tmp_path / "out" / "labels.csv").read_text()
    assert "bad." not in table
    (own / "images" / "bell" / "bad.jpg").unlink()
    (own / "sounds" / "drum" / "bad.wav").unlink()
    assert main([*arguments, "--json"]) == 0
    assert not (tmp_path / "out" / "failures.jsonl").exists()


def test_a_class_without_a_file_that_can_be_decoded_is_refused(folders, tmp_path):
    for label in ("bell", "drum"):
        for number in range(8):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{number}.wav").write_text(f"no sound {label} {number}")
    with pytest.raises(ConfigError, match=r"16 files cannot be read, the first: .*\.wav"):
        read_collage(options_of(folders, sounds=str(tmp_path)), workers=1)
