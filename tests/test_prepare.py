"""`prepare` loses nothing, and gives the same bytes for any number of workers and after any interruption."""

import hashlib
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from conftest import SHARED, write_clock_video
from looklisten.data.cutting import PrepareSettings, cut
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.data.sources import Source
from looklisten.errors import ConfigError, SourceError


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
    assert all(0 <= box.at_seconds < 2 for box in clip.boxes)


def test_same_bytes_for_any_number_of_workers(world, undisturbed, tmp_path):
    prepare([world / "labels.csv"], tmp_path, boxes=world / "boxes.csv", workers=3)
    assert digest(tmp_path) == digest(undisturbed)


def test_moving_the_videos_changes_no_shard(world, undisturbed, tmp_path):
    shutil.copytree(world, tmp_path / "elsewhere")
    prepare([tmp_path / "elsewhere" / "labels.csv"], tmp_path / "out", boxes=world / "boxes.csv")
    moved = {name: value for name, value in digest(tmp_path / "out").items() if name.endswith(".arrow")}
    assert moved == {name: value for name, value in digest(undisturbed).items() if name.endswith(".arrow")}


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
    process.kill()  # the parent alone, as the kernel would when memory runs out; its workers are left behind
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
    assert {k: v for k, v in digest(tmp_path / "out").items() if k in first and k.endswith(".arrow")} == {
        k: v for k, v in first.items() if k.endswith(".arrow")
    }


def test_other_settings_or_labels_are_refused(world, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "out")
    with pytest.raises(ConfigError, match="was prepared with another jpeg_quality"):
        prepare([world / "labels.csv"], tmp_path / "out", PrepareSettings(jpeg_quality=50))
    with pytest.raises(ConfigError, match=r"000000.mp4 is in .* with another label, split or video_id"):
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
    assert (result["sources"], result["prepared"], result["skipped"], result["failed"]) == (5, 1, 1, 3)


def test_what_decodes_before_a_break_is_kept_and_marked(tmp_path):
    write_clock_video(tmp_path / "whole.ts", seconds=4.0)
    data = bytearray((tmp_path / "whole.ts").read_bytes())
    for place in range(len(data) * 3 // 5, len(data) * 4 // 5):
        data[place] = (data[place] * 7 + 13) % 256
    (tmp_path / "broken.ts").write_bytes(data)
    clips = list(cut(tmp_path / "broken.ts", Source("broken.ts", 1), PrepareSettings(clip_seconds=2.0)))
    assert len(clips) >= 1
    assert clips[0].duration_seconds == pytest.approx(2.0, abs=0.03)


def test_a_picture_alone_or_a_sound_alone_is_said(tmp_path):
    import av

    write_clock_video(tmp_path / "both.mp4", seconds=1.5)
    for kind, lacking in (("video", "sound"), ("audio", "picture")):
        with av.open(tmp_path / "both.mp4") as source, av.open(tmp_path / f"{kind}.mp4", "w") as target:
            stream = source.streams.best(kind)
            copy = target.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    target.mux(packet)
        with pytest.raises(SourceError, match=f"has no {lacking} stream"):
            list(cut(tmp_path / f"{kind}.mp4", Source("x", 1), PrepareSettings()))


def test_nothing_usable_is_an_error_not_an_empty_set(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(SourceError, match=r"none of the 1 sources gave a clip.*a.mp4 cannot be opened as video.*failures.jsonl"):
        prepare([tmp_path / "a.mp4"], tmp_path / "out")


@pytest.mark.skipif(not (SHARED / "media/videos").is_dir(), reason="no real clips beside this checkout")
def test_real_clips_in_are_clips_or_failures(tmp_path):
    result = prepare([SHARED / "media/videos"], tmp_path)
    failures, skipped = ([row["source"] for row in lines(tmp_path / name)] for name in ("failures.jsonl", "skipped.jsonl"))
    assert result["sources"] == result["prepared"] + result["skipped"] + result["failed"]
    assert result["prepared"] >= 22
    assert len(failures) == result["failed"]
    assert len(skipped) == result["skipped"]
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
    assert [(clip.source, clip.video_id, clip.marks) for clip in shards][1] == ("b.mp4", "a.mp4", ("duplicate",))
    fewer = prepare([videos], tmp_path / "fewer", PrepareSettings(skip=("duplicate", "still")))
    assert (fewer["prepared"], fewer["skipped"], fewer["failed"], fewer["clips"]) == (2, 2, 0, 2)
    skipped = {row["source"]: row for row in lines(tmp_path / "fewer" / "skipped.jsonl")}
    assert set(skipped) == {"b.mp4", "frozen.mp4"}
    assert skipped["b.mp4"]["reason"] == "every clip of it is duplicate"
    assert (skipped["b.mp4"]["clips_dropped"], skipped["b.mp4"]["clips_prepared"]) == (1, 0)
    assert json.loads((tmp_path / "fewer" / "index.json").read_text())["settings"]["skip"] == ["duplicate", "still"]


def test_a_broken_off_source_is_failed_and_its_seconds_are_kept(tmp_path):
    write_clock_video(tmp_path / "whole.mkv", seconds=6.0)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(data[: len(data) // 2])
    result = prepare([tmp_path / "half.mkv"], tmp_path / "out", PrepareSettings(clip_seconds=1.0))
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
    rows = ["path,label,start_seconds,stop_seconds,split", "a.mp4,early,0.5,2.5,train", "a.mp4,late,5,7.5,train"]
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
    assert prepare([world / "labels.csv"], tmp_path / "out", boxes=world / "boxes.csv")["x_realtime"] == 0.0
