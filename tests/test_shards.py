"""Shards: what is written is read, damage is an error, splits are by video, selections of clips."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from conftest import small_config
from looklisten.data.clip_columns import (
    FrameTimes,
    columns_of_shards,
    open_columns,
    write_columns,
)
from looklisten.data.clips import Box, Clip
from looklisten.data.shard_files import CLIPS_PER_RECORD_BATCH, FORMAT_VERSION, write_shards
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError, ShardError


def a_clip(number, split="", samples=48_000, sample_rate_hz=48_000):
    rng = np.random.default_rng(number)
    return Clip(
        key=f"v{number}@0.000",
        video_id=f"v{number}",
        source=f"v{number}.mp4",
        start_seconds=number / 2,
        frame_seconds=(0.0, 0.2, 0.7),
        frames=tuple(rng.bytes(20 + number) for _ in range(3)),
        waveform=rng.integers(-(2**15), 2**15, samples).astype(np.int16),
        sample_rate_hz=sample_rate_hz,
        labels=("bell",) if number % 2 else (),
        split=split,
        boxes=(Box(0.2, 0.0, 0.25, 0.5, 0.75, "bell", True),),
        marks=("damaged",),
    )


def write_set(folder, clips, limit_bytes=10**9):
    folder.mkdir(exist_ok=True)
    entries = write_shards(clips, folder, "clips-000000", limit_bytes)
    index = {"format": FORMAT_VERSION, "shards": entries}
    (folder / "index.json").write_text(json.dumps(index))
    return entries


def test_clips_are_read_as_they_were_written(tmp_path):
    clips = [a_clip(i) for i in range(2 * CLIPS_PER_RECORD_BATCH + 3)]
    write_set(tmp_path, clips)
    shards = Shards(tmp_path)
    assert len(shards) == len(clips)
    for number in (0, 7, 8, 17, 18, 3):
        got, want = shards[number], clips[number]
        assert np.array_equal(got.waveform, want.waveform)
        for name in (
            "key",
            "video_id",
            "source",
            "start_seconds",
            "frame_seconds",
            "frames",
            "labels",
            "split",
            "boxes",
            "marks",
        ):
            assert getattr(got, name) == getattr(want, name), name
        assert bytes(shards.jpeg(number, 1)) == want.frames[1]
        assert list(shards.frame_seconds(number)) == list(want.frame_seconds)
        assert got.sample_rate_hz == 48_000


def test_iteration_ends(tmp_path):
    write_set(tmp_path, [a_clip(i) for i in range(3)])
    assert [clip.video_id for clip in Shards(tmp_path)] == ["v0", "v1", "v2"]


def test_shards_are_bounded_by_bytes_and_reproducible(tmp_path):
    clips = [a_clip(i) for i in range(40)]
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first = write_set(tmp_path / "a", clips, limit_bytes=2_000_000)
    assert len(first) == 3
    assert all(entry["bytes"] < 2_100_000 for entry in first)
    assert first == write_set(tmp_path / "b", clips, limit_bytes=2_000_000)
    assert [c.key for c in Shards(tmp_path / "a")] == [c.key for c in clips]


def test_other_readers_can_read_them(tmp_path):
    entries = write_set(tmp_path, [a_clip(i) for i in range(3)])
    table = pa.ipc.open_file(tmp_path / entries[0]["name"]).read_all()
    assert table["video_id"].to_pylist() == ["v0", "v1", "v2"]
    assert table.schema.metadata[b"looklisten.format"] == b"1"


def test_a_shard_cut_in_half_is_an_error(tmp_path):
    (entry,) = write_set(tmp_path, [a_clip(i) for i in range(3)])
    file = tmp_path / entry["name"]
    file.write_bytes(file.read_bytes()[: entry["bytes"] // 2])
    with pytest.raises(
        ShardError,
        match=rf"has {entry['bytes'] // 2} bytes where the index says {entry['bytes']}; "
        "run the same .*prepare",
    ):
        Shards(tmp_path)


def test_a_missing_shard_index_or_folder_is_an_error(tmp_path):
    with pytest.raises(ShardError, match="is not there; make one with `looklisten prepare"):
        Shards(tmp_path / "nowhere")
    with pytest.raises(ShardError, match=r"has no index.json"):
        Shards(tmp_path)
    (entry,) = write_set(tmp_path, [a_clip(0)])
    (tmp_path / entry["name"]).unlink()
    with pytest.raises(ShardError, match="is missing"):
        Shards(tmp_path)
    (tmp_path / "index.json").write_text('{"format": 99}')
    with pytest.raises(ShardError, match="has format 99, this version reads 1"):
        Shards(tmp_path)
    (tmp_path / "index.json").write_text('{"format": ')
    with pytest.raises(ShardError, match="is damaged"):
        Shards(tmp_path)


def test_named_splits_decide(tmp_path):
    write_set(tmp_path, [a_clip(i, split=("train", "test", "val")[i % 3]) for i in range(6)])
    assert Shards(tmp_path).held_out_mask(0.1).tolist() == [False, True, True] * 2


def test_without_named_splits_new_videos_move_no_others(tmp_path):
    (tmp_path / "few").mkdir(), (tmp_path / "many").mkdir()
    write_set(tmp_path / "few", [a_clip(i, samples=10) for i in range(60)])
    write_set(tmp_path / "many", [a_clip(i, samples=10) for i in range(200)])
    few, many = (
        Shards(tmp_path / "few").held_out_mask(0.1),
        Shards(tmp_path / "many").held_out_mask(0.1),
    )
    assert np.array_equal(few, many[:60])
    assert 10 <= many.sum() <= 30


def test_the_hash_of_its_id_decides_whether_a_video_is_held_out(tmp_path):
    """Another formula would train on videos that earlier runs held out."""
    write_set(tmp_path, [a_clip(i // 2, samples=10) for i in range(200)])
    shards = Shards(tmp_path)

    def share(text):
        return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12

    held_out = [share(video) < 0.2 for video in shards.video_ids.tolist()]
    assert 20 < sum(held_out) < 80
    assert shards.held_out_mask(0.2).tolist() == held_out
    validation = [
        not out and share(f"validation {video}") < 0.3
        for out, video in zip(held_out, shards.video_ids.tolist(), strict=True)
    ]
    assert shards.validation_mask(0.3, 0.2).tolist() == validation


def test_videos_are_sorted_and_numbered(tmp_path):
    ids = ["b", "é", "a", "b", "𝄞", "z", "a"]
    write_set(tmp_path, [replace(a_clip(i, samples=10), video_id=v) for i, v in enumerate(ids)])
    shards = Shards(tmp_path)
    assert shards.videos().tolist() == sorted(set(ids))
    assert [shards.videos()[number] for number in shards.video_numbers] == ids
    mask = np.array([video != "a" for video in ids])
    assert shards.videos(mask).tolist() == shards.select(mask).videos().tolist()
    assert shards.select(mask).videos().tolist() == ["b", "z", "é", "𝄞"]


def test_at_least_two_videos_are_held_out(tmp_path):
    write_set(tmp_path, [a_clip(i, samples=10) for i in range(4)])
    assert Shards(tmp_path).held_out_mask(0.001).sum() == 2


def test_usual_words_for_splits_decide_too(tmp_path):
    names = ("Training", "validation", "TEST", "tr", "fold1", "")
    write_set(tmp_path, [a_clip(i, split=name) for i, name in enumerate(names)])
    shards = Shards(tmp_path)
    assert shards.splits.tolist() == ["train", "val", "test", "train", "fold1", ""]
    assert shards.held_out_mask(0.1).tolist() == [False, True, True, False, True, True]
    assert shards.splits_sentence() == (
        "the splits are train (2), fold1 (1), test (1), val (1), no name (1), counted in videos; "
        "only `train` is trained on"
    )


def test_without_splits_there_is_no_sentence_on_them(tmp_path):
    write_set(tmp_path, [a_clip(0)])
    assert Shards(tmp_path).splits_sentence() == ""


def test_a_folder_that_is_not_utf_8_holds_shards(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    write_set(folder, [a_clip(0)])
    for read_ahead in (True, False):
        assert Shards(folder, read_ahead=read_ahead)[0].video_id == "v0"


def test_a_selection_is_a_set_of_its_own(tmp_path):
    clips = [a_clip(i, split="train" if i % 3 else "test") for i in range(20)]
    write_set(tmp_path, clips)
    shards = Shards(tmp_path)
    mask = np.arange(20) % 2 == 1
    selection = shards.select(mask)
    wanted = [clip for clip, selected in zip(clips, mask, strict=True) if selected]
    assert len(selection) == len(list(selection)) == 10
    assert [clip.key for clip in selection] == [clip.key for clip in wanted]
    assert selection.video_ids.tolist() == [clip.video_id for clip in wanted]
    assert selection.labels == [clip.labels for clip in wanted]
    assert selection.names.tolist() == ["bell"] * 10
    assert selection.splits.tolist() == [clip.split for clip in wanted]
    assert selection.columns("key")["key"].to_pylist() == [clip.key for clip in wanted]
    assert bytes(selection.jpeg(9, 2)) == wanted[9].frames[2]
    assert np.array_equal(selection.waveform(3), wanted[3].waveform)
    assert selection.folder_numbers.tolist() == list(range(1, 20, 2))
    assert selection.complement().folder_numbers.tolist() == list(range(0, 20, 2))
    assert selection.complement().complement().video_ids.tolist() == selection.video_ids.tolist()
    with pytest.raises(IndexError, match="clip 10 of 10"):
        selection[10]
    assert (shards.is_selection, selection.is_selection) == (False, True)
    assert selection.folder is shards


def test_a_selection_of_a_selection_counts_clips_of_the_folder(tmp_path):
    write_set(tmp_path, [a_clip(i) for i in range(12)])
    odd = Shards(tmp_path).select(np.arange(12) % 2 == 1)
    last_two = odd.select(np.arange(6) >= 4)
    assert last_two.folder_numbers.tolist() == [9, 11]
    assert last_two.video_ids.tolist() == ["v9", "v11"]


@pytest.mark.parametrize("split", ["", "train"])
def test_the_split_of_a_selection_is_that_of_its_folder(tmp_path, split):
    clips = [a_clip(i, split="test" if split and i % 5 == 0 else split) for i in range(60)]
    write_set(tmp_path, clips)
    shards = Shards(tmp_path)
    few = shards.select(np.arange(60) < 7)
    for mask_of in (
        lambda clips: clips.held_out_mask(0.1),
        lambda clips: clips.validation_mask(0.2, 0.1),
    ):
        assert mask_of(few).tolist() == mask_of(shards)[:7].tolist()


def test_held_out_and_validation_clips_are_those_of_a_run(tmp_path):
    write_set(tmp_path, [a_clip(i, samples=10) for i in range(60)])
    shards = Shards(tmp_path)
    run = SimpleNamespace(config=small_config(held_out_fraction=0.3, validation_fraction=0.2))
    held_out = shards.held_out(run)
    validation = shards.validation(run)
    assert held_out.folder_numbers.tolist() == np.flatnonzero(shards.held_out_mask(0.3)).tolist()
    assert validation.folder_numbers.tolist() == (
        np.flatnonzero(shards.validation_mask(0.2, 0.3)).tolist()
    )
    assert not set(held_out.video_ids) & set(validation.video_ids)


def test_sound_of_another_sample_rate_is_an_error(tmp_path):
    """A network would take it for sound of another pitch."""
    write_set(tmp_path, [a_clip(0), a_clip(1, sample_rate_hz=44_100), a_clip(2)])
    with pytest.raises(
        ShardError,
        match="holds sound at 44100 Hz, and the networks take 48000 Hz; prepare the videos again",
    ):
        Shards(tmp_path)


def test_a_split_is_named_all_held_out_or_by_its_own_name(tmp_path):
    write_set(tmp_path, [a_clip(i, split=("train", "Test", "extra")[i % 3]) for i in range(9)])
    shards = Shards(tmp_path)
    assert len(shards.split("all", 0.1)) == 9
    assert shards.split("held-out", 0.1).folder_numbers.tolist() == [1, 2, 4, 5, 7, 8]
    assert shards.split("testing", 0.1).folder_numbers.tolist() == [1, 4, 7]
    with pytest.raises(
        ConfigError,
        match=r"no split 'tset' in .*; the splits are all, extra, held-out, test, train",
    ):
        shards.split("tset", 0.1)


# columns.feather.


def write_set_with_columns(folder, clips, limit_bytes=10**9):
    entries = write_set(folder, clips, limit_bytes)
    columns = columns_of_shards(folder, entries)
    write_columns(folder / "columns.feather", [columns["video_id"]], [columns], entries)
    return entries


def without_columns(folder, copy):
    shutil.copytree(folder, copy)
    (copy / "columns.feather").unlink()
    return Shards(copy)


def varied_clips(count):
    clips = []
    for number in range(count):
        times = tuple(0.1 * frame for frame in range(number % 4 + 1))
        clip = replace(
            a_clip(number % 7, samples=48_000 + number),
            key=f"v{number % 7}@{number}",
            frame_seconds=times,
            frames=(b"jpeg",) * len(times),
            labels=("bell", "dog")[: number % 3],
        )
        clips.append(clip)
    return clips


def test_the_file_of_columns_gives_what_the_shards_hold(tmp_path):
    write_set_with_columns(tmp_path / "set", varied_clips(43), limit_bytes=10**6)
    fast, slow = Shards(tmp_path / "set"), without_columns(tmp_path / "set", tmp_path / "slow")
    mask = np.arange(43) % 3 != 1
    for one, other in ((fast, slow), (fast.select(mask), slow.select(mask))):
        assert one.video_ids.tolist() == other.video_ids.tolist()
        assert one.names.tolist() == other.names.tolist()
        assert one.labels == other.labels
        assert one.videos().tolist() == other.videos().tolist()
        assert one.video_numbers.tolist() == other.video_numbers.tolist()
        names = ("duration_seconds", "marks", "frame_seconds", "boxes")
        assert one.columns(*names).to_pylist() == other.columns(*names).to_pylist()
        few = np.array([5, 0, 20])
        assert one.video_ids_of(few) == tuple(other.video_ids[few])
        assert one.first_labels_of(few) == other.first_labels_of(few) == tuple(one.names[few])
        for clip in range(len(one)):
            assert one.frame_seconds(clip).tolist() == other.frame_seconds(clip).tolist()
            assert one.samples(clip) == other.samples(clip) == len(one.waveform(clip))
        assert one.held_out_mask(0.4).tolist() == other.held_out_mask(0.4).tolist()
        assert one.validation_mask(0.4, 0.2).tolist() == other.validation_mask(0.4, 0.2).tolist()


def test_columns_of_many_clips_are_in_record_batches_of_one_size(tmp_path):
    entries = write_set(tmp_path, [a_clip(0), a_clip(1)])
    columns = columns_of_shards(tmp_path, entries)
    many = pa.concat_tables([columns] * 40_000)
    entries[0]["clips"] = 80_000
    write_columns(
        tmp_path / "columns.feather", [many["video_id"]], [many.slice(0, 3), many.slice(3)], entries
    )
    table = open_columns(tmp_path, entries)
    assert [len(chunk) for chunk in table["split"].chunks] == [65_536, 80_000 - 65_536]
    times = FrameTimes(table)
    assert (
        times.frame_seconds(65_535).tolist()
        == times.frame_seconds(79_999).tolist()
        == [0, 0.2, 0.7]
    )


@pytest.mark.parametrize("harm", ["cut", "empty", "of other shards", "no Arrow file"])
def test_columns_that_do_not_fit_the_shards_are_not_used(tmp_path, harm, caplog):
    write_set_with_columns(tmp_path / "set", varied_clips(20))
    file = tmp_path / "set" / "columns.feather"
    data = file.read_bytes()
    if harm == "of other shards":
        write_set_with_columns(tmp_path / "set", varied_clips(21))
        file.write_bytes(data)
    else:
        file.write_bytes({"cut": data[:-99], "empty": b"", "no Arrow file": b"x" * 5000}[harm])
    shards = Shards(tmp_path / "set")
    assert len(shards) == (21 if harm == "of other shards" else 20)
    assert shards.video_ids.tolist() == [clip.video_id for clip in shards]
    assert "columns.feather is damaged or of other shards" in caplog.text
