"""Shards hold what was put in, say when they are damaged, and split by video."""

import json
import os

import numpy as np
import pyarrow as pa
import pytest

from looklisten.data.clips import Box, Clip
from looklisten.data.shard_files import CLIPS_PER_RECORD_BATCH, FORMAT_VERSION, write_shards
from looklisten.data.shards import Shards
from looklisten.errors import ShardError


def a_clip(number, split="", samples=48_000):
    rng = np.random.default_rng(number)
    return Clip(
        key=f"v{number}@0.000",
        video_id=f"v{number}",
        source=f"v{number}.mp4",
        start_seconds=number / 2,
        frame_seconds=(0.0, 0.2, 0.7),
        frames=tuple(rng.bytes(20 + number) for _ in range(3)),
        waveform=rng.integers(-(2**15), 2**15, samples).astype(np.int16),
        sample_rate_hz=48_000,
        labels=("bell",) if number % 2 else (),
        split=split,
        boxes=(Box(0.2, 0.0, 0.25, 0.5, 0.75, "bell", True),),
        marks=("damaged",),
    )


def write_set(folder, clips, limit_bytes=10**9):
    entries = write_shards(clips, folder, "clips-000000", limit_bytes)
    index = {"format": FORMAT_VERSION, "shards": entries}
    (folder / "index.json").write_text(json.dumps(index))
    return entries


def test_what_goes_in_comes_out(tmp_path):
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


def test_a_shard_cut_in_half_is_said(tmp_path):
    (entry,) = write_set(tmp_path, [a_clip(i) for i in range(3)])
    file = tmp_path / entry["name"]
    file.write_bytes(file.read_bytes()[: entry["bytes"] // 2])
    with pytest.raises(
        ShardError,
        match=rf"has {entry['bytes'] // 2} bytes where the index says {entry['bytes']}; run the same .*prepare",
    ):
        Shards(tmp_path)


def test_a_missing_shard_index_or_folder_is_said(tmp_path):
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


def test_without_names_adding_videos_moves_none(tmp_path):
    (tmp_path / "few").mkdir(), (tmp_path / "many").mkdir()
    write_set(tmp_path / "few", [a_clip(i, samples=10) for i in range(60)])
    write_set(tmp_path / "many", [a_clip(i, samples=10) for i in range(200)])
    few, many = (
        Shards(tmp_path / "few").held_out_mask(0.1),
        Shards(tmp_path / "many").held_out_mask(0.1),
    )
    assert np.array_equal(few, many[:60])
    assert 10 <= many.sum() <= 30


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
        "the splits are train (2), fold1 (1), test (1), val (1), no name (1), counted in videos; only `train` is trained on"
    )


def test_without_splits_there_is_nothing_to_say_of_them(tmp_path):
    write_set(tmp_path, [a_clip(0)])
    assert Shards(tmp_path).splits_sentence() == ""


def test_a_folder_that_is_not_utf_8_holds_shards(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    write_set(folder, [a_clip(0)])
    for read_ahead in (True, False):
        assert Shards(folder, read_ahead=read_ahead)[0].video_id == "v0"
