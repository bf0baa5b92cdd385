"""Each labeled set is read in the layout of its owner; an error says which files are missing."""

import os

import numpy as np
import pytest

from conftest import write_wav
from labeled_set_files import esc_rows, make_empty_files, urbansound8k_rows, write_table
from looklisten.errors import ConfigError, SourceError
from looklisten.evaluation.linear_probe.options import ProbeOptions
from looklisten.evaluation.linear_probe.public_sets import probe_labeled_set
from looklisten.evaluation.sets.folds import hashed_folds
from looklisten.evaluation.sets.labeled_set import LabeledItem, LabeledSet, PublishedFigure
from looklisten.evaluation.sets.registry import (
    LABELED_SETS,
    open_labeled_set,
    register_labeled_set,
)
from looklisten.media.decode.decode import decode_audio
from looklisten.media.formats import AUDIO_SUFFIXES
from looklisten.system.folders import files_with_suffix


def make_esc(root, classes=4):
    rows = esc_rows(classes)
    write_table(root / "meta" / "esc50.csv", rows)
    make_empty_files(root, *(f"audio/{row['filename']}" for row in rows))


def path_label_fold(files):
    columns = (files.paths, files.labels.tolist(), files.folds.tolist())
    return list(zip(*columns, strict=True))


def test_esc50_and_esc10_in_the_layout_of_the_repository(tmp_path):
    make_esc(tmp_path)
    esc50 = open_labeled_set("esc50", tmp_path, partial=True)
    assert len(esc50) == 20
    assert esc50.classes == ("class_0", "class_1", "class_2", "class_3")
    assert esc50.tested == ("1", "2", "3", "4", "5")
    assert path_label_fold(esc50)[5] == ("audio/2-101-A-1.wav", "class_1", "2")
    assert (esc50.labeled_set.windows, esc50.labeled_set.clip_seconds) == (10, 5.0)
    esc10 = open_labeled_set("esc10", tmp_path, partial=True)
    assert esc10.classes == ("class_0", "class_2")


@pytest.mark.parametrize("folder", ["001 - Dog bark", "dog_bark"])
def test_esc10_in_class_folders(tmp_path, folder):
    make_empty_files(
        tmp_path,
        f"{folder}/1-100032-A.ogg",
        f"{folder}/2-110389-B.ogg",
        "rain/1-17367-A.ogg",
        "rain/5-17367-A2.ogg",
        "rain/notes.ogg",
    )
    files = open_labeled_set("esc10", tmp_path, partial=True)
    label = folder.removeprefix("001 - ")
    assert path_label_fold(files) == [
        (f"{folder}/1-100032-A.ogg", label, "1"),
        (f"{folder}/2-110389-B.ogg", label, "2"),
        ("rain/1-17367-A.ogg", "rain", "1"),
        ("rain/5-17367-A2.ogg", "rain", "5"),
    ]


def test_dcase2013_tests_the_second_folder_only(tmp_path):
    for folder in ("scenes_stereo", "scenes_stereo_testset/scenes_stereo_testset"):
        for scene in ("bus", "busystreet", "tubestation"):
            names = [f"{folder}/{scene}{number:02d}.wav" for number in (1, 2)]
            make_empty_files(tmp_path, *names)
    files = open_labeled_set("dcase2013", tmp_path, partial=True)
    assert files.classes == ("bus", "busystreet", "tubestation")
    assert (files.tested, files.labeled_set.windows) == (("2",), 60)
    assert path_label_fold(files)[0] == ("scenes_stereo/bus01.wav", "bus", "1")
    assert sum(files.folds == "2") == 6


def test_urbansound8k(tmp_path):
    rows = urbansound8k_rows(["siren", "drilling"])
    write_table(tmp_path / "metadata" / "UrbanSound8K.csv", rows)
    names = [f"audio/fold{row['fold']}/{row['slice_file_name']}" for row in rows]
    make_empty_files(tmp_path, *names)
    files = open_labeled_set("urbansound8k", tmp_path, partial=True)
    assert path_label_fold(files)[-1] == ("audio/fold10/10-1-0-0.wav", "drilling", "10")
    assert len(files.tested) == 10


def test_imagenet_by_synset(tmp_path):
    synsets = ("n01440764", "n01443537")
    for split in ("train", "val"):
        for synset in synsets:
            names = [f"{split}/{synset}/{synset}_{number}.JPEG" for number in (1, 2)]
            make_empty_files(tmp_path, *names)
    files = open_labeled_set("imagenet", tmp_path, partial=True)
    assert (files.side, files.tested, files.classes) == ("vision", ("val",), synsets)


def test_own_images_in_folders_of_splits(tmp_path):
    for split in ("train", "valid", "test"):
        for label in "ab":
            make_empty_files(tmp_path, *(f"{split}/{label}/{number}.jpg" for number in range(3)))
    files = open_labeled_set("images", tmp_path)
    assert set(files.folds) == {"train", "val", "test"}
    assert files.tested == ("test",)


def test_own_sounds_in_class_folders_get_five_folds_of_equal_size(tmp_path):
    for label in "ab":
        make_empty_files(tmp_path, *(f"{label}/deep/{number}.flac" for number in range(7)))
    files = open_labeled_set("sounds", tmp_path)
    assert files.tested == ("1", "2", "3", "4", "5")
    for fold in files.tested:
        for label in "ab":
            assert 1 <= np.sum((files.folds == fold) & (files.labels == label)) <= 2


def test_a_folder_of_own_sounds_is_searched_as_any_other(tmp_path, caplog):
    not_utf8 = os.fsdecode(b"caf\xe9")
    for label in (not_utf8, "b"):
        make_empty_files(tmp_path / "set", *(f"{label}/{number}.wav" for number in range(5)))
    make_empty_files(tmp_path / "elsewhere", *(f"{number}.wav" for number in range(5)))
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "b" / "circle").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "b" / "broken.wav").symlink_to(tmp_path / "nowhere.wav")
    make_empty_files(tmp_path / "set", "b/.trash/x.wav", "b/._1.wav", "b/film.mov")
    with caplog.at_level("INFO", logger="looklisten"):
        files = open_labeled_set("sounds", tmp_path / "set")
    assert files.classes == ("b", "caf\\xe9", "linked")
    assert [np.sum(files.labels == label) for label in files.classes] == [5, 5, 5]
    assert len(set(files.fingerprint())) > 1
    assert "(.mov 1)" in caplog.text
    assert "broken.wav is left out" in caplog.text


def test_own_sounds_by_a_table(tmp_path):
    names = [f"{label}/{number}.flac" for label in "ab" for number in range(3)]
    make_empty_files(tmp_path, *names)
    rows = [
        {"path": name, "class": name[0], "fold": number % 3} for number, name in enumerate(names)
    ]
    write_table(tmp_path / "mine.csv", rows)
    files = open_labeled_set("sounds", tmp_path / "mine.csv")
    assert (files.tested, files.classes, files.paths) == (("0", "1", "2"), ("a", "b"), (*names,))


def test_hashed_folds_depend_on_names_only():
    files = [LabeledItem(f"{label}/{i}.wav", label, "") for label in "ab" for i in range(20)]
    folds = dict(zip(files, hashed_folds(files), strict=True))
    reversed_folds = dict(zip(files[::-1], hashed_folds(files[::-1]), strict=True))
    assert folds == reversed_folds
    assert sorted(set(folds.values())) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("name", LABELED_SETS)
def test_a_missing_set_is_an_error_with_the_expected_layout(tmp_path, name):
    expected = LABELED_SETS[name].expected
    with pytest.raises(SourceError) as error:
        open_labeled_set(name, tmp_path / "nowhere")
    assert f"is expected at {tmp_path / 'nowhere'} as {expected}; this path" in str(error.value)
    with pytest.raises(SourceError, match="there is no such file"):
        open_labeled_set(name, tmp_path)


def test_an_unknown_set_is_an_error():
    with pytest.raises(ConfigError, match="there is no labeled set 'esc5'; choose esc50, esc10"):
        open_labeled_set("esc5", "somewhere")


def test_an_incomplete_set_is_an_error_with_what_is_missing(tmp_path):
    make_esc(tmp_path)
    files_and_classes = (
        r"there are 20 files of 2,000 and 4 classes of 50; "
        r"download the missing files, or .* --partial"
    )
    with pytest.raises(SourceError, match=files_and_classes):
        open_labeled_set("esc50", tmp_path)
    (tmp_path / "audio" / "3-102-A-2.wav").unlink()
    missing = r"esc50.csv lists 20 files, but 1 of them do not exist, such as .*3-102-A-2.wav"
    with pytest.raises(SourceError, match=missing):
        open_labeled_set("esc50", tmp_path, partial=True)
    dcase = tmp_path / "dcase"
    make_empty_files(dcase, "scenes_stereo/bus01.wav", "scenes_stereo/park01.wav")
    with pytest.raises(SourceError, match="none of fold 2"):
        open_labeled_set("dcase2013", dcase)
    with pytest.raises(SourceError, match="2 classes in 1 folds"):
        open_labeled_set("dcase2013", dcase, partial=True)


def test_a_table_without_a_column_is_an_error_with_its_name(tmp_path):
    write_table(tmp_path / "labels.csv", [{"path": "a.wav", "kind": "a"}])
    lacks_label = r"labels.csv lacks the column label or class; it has path, kind"
    with pytest.raises(SourceError, match=lacks_label):
        open_labeled_set("sounds", tmp_path)
    rows = [{"path": "a.wav", "label": "a", "fold": 1}, {"path": "b.wav", "label": "b", "fold": ""}]
    write_table(tmp_path / "labels.csv", rows)
    with pytest.raises(SourceError, match="some rows have a fold and others have none"):
        open_labeled_set("sounds", tmp_path)


def test_the_fingerprint_depends_on_names_and_sizes(tmp_path):
    make_esc(tmp_path)
    before = open_labeled_set("esc50", tmp_path, partial=True).fingerprint()
    assert open_labeled_set("esc50", tmp_path, partial=True).fingerprint() == before
    (tmp_path / "audio" / "1-100-A-0.wav").write_bytes(b"x")
    assert open_labeled_set("esc50", tmp_path, partial=True).fingerprint() != before


def test_a_sound_file_is_read_completely_at_48_khz(tmp_path):
    seconds = np.arange(44_100) / 44_100
    write_wav(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * seconds), 44_100)
    samples = decode_audio(tmp_path / "a.wav")
    assert len(samples) == 48_000
    middle = np.arange(1000, 47_000)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * middle / 48_000)
    assert np.allclose(samples[middle], expected, atol=1e-3)
    (tmp_path / "b.wav").write_text("no sound")
    with pytest.raises(SourceError, match="cannot be opened as sound"):
        decode_audio(tmp_path / "b.wav")


def read_pitches(root):
    """The labeled files of a toy set: `PITCH-FOLD.wav`."""
    files = []
    for file in files_with_suffix(root, AUDIO_SUFFIXES):
        pitch, fold = file.stem.split("-")
        files.append(LabeledItem(file.name, pitch, fold))
    return files


PITCHES = LabeledSet(
    name="pitches",
    title="Pitches",
    side="audio",
    read=read_pitches,
    expected="PITCH-FOLD.wav",
    n_files=12,
    n_classes=2,
    folds=("1", "2", "3"),
    windows=2,
    published=(PublishedFigure("people", 0.9, "a test"),),
)


@pytest.fixture
def registered_pitches():
    register_labeled_set(PITCHES)
    yield
    del LABELED_SETS["pitches"]


@pytest.mark.usefixtures("registered_pitches")
def test_a_set_from_outside_the_package_is_registered_by_one_call_and_probed(tmp_path):
    rng = np.random.default_rng(0)
    seconds = np.arange(48_000) / 48_000
    for name, frequency in (("low", 200), ("high", 4000)):
        for fold in ("1", "2", "3", "3b"):
            tone = np.sin(2 * np.pi * frequency * seconds) + 0.1 * rng.standard_normal(48_000)
            write_wav(tmp_path / f"{name}-{fold}.wav", 0.5 * tone, 48_000)
    with pytest.raises(SourceError, match="there are 8 files of 12 and 2 classes of 2"):
        probe_labeled_set("pitches", tmp_path, "untrained:tiny")
    options = ProbeOptions("spectrogram", partial=True, layer="pool4", untrained_seeds=1)
    table = probe_labeled_set("pitches", tmp_path, "untrained:tiny", options)
    assert (table.dataset, table.items, table.tested_folds) == ("Pitches", 8, ("1", "2", "3", "3b"))
    assert [row.name for row in table.rows] == ["untrained", "spectrogram"]
    assert table.rows[1].accuracy == 1
    assert table.published == PITCHES.published
    with pytest.raises(ConfigError, match="there already is a labeled set 'pitches'"):
        register_labeled_set(PITCHES)
