"""Many machines, or one: job arrays, a Ray cluster, and places that only fsspec reaches give the
same shards.
"""

import hashlib
import json
import subprocess
import sys

import fsspec
import pytest

from conftest import write_clock_video
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from ray_clusters import losing_a_node, no_other_cluster


def digest(folder):
    return {
        f.name: hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.iterdir())
        if f.is_file()
    }


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    prepare([world / "labels.csv"], out)
    return out


def test_a_job_array_of_four_gives_what_one_process_gives(world, alone, tmp_path):
    command = [
        sys.executable,
        "-m",
        "looklisten",
        "prepare",
        str(world / "labels.csv"),
        str(tmp_path),
        "--num-tasks",
        "4",
        "--workers",
        "1",
    ]
    tasks = [
        subprocess.Popen([*command, "--task-index", str(i)], stdout=subprocess.PIPE, text=True)
        for i in range(4)
    ]
    said = [json.loads(task.communicate()[0]) for task in tasks]
    assert [task.returncode for task in tasks] == [0] * 4
    assert digest(tmp_path) == digest(alone)
    assert sum("batches_of_other_tasks" in one for one in said) <= 3, (
        "the last to finish writes the index"
    )


def test_a_task_alone_does_its_share_and_no_index(world, tmp_path):
    result = prepare([world / "labels.csv"], tmp_path, task_index=1, num_tasks=4)
    assert result["batches"] == result["prepared"] == 12
    assert result["batches_of_other_tasks"] == 36
    assert not (tmp_path / "index.json").exists()
    with pytest.raises(ConfigError, match="task 4 of 4 does not exist"):
        prepare([world / "labels.csv"], tmp_path, task_index=4, num_tasks=4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_ray_cluster_that_loses_a_node_gives_what_one_process_gives(
    world, alone, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

    def is_time():
        return len(list((tmp_path / "out" / "progress").glob("0*.json"))) >= 8

    with losing_a_node(is_time):
        # The nodes work in another folder, where this name means another one.
        monkeypatch.chdir(tmp_path)
        result = prepare([world / "labels.csv"], "out", engine="ray")
    assert result["prepared"] == 48
    assert digest(tmp_path / "out") == digest(alone)


@pytest.mark.filterwarnings("ignore")
def test_without_a_cluster_ray_is_refused_in_a_sentence(world, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    refused = pytest.raises(
        ConfigError, match=r"no Ray cluster is running here; start one with `ray start --head`"
    )
    with no_other_cluster(), refused:
        prepare([world / "labels.csv"], tmp_path, engine="ray")


def test_from_a_remote_place_to_a_remote_place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    (tmp_path / "videos").mkdir()
    for number in range(3):
        write_clock_video(tmp_path / "videos" / f"{number}.mp4", seconds=1.5)
        memory.put_file(str(tmp_path / "videos" / f"{number}.mp4"), f"/videos/{number}.mp4")
    memory.pipe("/videos/table.csv", b"path,label\n0.mp4,a\n1.mp4,a\n2.mp4,b\ngone.mp4,b\n")
    try:
        result = prepare(["memory://videos/table.csv"], "memory://shards/set")
        assert (result["sources"], result["prepared"], result["failed"]) == (4, 3, 1)
        (failure,) = map(json.loads, memory.cat("/shards/set/failures.jsonl").splitlines())
        assert failure["stage"] == "fetch"
        assert failure["reason"].startswith("it cannot be fetched: FileNotFoundError")
        again = prepare(["memory://videos/table.csv"], "memory://shards/set")
        assert again["x_realtime"] == 0.0, "what is done is not done again"
        shards = Shards("memory://shards/set")
        prepare([tmp_path / "videos"], tmp_path / "here")
        assert [bytes(clip.waveform) for clip in shards] == [
            bytes(clip.waveform) for clip in Shards(tmp_path / "here")
        ]
        assert shards.labels == [("a",), ("a",), ("b",)]
    finally:
        memory.rm("/videos", recursive=True)
        memory.rm("/shards", recursive=True)
