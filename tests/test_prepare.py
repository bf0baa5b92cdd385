"""`prepare` loses nothing, and gives the same bytes for any number of workers and after any
interruption.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import SHARED, write_clock_video
from looklisten.data.batches import batch_record
from looklisten.data.cutting import cut
from looklisten.data.inspection import inspect
from looklisten.data.options import PrepareOptions
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.data.sources import Source
from looklisten.data.workers.messages import SourceOutcome
from looklisten.errors import ConfigError, ShardError, SourceError
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.system.files import check_writable


def digest(folder):
    """Every file of a prepared set but the notes of its progress, by content."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.parent == folder)
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    prepare([world / "labels.csv"], out, boxes=world / "boxes.csv", workers=1)
    return out


def test_counts_and_contents(world, undisturbed):
    index = json.loads((undisturbed / "index.json").read_text())
    assert (index["sources"], index["prepared"], index["failed"], index["clips"]) == (48, 48, 0, 48)
    assert set(index["labels"].values()) == {4}
    clip = Shards(undisturbed)[5]
    assert clip.duration_seconds == pytest.approx(2.0, abs=0.03)
    assert len(clip.frames) == 10
    assert clip.boxes
    assert all(0 <= box.clip_seconds < 2 for box in clip.boxes)


def test_same_bytes_for_any_number_of_workers(world, undisturbed, tmp_path):
    prepare([world / "labels.csv"], tmp_path, boxes=world / "boxes.csv", workers=3)
    assert digest(tmp_path) == digest(undisturbed)


def test_moving_the_videos_changes_no_shard(world, undisturbed, tmp_path):
    shutil.copytree(world, tmp_path / "elsewhere")
    moved_world = tmp_path / "elsewhere"
    prepare([moved_world / "labels.csv"], tmp_path / "out", boxes=moved_world / "boxes.csv")
    moved = {
        name: value for name, value in digest(tmp_path / "out").items() if name.endswith(".arrow")
    }
    assert moved == {
        name: value for name, value in digest(undisturbed).items() if name.endswith(".arrow")
    }


@pytest.mark.parametrize("after", [2, 17])
def test_killed_and_run_again_gives_the_same_bytes(world, undisturbed, tmp_path, after):
    command = [
        sys.executable,
        "-m",
        "looklisten",
        "prepare",
        str(world / "labels.csv"),
        str(tmp_path / "out"),
        "--boxes",
        str(world / "boxes.csv"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    records = tmp_path / "out" / "progress"
    while len(list(records.glob("0*.json"))) < after and process.poll() is None:
        time.sleep(0.002)
    # the parent alone, as the kernel would when memory runs out; its workers are left behind
    process.kill()
    process.wait()
    done = len(list(records.glob("0*.json")))
    assert after <= done < 40, "the kill came too late to test anything"
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert digest(tmp_path / "out") == digest(undisturbed)


def test_a_damaged_shard_alone_is_made_again(world, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "out")
    shard = sorted((tmp_path / "out").glob("*.arrow"))[3]
    untouched = sorted((tmp_path / "out").glob("*.arrow"))[4]
    before = untouched.stat().st_mtime_ns
    shard.write_bytes(shard.read_bytes()[:1000])
    prepare([world / "labels.csv"], tmp_path / "out", boxes=world / "boxes.csv", workers=1)
    assert digest(tmp_path / "out") == digest(undisturbed)
    assert untouched.stat().st_mtime_ns == before


def test_added_videos_extend_the_set(world, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(4):
        shutil.copy(world / f"{number:06d}.mp4", videos)
    prepare([videos], tmp_path / "out", workers=1)
    first = digest(tmp_path / "out")
    shutil.copy(world / "000009.mp4", videos / "000000b.mp4")
    result = prepare([videos], tmp_path / "out", workers=1)
    assert (result["sources"], result["clips"]) == (5, 5)
    assert {
        k: v for k, v in digest(tmp_path / "out").items() if k in first and k.endswith(".arrow")
    } == {k: v for k, v in first.items() if k.endswith(".arrow")}


def test_other_settings_or_labels_are_refused(world, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "out")
    with pytest.raises(ConfigError, match="was prepared with another jpeg_quality"):
        prepare([world / "labels.csv"], tmp_path / "out", PrepareOptions(jpeg_quality=50))
    with pytest.raises(
        ConfigError, match=r"000000.mp4 is in .* with another label, split or video_id"
    ):
        prepare([world], tmp_path / "out")


def test_files_in_are_clips_or_failures(tmp_path):
    videos = tmp_path / "videos"
    (videos / "deep").mkdir(parents=True)
    write_clock_video(videos / "good.mp4", seconds=1.5)
    (videos / "text.mp4").write_text("no video at all")
    (videos / "empty.mkv").touch()
    (videos / "notes.txt").write_text("not looked at")
    write_clock_video(videos / "deep" / "short.mp4", seconds=0.5)
    data = (videos / "good.mp4").read_bytes()
    (videos / "headless.mp4").write_bytes(data[: len(data) * 6 // 10])
    result = prepare([videos], tmp_path / "out")
    failures = {row["source"]: row["reason"] for row in lines(tmp_path / "out" / "failures.jsonl")}
    assert set(failures) == {"text.mp4", "empty.mkv", "headless.mp4"}
    assert "cannot be opened as video" in failures["text.mp4"]
    (skipped,) = lines(tmp_path / "out" / "skipped.jsonl")
    assert skipped["source"] == "deep/short.mp4"
    assert "a clip needs 1 s" in skipped["reason"]
    assert str(tmp_path) not in str(failures)
    assert (result["sources"], result["prepared"], result["skipped"], result["failed"]) == (
        5,
        1,
        1,
        3,
    )


def test_what_decodes_before_a_break_is_kept_and_marked(tmp_path):
    write_clock_video(tmp_path / "whole.ts", seconds=4.0)
    data = bytearray((tmp_path / "whole.ts").read_bytes())
    for place in range(len(data) * 3 // 5, len(data) * 4 // 5):
        data[place] = (data[place] * 7 + 13) % 256
    (tmp_path / "broken.ts").write_bytes(data)
    clips = list(
        cut(tmp_path / "broken.ts", Source("broken.ts", 1), PrepareOptions(clip_seconds=2.0))
    )
    assert len(clips) >= 1
    assert clips[0].duration_seconds == pytest.approx(2.0, abs=0.03)


def test_a_picture_alone_or_a_sound_alone_is_said(tmp_path):
    import av

    write_clock_video(tmp_path / "both.mp4", seconds=1.5)
    for kind, lacking in (("video", "audio"), ("audio", "video")):
        with (
            av.open(tmp_path / "both.mp4") as source,
            av.open(tmp_path / f"{kind}.mp4", "w") as target,
        ):
            stream = source.streams.best(kind)
            copy = target.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    target.mux(packet)
        with pytest.raises(SourceError, match=f"has no {lacking} stream"):
            list(cut(tmp_path / f"{kind}.mp4", Source("x", 1), PrepareOptions()))


def test_nothing_usable_is_an_error_not_an_empty_set(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(
        SourceError,
        match=r"none of the 1 sources gave a clip.*a.mp4 cannot be opened as video.*failures.jsonl",
    ):
        prepare([tmp_path / "a.mp4"], tmp_path / "out")


@pytest.mark.skipif(
    not (SHARED / "media/videos").is_dir(), reason="no real clips beside this checkout"
)
def test_real_clips_in_are_clips_or_failures(tmp_path):
    result = prepare([SHARED / "media/videos"], tmp_path)
    failures, skipped = (
        [row["source"] for row in lines(tmp_path / name)]
        for name in ("failures.jsonl", "skipped.jsonl")
    )
    assert result["sources"] == result["prepared"] + result["skipped"] + result["failed"]
    assert result["prepared"] >= 22
    assert len(failures) == result["failed"]
    assert len(skipped) >= result["skipped"], "those that lost seconds have a line too"
    assert len(set(failures) | set(skipped)) == len(failures) + len(skipped)
    assert "hard/bad_text.mp4" in failures


def test_marks_are_counted_and_can_be_skipped(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    write_clock_video(videos / "a.mp4", seconds=3.0)
    shutil.copy(videos / "a.mp4", videos / "b.mp4")
    write_clock_video(videos / "frozen.mp4", times=np.zeros(1), seconds=3.0)
    write_clock_video(videos / "other.mp4", seconds=3.2)
    result = prepare([videos], tmp_path / "all")
    assert result["marks"] == {"duplicate": 1}
    assert (result["prepared"], result["skipped"], result["failed"]) == (3, 1, 0)
    shards = Shards(tmp_path / "all")
    assert [(clip.source, clip.video_id, clip.marks) for clip in shards][1] == (
        "b.mp4",
        "a.mp4",
        ("duplicate",),
    )
    fewer = prepare([videos], tmp_path / "fewer", PrepareOptions(skip=("duplicate", "still")))
    assert (fewer["prepared"], fewer["skipped"], fewer["failed"], fewer["clips"]) == (2, 2, 0, 2)
    skipped = {row["source"]: row for row in lines(tmp_path / "fewer" / "skipped.jsonl")}
    assert set(skipped) == {"b.mp4", "frozen.mp4"}
    assert skipped["b.mp4"]["reason"] == "every clip of it is duplicate"
    assert (skipped["b.mp4"]["clips_dropped"], skipped["b.mp4"]["clips_prepared"]) == (1, 0)
    assert json.loads((tmp_path / "fewer" / "index.json").read_text())["settings"]["skip"] == [
        "duplicate",
        "still",
    ]


def test_a_broken_off_source_is_failed_and_its_seconds_are_kept(tmp_path):
    write_clock_video(tmp_path / "whole.mkv", seconds=6.0)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(data[: len(data) // 2])
    result = prepare([tmp_path / "half.mkv"], tmp_path / "out", PrepareOptions(clip_seconds=1.0))
    (failure,) = lines(tmp_path / "out" / "failures.jsonl")
    assert (result["prepared"], result["failed"]) == (0, 1)
    assert failure["seconds_recovered"] == result["clips"] >= 2
    assert failure["reason"].endswith("of the 6.0 s that its header declares")
    assert Shards(tmp_path / "out")[result["clips"] - 1].marks == ("short", "truncated")


def test_what_a_table_misses_is_counted_and_can_come_later(world, tmp_path):
    for number in range(2):
        shutil.copy(world / f"{number:06d}.mp4", tmp_path)
    (tmp_path / "t.csv").write_text("path\n000000.mp4\n000001.mp4\n000002.mp4\n")
    first = prepare([tmp_path / "t.csv"], tmp_path / "out")
    assert (first["sources"], first["prepared"], first["failed"]) == (3, 2, 1)
    (failure,) = lines(tmp_path / "out" / "failures.jsonl")
    assert (failure["stage"], failure["reason"]) == ("find", "there is no such file")
    shutil.copy(world / "000002.mp4", tmp_path)
    second = prepare([tmp_path / "t.csv"], tmp_path / "out")
    assert (second["sources"], second["prepared"], second["failed"]) == (3, 3, 0)


def test_stretches_of_one_video_are_one_video(tmp_path):
    write_clock_video(tmp_path / "a.mp4", seconds=8.0)
    rows = [
        "path,label,start_seconds,stop_seconds,split",
        "a.mp4,early,0.5,2.5,train",
        "a.mp4,late,5,7.5,train",
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    prepare([tmp_path / "t.csv"], tmp_path / "out")
    clips = list(Shards(tmp_path / "out"))
    assert [clip.labels for clip in clips] == [("early",), ("late",)]
    assert {clip.video_id for clip in clips} == {"a.mp4"}
    assert [round(clip.duration_seconds, 1) for clip in clips] == [2.0, 2.5]


def test_another_folder_extends_the_set(world, tmp_path):
    """The paths of what is there stay as they were, though the common folder is another one now."""
    for name, number in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        shutil.copy(world / f"{number:06d}.mp4", tmp_path / name)
    prepare([tmp_path / "a"], tmp_path / "out")
    result = prepare([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert (result["sources"], result["prepared"]) == (2, 2)
    assert {clip.source for clip in Shards(tmp_path / "out")} == {"000000.mp4", "../b/000001.mp4"}


def test_what_was_decoded_once_is_not_again(world, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "out")
    assert (
        prepare([world / "labels.csv"], tmp_path / "out", boxes=world / "boxes.csv")["x_realtime"]
        == 0.0
    )


# What has changed since


def broken(path, seconds=3.0):
    """A file that fails, and the bytes that repair it."""
    write_clock_video(path, seconds=seconds)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return data


def records_of(out):
    return {file.name: file.stat().st_mtime_ns for file in (out / "progress").glob("0*.json")}


def test_a_repaired_source_is_prepared_and_all_others_stay(tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    whole = broken(videos / "b.mp4")
    for name in ("a.mp4", "c.mp4"):
        write_clock_video(videos / name, seconds=1.5)
    first = prepare([videos], out, workers=1)
    assert (first["prepared"], first["failed"]) == (2, 1)
    before = records_of(out)
    assert prepare([videos], out)["failed"] == 1
    assert records_of(out) == before, "what failed and did not change is not tried again"
    (videos / "b.mp4").write_bytes(whole)
    second = prepare([videos], out, workers=1)
    assert (second["prepared"], second["failed"]) == (3, 0)
    changed = [name for name, at in records_of(out).items() if at != before[name]]
    assert changed == ["000001.json"]
    prepare([videos], tmp_path / "fresh")
    assert digest(out) == digest(tmp_path / "fresh")


def test_a_source_that_was_too_short_and_is_longer_now_is_prepared(tmp_path):
    write_clock_video(tmp_path / "a.mp4", seconds=0.5)
    write_clock_video(tmp_path / "b.mp4", seconds=1.5)
    assert prepare([tmp_path], tmp_path / "out")["skipped"] == 1
    write_clock_video(tmp_path / "a.mp4", seconds=2.0)
    assert prepare([tmp_path], tmp_path / "out")["prepared"] == 2


@pytest.mark.parametrize("same_size", [False, True])
def test_a_changed_source_stays_until_again(tmp_path, caplog, same_size):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    write_clock_video(videos / "a.mp4", seconds=1.5)
    write_clock_video(tmp_path / "longer.mp4", seconds=2.0)
    if same_size:  # zeros after the last box do no harm
        size = (tmp_path / "longer.mp4").stat().st_size
        (videos / "a.mp4").write_bytes((videos / "a.mp4").read_bytes().ljust(size, b"\0"))
    prepare([videos], out)
    shutil.copy(tmp_path / "longer.mp4", videos / "a.mp4")
    caplog.clear()
    assert prepare([videos], out)["x_realtime"] == 0.0
    assert (
        "1 sources have changed since they were prepared and stay as they were (a.mp4); --again"
        in caplog.text
    )
    prepare([videos], out, again=True)
    assert Shards(out)[0].duration_seconds == pytest.approx(2.0, abs=0.05)
    caplog.clear()
    assert prepare([videos], out)["x_realtime"] == 0.0
    assert "have changed" not in caplog.text


def test_another_date_alone_changes_nothing(tmp_path, caplog):
    write_clock_video(tmp_path / "a.mp4", seconds=1.5)
    prepare([tmp_path], tmp_path / "out")
    os.utime(tmp_path / "a.mp4", ns=(1, 1))
    assert prepare([tmp_path], tmp_path / "out", again=True)["x_realtime"] == 0.0
    assert "have changed" not in caplog.text


def test_again_tries_what_failed_and_leaves_no_old_shard(tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    broken(videos / "b.ts")
    write_clock_video(videos / "a.mp4", seconds=1.5)
    prepare([videos], out)
    before = records_of(out)
    prepare([videos], out, again=True)
    changed = [name for name, at in records_of(out).items() if at != before[name]]
    failed = [json.loads((out / "progress" / name).read_text())["failed"] for name in changed]
    assert all(failed)
    index = json.loads((out / "index.json").read_text())
    assert {shard["name"] for shard in index["shards"]} == {
        file.name for file in out.glob("*.arrow")
    }


def fill(videos):
    """So many files that fail at once that two sources share a batch."""
    for number in range(62):
        (videos / f"z{number}.mp4").write_text("no video")


def test_a_repair_does_not_cost_clips_whose_source_is_gone(tmp_path, caplog):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    fill(videos)
    whole = broken(videos / "b.mp4")
    write_clock_video(videos / "a.mp4", seconds=1.5)
    prepare([videos], out)
    kept = [clip.source for clip in Shards(out)]
    (videos / "b.mp4").write_bytes(whole)
    (videos / "a.mp4").unlink()
    prepare([videos], out)
    assert [clip.source for clip in Shards(out)] == kept == ["a.mp4"]
    assert (
        "not prepared again: b.mp4; its clips are in one shard "
        "with those of a.mp4, which does not exist any more" in caplog.text
    )


def test_a_source_that_costs_a_worker_is_not_opened_again(tmp_path):
    """A pipe that nobody writes to hangs whoever opens it."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    fill(videos)
    whole = broken(videos / "a.mp4")
    os.mkfifo(tmp_path / "pipe")
    limits = WorkerLimits(stall_seconds=10)
    inputs = [videos, tmp_path / "pipe"]
    with pytest.raises(SourceError, match="the first: pipe: the decoder did not advance for 10 s"):
        prepare(inputs, out, limits=limits)
    (videos / "a.mp4").write_bytes(whole)
    second = prepare(inputs, out, limits=limits)
    assert (second["prepared"], second["failed"]) == (1, 63)
    assert second["seconds"] < limits.stall_seconds
    assert "did not advance for 10 s" in lines(out / "failures.jsonl")[0]["reason"]


# What is said


def test_duplicates_in_two_splits_follow_the_first_and_it_is_said(tmp_path, caplog):
    write_clock_video(tmp_path / "a.mp4", seconds=1.5)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    write_clock_video(tmp_path / "c.mp4", seconds=1.6)
    (tmp_path / "t.csv").write_text("path,split\na.mp4,train\nb.mp4,test\nc.mp4,fold9\n")
    prepare([tmp_path / "t.csv"], tmp_path / "out")
    shards = Shards(tmp_path / "out")
    assert list(zip(shards.video_ids.tolist(), shards.splits.tolist(), strict=True)) == [
        ("a.mp4", "train"),
        ("a.mp4", "train"),
        ("c.mp4", "fold9"),
    ]
    assert (
        "1 file has the same bytes as a file of another split and the split of that one now: "
        "b.mp4 (test) follows a.mp4" in caplog.text
    )
    assert "held out from training, and only train is trained on: fold9 (1) sources" in caplog.text
    assert prepare([tmp_path / "t.csv"], tmp_path / "out")["x_realtime"] == 0.0


def ids_and_splits(out):
    shards = Shards(out)
    found = zip(
        shards.columns("source")["source"].to_pylist(),
        shards.video_ids.tolist(),
        shards.splits.tolist(),
        strict=True,
    )
    return {source: (video, split) for source, video, split in found}


def test_files_that_change_into_the_same_are_one_video_whatever_their_batches(tmp_path):
    out = tmp_path / "out"
    for name, seconds in (("a", 1.5), ("b", 1.6), ("new", 1.7)):
        write_clock_video(tmp_path / f"{name}.mp4", seconds=seconds)
    (tmp_path / "t.csv").write_text("path,split\na.mp4,train\nb.mp4,test\n")
    prepare([tmp_path / "t.csv"], out)
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(tmp_path / "new.mp4", tmp_path / name)
    prepare([tmp_path / "t.csv"], out, again=True)
    assert ids_and_splits(out) == {"a.mp4": ("a.mp4", "train"), "b.mp4": ("a.mp4", "train")}
    shutil.copy(tmp_path / "new.mp4", tmp_path / "b.mp4")
    write_clock_video(tmp_path / "a.mp4", seconds=1.5)
    prepare([tmp_path / "t.csv"], out, again=True)
    assert ids_and_splits(out) == {"a.mp4": ("a.mp4", "train"), "b.mp4": ("b.mp4", "test")}
    assert "duplicate" not in json.loads((out / "index.json").read_text())["marks"]


def test_a_mixture_of_sources_with_and_without_split_is_refused(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_text(name)
    (tmp_path / "t.csv").write_text("path,split\na.mp4,train\nb.mp4,\n")
    with pytest.raises(
        ConfigError,
        match=r"1 of 2 sources have no split, .* in 'train'.*Without a split: b\.mp4",
    ):
        prepare([tmp_path / "t.csv"], tmp_path / "out")


def test_boxes_of_files_that_are_no_sources_are_reported(tmp_path, caplog):
    write_clock_video(tmp_path / "a.mp4", seconds=1.5)
    (tmp_path / "boxes.csv").write_text(
        "path,time,x0,y0,x1,y1,label,sounding\na.mp4,0,0,0,1,1,x,1\nz.mp4,0,0,0,1,1,x,1\n"
    )
    prepare([tmp_path / "a.mp4"], tmp_path / "out", boxes=tmp_path / "boxes.csv")
    assert (
        "the table of boxes has 1 files that are not among the sources; "
        "their boxes are left out: z.mp4" in caplog.text
    )
    assert len(Shards(tmp_path / "out")[0].boxes) == 1


def test_paths_of_boxes_start_at_the_folder_of_their_table(tmp_path):
    """Two inputs in two folders: the common folder is another one than the table's."""
    for name in ("one", "two"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        write_clock_video(tmp_path / "videos" / name / f"{name}.mp4", seconds=1.5)
    (tmp_path / "videos" / "boxes.csv").write_text(
        "path,time,x0,y0,x1,y1,label,sounding\none/one.mp4,0,0,0,1,1,x,1\n"
    )
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "boxes.csv").write_text(
        "path,time,x0,y0,x1,y1,label,sounding\n../videos/one/one.mp4,0,0,0,1,1,x,1\n"
    )
    inputs = [tmp_path / "videos" / "one", tmp_path / "videos" / "two"]
    for number, table in enumerate((tmp_path / "videos" / "boxes.csv", tables / "boxes.csv")):
        prepare(inputs, tmp_path / f"out{number}", boxes=table)
        shards = Shards(tmp_path / f"out{number}")
        boxes = {clip.source: len(clip.boxes) for clip in (shards[0], shards[1])}
        assert boxes == {"one/one.mp4": 1, "two/two.mp4": 0}


def test_when_all_were_skipped_the_first_reason_is_said(tmp_path):
    write_clock_video(tmp_path / "a.mp4", seconds=0.5)
    with pytest.raises(
        SourceError,
        match=r"gave a clip; the first: a\.mp4.* a clip needs 1 s .*1 in .*skipped\.jsonl",
    ):
        prepare([tmp_path / "a.mp4"], tmp_path / "out")


def test_lost_seconds_are_counted_by_reason(tmp_path):
    write_clock_video(tmp_path / "a.mp4", seconds=3.0)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    result = prepare([tmp_path], tmp_path / "out", PrepareOptions(skip=("duplicate",)))
    (reason,) = (why for why in result["lost_seconds"] if why == "skip duplicate")
    assert result["lost_seconds"][reason] == pytest.approx(3.0, abs=0.05)
    assert inspect(tmp_path / "out")["lost_seconds"] == result["lost_seconds"]


def test_what_decoding_lost_has_a_line_when_it_is_notable():
    sources = [Source("a.mp4"), Source("b.mp4")]
    lost = [{"no picture": 0.4}, {"no picture": 2.5, "no sound": 1.0}]
    outcomes = []
    for lost_seconds in lost:
        outcomes.append(
            SourceOutcome(clips=1, seconds=9.0, lost_seconds=lost_seconds, source_marks=["hdr"])
        )
    record = batch_record(sources, outcomes, [], ["", ""])
    assert record["lost_seconds"] == {"no picture": 2.9, "no sound": 1.0}
    assert record["source_marks"] == {"hdr": 2}
    (line,) = record["skipped_lines"]
    assert (line["source"], line["lost_seconds"], line["clips_prepared"]) == ("b.mp4", lost[1], 1)


def test_a_file_in_the_way_of_the_folder_is_said_before_any_work(tmp_path):
    write_clock_video(tmp_path / "a.mp4", seconds=1.5)
    with pytest.raises(
        ConfigError, match=r"b\.mp4 cannot be a folder: .*b\.mp4 is a file; choose another folder"
    ):
        shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
        prepare([tmp_path / "a.mp4"], tmp_path / "b.mp4")
    for out in (tmp_path / "b.mp4" / "out", tmp_path / ("n" * 300), tmp_path / "a\0b"):
        with pytest.raises(
            ConfigError, match=r"cannot be (a folder|written to): .*; choose another folder"
        ):
            check_writable(out)


def test_shards_are_not_written_among_the_videos(tmp_path, monkeypatch):
    videos = tmp_path / "videos"
    videos.mkdir()
    write_clock_video(videos / "a.mp4")
    with pytest.raises(ShardError, match=r"with `looklisten prepare \S+videos \S+videos-shards`"):
        Shards(videos)
    monkeypatch.chdir(videos)
    for out in (videos, Path()):
        with pytest.raises(ConfigError, match="is the folder of the videos, and shards would be"):
            prepare([videos / "a.mp4", videos], out)
    assert [file.name for file in videos.iterdir()] == ["a.mp4"]
    # A folder below is none of the videos.
    assert prepare([videos], videos / "shards")["prepared"] == 1


def test_trying_a_folder_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "new" / "deeper")
    check_writable(tmp_path)
    assert not list(tmp_path.iterdir())


# The file of small columns (tests/test_shards.py has its content).


def test_a_set_of_an_earlier_version_gets_its_columns_when_it_is_prepared_again(world, tmp_path):
    videos = sorted((world).rglob("*.mp4"))[:3]
    out = tmp_path / "out"
    prepare(videos, out, workers=1, sources_per_batch=1)
    written = (out / "columns.feather").read_bytes()
    other_batch = (out / "progress/000001.arrow").read_bytes()
    shards = Shards(out)
    assert shards.samples(0) == len(shards.waveform(0))
    for file in [out / "columns.feather", *(out / "progress").glob("*.arrow")]:
        file.unlink()
    assert Shards(out).video_ids.tolist() == shards.video_ids.tolist()
    prepare(videos, out, workers=1, sources_per_batch=1)
    assert (out / "columns.feather").read_bytes() == written
    # Columns of another batch do not fit, so the shards are read.
    (out / "progress/000000.arrow").write_bytes(other_batch)
    prepare(videos, out, workers=1, sources_per_batch=1)
    assert (out / "columns.feather").read_bytes() == written
