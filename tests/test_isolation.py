"""A decoder that hangs, crashes or eats memory, a parent that is killed, a disk that is full: none
of it loses anything.
"""

import contextlib
import hashlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conftest import write_clock_video
from looklisten.data.options import PrepareOptions
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.media.isolation.limits import WorkerLimits


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def digest(folder):
    return {
        f.name: hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.iterdir())
        if f.is_file()
    }


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three good videos in one batch, so that what happens to one could touch the others."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("a", "c", "e"):
        write_clock_video(folder / f"{name}.mkv", seconds=2.0)
    return folder


ONE_BATCH = 64
"""More sources in a batch than any of these tests has."""


@pytest.fixture(scope="module")
def undisturbed(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    prepare([videos], out, sources_per_batch=ONE_BATCH)
    return out


def children():
    """Worker processes of this test: pid to the seconds of processor time it used."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if (
                int(fields[1]) == os.getpid()
                and b"looklisten.data.workers.child" in (stat.parent / "cmdline").read_bytes()
            ):
                found[int(stat.parent.name)] = fields
    return found


def test_a_source_that_hangs_is_given_up_and_the_others_are_whole(videos, undisturbed, tmp_path):
    pipe = tmp_path / "b.mkv"
    os.mkfifo(pipe)  # whoever opens it to read waits for a writer, for ever
    began = time.monotonic()
    result = prepare(
        [videos, pipe],
        tmp_path / "out",
        limits=WorkerLimits(stall_seconds=1.5),
        sources_per_batch=ONE_BATCH,
    )
    assert time.monotonic() - began < 30
    assert (result["sources"], result["prepared"], result["failed"]) == (4, 3, 1)
    (failure,) = lines(tmp_path / "out" / "failures.jsonl")
    assert failure["stage"] == "worker"
    assert failure["reason"] == "the decoder did not advance for 1.5 s and was stopped"
    assert [bytes(c.waveform) for c in Shards(tmp_path / "out")] == [
        bytes(c.waveform) for c in Shards(undisturbed)
    ]


def test_a_source_that_hangs_half_way_keeps_what_came_before(videos, tmp_path):
    """A pipe that stops giving, each time it is read."""
    write_clock_video(tmp_path / "long.mkv", seconds=6.0)
    data = (tmp_path / "long.mkv").read_bytes()
    pipe = tmp_path / "b.mkv"
    os.mkfifo(pipe)

    def feed():
        for _ in range(2):
            with contextlib.suppress(OSError), pipe.open("wb") as file:
                file.write(data[: len(data) * 3 // 4])
                file.flush()
                # Until nobody reads any more: who tries again must find a new writer, not the rest
                # of this one.
                nobody_reads = select.poll()
                nobody_reads.register(file, 0)
                nobody_reads.poll(120_000)

    threading.Thread(target=feed, daemon=True).start()
    settings = PrepareOptions(clip_seconds=1.0, min_clip_seconds=0.2)
    result = prepare(
        [videos, pipe],
        tmp_path / "out",
        settings,
        limits=WorkerLimits(stall_seconds=6),
        sources_per_batch=ONE_BATCH,
    )
    (failure,) = lines(tmp_path / "out" / "failures.jsonl")
    assert failure["source"] == os.path.relpath(pipe, Path(os.path.commonpath([videos, tmp_path])))
    assert result["prepared"] == 3
    assert failure["seconds_recovered"] in (2.0, 3.0, 4.0)
    kept = [clip.marks for clip in Shards(tmp_path / "out") if clip.video_id.endswith("b.mkv")]
    assert len(kept) == failure["seconds_recovered"]
    assert [("truncated" in marks) for marks in kept] == [False] * (len(kept) - 1) + [True]


@pytest.mark.parametrize(("times", "failed"), [(1, 0), (50, 1)])
def test_a_crash_costs_at_most_its_source(videos, undisturbed, tmp_path, times, failed):
    """The worker is shot while it reads a source that stands still (a pipe): once is forgiven,
    again and again is not.
    """
    pipe = tmp_path / "b.mkv"
    os.mkfifo(pipe)
    good = (videos / "a.mkv").read_bytes()
    over = threading.Event()

    def shoot():
        shot = set()
        while len(shot) < times and not over.is_set():
            for pid in set(children()) - shot:
                if waits_for(pid, pipe):
                    os.kill(pid, signal.SIGSEGV)
                    shot.add(pid)
            time.sleep(0.02)
        while not over.is_set():  # then the pipe gives a whole video
            with contextlib.suppress(OSError):
                handle = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                os.set_blocking(handle, True)
                with os.fdopen(handle, "wb") as file:
                    file.write(good)
                    return
            time.sleep(0.02)

    thread = threading.Thread(target=shoot, daemon=True)
    thread.start()
    result = prepare(
        [videos, pipe],
        tmp_path / "out",
        limits=WorkerLimits(stall_seconds=20),
        sources_per_batch=ONE_BATCH,
    )
    over.set()
    thread.join()
    assert (result["sources"], result["prepared"], result["failed"]) == (4, 4 - failed, failed)
    reasons = [row["reason"] for row in lines(tmp_path / "out" / "failures.jsonl")]
    assert reasons == ["the decoder crashed its process (SIGSEGV)"] * failed


def waits_for(pid, pipe):
    """Whether a process is inside the call that opens a pipe nobody writes to."""
    with contextlib.suppress(OSError):
        return "wait_for_partner" in Path(f"/proc/{pid}/wchan").read_text() or pipe_in_stack(pid)
    return False


def pipe_in_stack(pid):
    return (
        Path(f"/proc/{pid}/syscall").read_text().split()[0] == "257"
    )  # openat, and it is still in it


def test_a_source_that_eats_memory_costs_itself(videos, tmp_path):
    import av
    import numpy as np

    with av.open(
        tmp_path / "b.mkv", "w"
    ) as container:  # a small file that unfolds to pictures of 37 megapixels
        video = container.add_stream("mpeg4", 25)
        video.width, video.height, video.pix_fmt = 7680, 4320, "yuv420p"
        audio = container.add_stream("pcm_s16le", 48_000, layout="mono")
        for number in range(30):
            frame = av.VideoFrame(7680, 4320, "yuv420p")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 57_600), np.int16), "s16", "mono")
        sound.sample_rate, sound.pts = 48_000, 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    result = prepare(
        [videos, tmp_path / "b.mkv"],
        tmp_path / "out",
        limits=WorkerLimits(memory_megabytes=60),
        sources_per_batch=ONE_BATCH,
    )
    assert (result["prepared"], result["failed"]) == (3, 1)
    (failure,) = lines(tmp_path / "out" / "failures.jsonl")
    assert failure["source"].endswith("b.mkv")
    result = prepare(
        [videos, tmp_path / "b.mkv"],
        tmp_path / "small",
        PrepareOptions(max_megapixels=20),
        sources_per_batch=ONE_BATCH,
    )
    (failure,) = lines(tmp_path / "small" / "failures.jsonl")
    assert "frames of 7680 x 4320; at most 20 megapixels" in failure["reason"]


def test_workers_are_replaced_now_and_then(videos, undisturbed, tmp_path):
    limits = WorkerLimits(sources_per_worker=1)
    prepare([videos], tmp_path, workers=1, limits=limits, sources_per_batch=1)
    assert [bytes(c.waveform) for c in Shards(tmp_path)] == [
        bytes(c.waveform) for c in Shards(undisturbed)
    ]
    assert not children()


@pytest.mark.parametrize("times", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_gives_the_same_bytes(world, tmp_path, times):
    whole = tmp_path / "whole"
    prepare([world / "labels.csv"], whole)
    command = [
        sys.executable,
        "-m",
        "looklisten",
        "prepare",
        str(world / "labels.csv"),
        str(tmp_path / "out"),
        "--workers",
        "2",
    ]
    chance, killed = random.Random(7), 0
    for _ in range(times):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.3, 1.6))
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed >= times // 4, "the runs were over before they could be killed"
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert digest(tmp_path / "out") == digest(whole)


def test_the_workers_of_a_killed_parent_end(world, tmp_path):
    command = [
        sys.executable,
        "-m",
        "looklisten",
        "prepare",
        str(world / "labels.csv"),
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (orphans := workers_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in orphans) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert orphans
    assert not any(Path(f"/proc/{pid}").exists() for pid in orphans)


def workers_of(parent):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def test_ctrl_c_stops_at_once_and_the_rest_is_done_later(world, tmp_path):
    (tmp_path / "videos").mkdir()
    for number in range(100):
        (tmp_path / "videos" / f"{number:03d}.mp4").symlink_to(world / f"{number % 40:06d}.mp4")
    command = [
        sys.executable,
        "-m",
        "looklisten",
        "prepare",
        str(tmp_path / "videos"),
        str(tmp_path / "out"),
        "--workers",
        "2",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list((tmp_path / "out" / "progress").glob("0*.json")) and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert "run the same command again to continue" in said
    assert "Traceback" not in said
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["prepared"] == 100


@pytest.fixture
def small_disk(tmp_path):
    """Three megabytes of disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "none", disk],
            check=False,
            capture_output=True,
        ).returncode
    ):
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_said_in_one_sentence_and_the_run_goes_on_when_there_is_room(
    videos, small_disk, tmp_path
):
    for number in range(12):
        (tmp_path / f"{number:02d}.mkv").symlink_to(videos / "a.mkv")
    (small_disk / "other").write_bytes(bytes(2_300_000))
    command = [
        sys.executable,
        "-m",
        "looklisten",
        "prepare",
        f"{tmp_path}/*.mkv",
        str(small_disk / "out"),
    ]
    full = subprocess.run(command, check=False, capture_output=True, text=True)
    assert full.returncode == 1
    said = " ".join(full.stderr.split())
    assert "the disk is full while writing" in said
    assert "run the same command again" in said
    assert "Traceback" not in said
    done = len(list((small_disk / "out" / "progress").glob("0*.json")))
    assert done < 12
    (small_disk / "other").unlink()
    room = subprocess.run(command, check=False, capture_output=True, text=True)
    assert room.returncode == 0, room.stderr
    assert json.loads(room.stdout)["prepared"] == 12
    assert len(Shards(small_disk / "out")) == 12
