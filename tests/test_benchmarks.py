"""Each public set is read as its owner lays it out, and one that is missing or not whole says so in
a sentence.
"""

import csv
import wave
from pathlib import Path

import numpy as np
import pytest

from looklisten.errors import SourceError
from looklisten.evaluation.sets.folds import hashed_folds
from looklisten.evaluation.sets.labeled_set import LabeledFile
from looklisten.evaluation.sets.registry import LABELED_SETS, open_labeled_set
from looklisten.media.decode.decode import decode_audio


def write_wave(path: Path, samples: np.ndarray, rate_hz: int = 48_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)


def esc_rows(classes: int, folds: int = 5) -> list[dict[str, object]]:
    """Lines of the owner's meta/esc50.csv; every other class is of ESC-10."""
    return [
        {
            "filename": f"{fold}-{100 + kind}-A-{kind}.wav",
            "fold": fold,
            "target": kind,
            "category": f"class_{kind}",
            "esc10": str(kind % 2 == 0),
            "src_file": 100 + kind,
            "take": "A",
        }
        for fold in range(1, folds + 1)
        for kind in range(classes)
    ]


def make_esc(root: Path, classes: int = 4) -> None:
    rows = esc_rows(classes)
    write_table(root / "meta" / "esc50.csv", rows)
    touch(root, *(f"audio/{row['filename']}" for row in rows))


def facts(benchmark):
    return [
        (path, str(label), str(fold))
        for path, label, fold in zip(
            benchmark.paths, benchmark.labels, benchmark.folds, strict=True
        )
    ]


def test_esc50_and_its_tenth_part_in_the_repositorys_layout(tmp_path):
    make_esc(tmp_path)
    fifty = open_labeled_set("esc50", tmp_path, partial=True)
    assert (len(fifty), fifty.classes, fifty.tested) == (
        20,
        ("class_0", "class_1", "class_2", "class_3"),
        ("1", "2", "3", "4", "5"),
    )
    assert facts(fifty)[5] == ("audio/2-101-A-1.wav", "class_1", "2")
    assert (fifty.labeled_set.windows, fifty.labeled_set.clip_seconds) == (10, 5.0)
    assert open_labeled_set("esc10", tmp_path, partial=True).classes == ("class_0", "class_2")


@pytest.mark.parametrize("folder", ["001 - Dog bark", "dog_bark"])
def test_esc10_in_folders_by_class(tmp_path, folder):
    touch(
        tmp_path,
        f"{folder}/1-100032-A.ogg",
        f"{folder}/2-110389-B.ogg",
        "rain/1-17367-A.ogg",
        "rain/5-17367-A2.ogg",
        "rain/notes.ogg",
    )
    found = open_labeled_set("esc10", tmp_path, partial=True)
    assert facts(found) == [
        (f"{folder}/1-100032-A.ogg", folder.removeprefix("001 - "), "1"),
        (f"{folder}/2-110389-B.ogg", folder.removeprefix("001 - "), "2"),
        ("rain/1-17367-A.ogg", "rain", "1"),
        ("rain/5-17367-A2.ogg", "rain", "5"),
    ]


def test_dcase2013_is_fitted_on_the_public_part_and_measured_on_the_other(tmp_path):
    for folder in ("scenes_stereo", "scenes_stereo_testset/scenes_stereo_testset"):
        touch(
            tmp_path,
            *(
                f"{folder}/{scene}{number:02d}.wav"
                for scene in ("bus", "busystreet", "tubestation")
                for number in (1, 2)
            ),
        )
    found = open_labeled_set("dcase2013", tmp_path, partial=True)
    assert found.classes == ("bus", "busystreet", "tubestation")
    assert (found.tested, found.labeled_set.windows) == (("2",), 60)
    assert facts(found)[0] == ("scenes_stereo/bus01.wav", "bus", "1")
    assert sum(found.folds == "2") == 6


def test_urbansound8k(tmp_path):
    rows = [
        {
            "slice_file_name": f"{fold}-{kind}-0-0.wav",
            "fsID": fold,
            "start": 0.0,
            "end": 4.0,
            "salience": 1,
            "fold": fold,
        }
        | {"classID": kind, "class": ("siren", "drilling")[kind]}
        for fold in range(1, 11)
        for kind in (0, 1)
    ]
    write_table(tmp_path / "metadata" / "UrbanSound8K.csv", rows)
    touch(tmp_path, *(f"audio/fold{row['fold']}/{row['slice_file_name']}" for row in rows))
    found = open_labeled_set("urbansound8k", tmp_path, partial=True)
    assert facts(found)[-1] == ("audio/fold10/10-1-0-0.wav", "drilling", "10")
    assert len(found.tested) == 10


def test_imagenet_by_synset(tmp_path):
    touch(
        tmp_path,
        *(
            f"{split}/{synset}/{synset}_{i}.JPEG"
            for split in ("train", "val")
            for synset in ("n01440764", "n01443537")
            for i in (1, 2)
        ),
    )
    found = open_labeled_set("imagenet", tmp_path, partial=True)
    assert (found.side, found.tested, found.classes) == (
        "vision",
        ("val",),
        ("n01440764", "n01443537"),
    )


def test_folders_tables_and_splits_of_ones_own(tmp_path):
    touch(
        tmp_path / "split",
        *(
            f"{split}/{kind}/{i}.jpg"
            for split in ("train", "valid", "test")
            for kind in ("a", "b")
            for i in range(3)
        ),
    )
    split = open_labeled_set("images", tmp_path / "split")
    assert (set(split.folds), split.tested) == ({"train", "val", "test"}, ("test",))
    touch(tmp_path / "plain", *(f"{kind}/deep/{i}.flac" for kind in ("a", "b") for i in range(7)))
    plain = open_labeled_set("sounds", tmp_path / "plain")
    assert plain.tested == ("1", "2", "3", "4", "5")
    assert all(
        1 <= np.sum((plain.folds == fold) & (plain.labels == kind)) <= 2
        for fold in plain.tested
        for kind in "ab"
    )
    write_table(
        tmp_path / "plain" / "mine.csv",
        [{"path": path, "class": path[0], "fold": i % 3} for i, path in enumerate(plain.paths)],
    )
    table = open_labeled_set("sounds", tmp_path / "plain" / "mine.csv")
    assert (table.tested, table.classes, table.paths) == (("0", "1", "2"), ("a", "b"), plain.paths)


def test_dealt_folds_depend_on_names_alone():
    items = [LabeledFile(f"{kind}/{i}.wav", kind, "") for kind in "ab" for i in range(20)]
    there = dict(zip(items, hashed_folds(items), strict=True))
    back = dict(zip(items[::-1], hashed_folds(items[::-1]), strict=True))
    assert there == back
    assert sorted(set(there.values())) == ["1", "2", "3", "4", "5"]


def test_a_set_that_is_not_there_says_what_was_expected_where(tmp_path):
    for name in LABELED_SETS:
        with pytest.raises(
            SourceError, match=r"is expected at .*nowhere as .*; this path does not exist"
        ):
            open_labeled_set(name, tmp_path / "nowhere")
        with pytest.raises(SourceError, match="there is no such file"):
            open_labeled_set(name, tmp_path)


def test_a_set_that_is_not_whole_says_what_lacks(tmp_path):
    make_esc(tmp_path)
    with pytest.raises(
        SourceError,
        match=r"there are 20 files of 2,000 and 4 classes of 50; download the missing files, or .* --partial",
    ):
        open_labeled_set("esc50", tmp_path)
    (tmp_path / "audio" / "3-102-A-2.wav").unlink()
    with pytest.raises(
        SourceError,
        match=r"esc50.csv lists 20 files, but 1 of them do not exist, such as .*3-102-A-2.wav",
    ):
        open_labeled_set("esc50", tmp_path, partial=True)
    touch(tmp_path / "dcase", "scenes_stereo/bus01.wav", "scenes_stereo/park01.wav")
    with pytest.raises(SourceError, match="none of fold 2"):
        open_labeled_set("dcase2013", tmp_path / "dcase")
    with pytest.raises(SourceError, match="2 classes in 1 folds"):
        open_labeled_set("dcase2013", tmp_path / "dcase", partial=True)


def test_a_table_without_its_columns_says_which(tmp_path):
    write_table(tmp_path / "labels.csv", [{"path": "a.wav", "kind": "a"}])
    with pytest.raises(
        SourceError, match=r"labels.csv lacks the column label or class; it has path, kind"
    ):
        open_labeled_set("sounds", tmp_path)
    write_table(
        tmp_path / "labels.csv",
        [{"path": "a.wav", "label": "a", "fold": 1}, {"path": "b.wav", "label": "b", "fold": ""}],
    )
    with pytest.raises(SourceError, match="some rows have a fold and others have none"):
        open_labeled_set("sounds", tmp_path)


def test_the_key_of_a_set_is_that_of_its_names_and_sizes(tmp_path):
    make_esc(tmp_path)
    before = open_labeled_set("esc50", tmp_path, partial=True).fingerprint()
    assert open_labeled_set("esc50", tmp_path, partial=True).fingerprint() == before
    (tmp_path / "audio" / "1-100-A-0.wav").write_bytes(b"x")
    assert open_labeled_set("esc50", tmp_path, partial=True).fingerprint() != before


def test_a_sound_alone_is_read_whole_at_48_khz(tmp_path):
    t = np.arange(44_100) / 44_100
    write_wave(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * t), 44_100)
    samples = decode_audio(tmp_path / "a.wav")
    assert len(samples) == 48_000
    middle = np.arange(1000, 47_000)
    assert np.allclose(samples[middle], 0.5 * np.sin(2 * np.pi * 1000 * middle / 48_000), atol=1e-3)
    (tmp_path / "b.wav").write_text("no sound")
    with pytest.raises(SourceError, match="cannot be opened as sound"):
        decode_audio(tmp_path / "b.wav")
