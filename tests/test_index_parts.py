"""A job array of `index`: each task makes a part, and the last call takes all parts in."""

import json
import shutil
from pathlib import Path

import pytest

import looklisten as ll
from killed_index import (
    KINDS,
    answers,
    general_network,
    killed_at,
    rows,
    thumbnails,
    write_chord,
    write_media,
)
from looklisten.app.cli import main
from looklisten.data.plan import TaskShare
from looklisten.errors import ConfigError, OptionError, StoreError
from looklisten.search.indexing.parts import part_folder, share_of
from looklisten.search.opening import open_store
from ray_clusters import losing_a_node, no_other_cluster

TASKS = 3


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return general_network(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def media(world, tmp_path_factory):
    """Videos and sounds, copies of one, and a file that is no media."""
    folder = write_media(tmp_path_factory.mktemp("media"), world, 12)
    for number in range(6):
        shutil.copy(folder / "chord 05.wav", folder / f"copy {number}.wav")
    (folder / "broken.mp3").write_text("Dear all")
    return folder


@pytest.fixture(scope="module", params=KINDS)
def whole(request, media, network, tmp_path_factory):
    """An index that one process made."""
    if request.param == "lance":
        pytest.importorskip("lancedb")
    db = tmp_path_factory.mktemp("whole") / "index"
    ll.index([media], db, network, device="cpu", store=request.param)
    return db


def run_tasks(media, db, network, tasks=range(TASKS)):
    return [
        ll.index([media], db, network, device="cpu", task_index=task, num_tasks=TASKS)
        for task in tasks
    ]


def assert_equal(db, whole, media):
    assert rows_but_copies(db) == rows_but_copies(whole)
    for found, in_whole in zip(answers(db, media), answers(whole, media), strict=True):
        assert [score for *_, score in found] == [score for *_, score in in_whole]
    assert thumbnails(db) == thumbnails(whole)
    failures = [json.loads(line) for line in (db / "failures.jsonl").read_text().splitlines()]
    assert [line["source"] for line in failures] == [str(media / "broken.mp3")]
    assert not any((db / "parts").glob("*"))


def rows_but_copies(db):
    """All rows, without the names of the file that has copies.

    Of equal files the index has the one that came first, which depends on the tasks.
    """
    kept = []
    for source, seconds, moment_id, *facts in rows(db):
        is_copied = Path(source).name.startswith(("chord 05", "copy"))
        kept.append(
            ("", seconds, "", *facts) if is_copied else (source, seconds, moment_id, *facts)
        )
    return sorted(kept, key=lambda row: row[:2])


def test_a_source_always_falls_to_the_same_task():
    """Otherwise a task that is run again with another version would not continue its part."""
    names = [f"/videos/{number}.mp4" for number in range(8)]
    assert [share_of(name, 3).task_index for name in names] == [0, 2, 2, 0, 0, 1, 1, 2]


def test_the_parts_of_all_tasks_are_one_index(whole, media, network, tmp_path):
    db = tmp_path / "db"
    done = run_tasks(media, db, network)
    assert sum(each.sources for each in done) == 31
    assert all(each.indexed for each in done), "every task has some"
    with pytest.raises(StoreError, match="holds no index"):
        ll.open_index(db)
    kind = json.loads((whole / "index.json").read_text())["store"]
    result = ll.index([media], db, network, device="cpu", store=kind)
    assert (result.indexed, result.taken_in, result.unchanged, result.copies) == (0, 24, 24, 6)
    assert_equal(db, whole, media)
    again = ll.index([media], db, network, device="cpu")
    assert (again.indexed, again.taken_in, again.unchanged) == (0, 0, 24)


def test_tasks_add_to_an_index_and_change_nothing_before_the_last_call(
    whole, media, network, tmp_path
):
    db, more = tmp_path / "db", tmp_path / "more"
    shutil.copytree(whole, db)
    more.mkdir()
    for number in range(6):
        write_chord(more / f"more {number}.wav", 100 + number)
    run_tasks(more, db, network)
    assert rows(db) == rows(whole)
    result = ll.index([more], db, network, device="cpu")
    assert (result.taken_in, result.indexed) == (6, 0)
    kept = [row for row in rows(db) if not row[0].startswith(str(more))]
    assert kept == rows(whole) and len(rows(db)) == len(kept) + 6


def test_tasks_leave_out_what_the_index_holds(whole, media, network, tmp_path):
    db = tmp_path / "db"
    shutil.copytree(whole, db)
    new = media / "new.wav"
    write_chord(new, 200)
    try:
        done = run_tasks(media, db, network)
        result = ll.index([media], db, network, device="cpu")
    finally:
        new.unlink()
    assert sum(each.indexed for each in done) == 1
    assert (result.taken_in, result.indexed, result.unchanged) == (1, 0, 25)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_ray_cluster_that_loses_a_node_gives_the_index_of_one_process(
    whole, media, network, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    kind = json.loads((whole / "index.json").read_text())["store"]

    def is_time():
        return len(list((tmp_path / "db" / "parts").glob("*/thumbnails/*/*"))) >= 3

    with losing_a_node(is_time):
        # The nodes work in another folder, where this name means another one.
        monkeypatch.chdir(tmp_path)
        result = ll.index([media], "db", network, device="cpu", store=kind, engine="ray")
    assert (result.indexed, result.taken_in, result.copies) == (0, 24, 6)
    assert_equal(tmp_path / "db", whole, media)


@pytest.mark.filterwarnings("ignore")
def test_without_a_cluster_ray_is_refused_in_a_sentence(media, network, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    refused = pytest.raises(ConfigError, match="no Ray cluster is running here; start one with")
    with no_other_cluster(), refused:
        ll.index([media], tmp_path / "db", network, device="cpu", engine="ray")
    with pytest.raises(OptionError, match="task_index is for job arrays"):
        ll.index([media], tmp_path / "db", network, engine="ray", task_index=0)


@pytest.mark.slow
def test_a_killed_task_and_a_killed_last_call_change_nothing(whole, media, network, tmp_path):
    db = tmp_path / "db"
    kind = json.loads((whole / "index.json").read_text())["store"]
    command = ["index", media, "--db", db, "--checkpoint", network]
    killed_at(2, *command, "--task-index", 1, "--num-tasks", TASKS)
    killed_at(0, *command, "--task-index", 2, "--num-tasks", TASKS)
    run_tasks(media, db, network)
    for commit in (0, 1, 3):
        killed_at(commit, *command, "--store", kind)
    ll.index([media], db, network, device="cpu")
    assert_equal(db, whole, media)


def test_what_no_task_did_the_last_call_does(whole, media, network, tmp_path):
    db = tmp_path / "db"
    kind = json.loads((whole / "index.json").read_text())["store"]
    (done,) = run_tasks(media, db, network, [1])
    result = ll.index([media], db, network, device="cpu", store=kind)
    assert result.taken_in == done.indexed and result.indexed == 24 - done.indexed
    assert_equal(db, whole, media)


def test_parts_that_cannot_be_taken_in_get_a_sentence(media, network, tmp_path, capsys):
    db = tmp_path / "db"
    share = TaskShare(1, TASKS)
    part = part_folder(db, share)
    run_tasks(media, db, network, [1])
    with open_store(part, create=True), pytest.raises(StoreError, match="is being written"):
        ll.index([media], db, network, device="cpu")
    with pytest.raises(ConfigError, match=r"has a moment every 1 s, not every 2 s"):
        ll.index([media], db, network, device="cpu", every_seconds=2.0)
    with pytest.raises(OptionError, match="task 3 of 3 does not exist"):
        run_tasks(media, db, network, [3])
    assert main(["index", str(media), "--db", str(db), "--num-tasks", "2"]) == 2
    assert "--num-tasks needs --task-index" in capsys.readouterr().err


def test_a_call_with_a_number_of_tasks_and_no_task_is_refused(media, network, tmp_path):
    with pytest.raises(OptionError, match="num_tasks needs task_index"):
        ll.index([media], tmp_path / "db", network, device="cpu", num_tasks=5)
    with pytest.raises(OptionError, match="num_tasks needs task_index"):
        ll.prepare([media], tmp_path / "shards", num_tasks=5)


def test_a_file_that_ended_early_is_told_until_it_is_whole(network, tmp_path):
    media, db = tmp_path / "media", tmp_path / "db"
    media.mkdir()
    sound = media / "chord.wav"
    write_chord(sound, 0)
    whole = sound.read_bytes()
    sound.write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        result = ll.index([media], db, network, device="cpu")
        (line,) = (db / "failures.jsonl").read_text().splitlines()
        assert "what came before is indexed" in line
        assert result.failed == 1
    assert result.unchanged == 1
    sound.write_bytes(whole)
    assert ll.index([media], db, network, device="cpu").failed == 0
    assert not (db / "failures.jsonl").read_text()
