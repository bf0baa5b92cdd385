"""`index` and `tag` that are killed, that have company, and that run out of space, for real."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
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
from looklisten.search.opening import open_store

CHORDS = 60


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return general_network(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def media(world, tmp_path_factory):
    return write_media(tmp_path_factory.mktemp("media"), world, CHORDS)


@pytest.fixture(scope="module", params=KINDS)
def whole(request, media, network, tmp_path_factory):
    """An index of the media that nothing interrupted."""
    if request.param == "lance":
        pytest.importorskip("lancedb")
    db = tmp_path_factory.mktemp("whole") / "index"
    ll.index([media], db, network, device="cpu", store=request.param)
    return db


def kind_of(db):
    return json.loads((db / "index.json").read_text())["store"]


def index_command(media, db, network, kind):
    command = [sys.executable, "-m", "looklisten", "index", str(media), "--db", str(db)]
    return [*command, "--checkpoint", network, "--device", "cpu", "--store", kind]


def started(command):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def committed(db):
    """How many sources this and earlier runs have written down as committed."""
    path = db / "seen.jsonl"
    return path.read_text().count('"video_id"') if path.exists() else 0


def wait_for_a_commit(process, db, before):
    while committed(db) <= before:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)


@pytest.mark.slow
def test_an_index_killed_ten_times_equals_one_that_was_not(whole, media, network, tmp_path):
    db = tmp_path / "db"
    command = index_command(media, db, network, kind_of(whole))
    delays = random.Random(5)
    counts = []
    for _ in range(10):
        process = started(command)
        wait_for_a_commit(process, db, committed(db))
        time.sleep(delays.uniform(0, 0.1))
        process.kill()
        process.communicate()
        with open_store(db) as store:
            counts.append(len(store.sources()))
    assert counts[-1] < CHORDS + 12, "every kill was in the middle"
    assert counts == sorted(counts)
    # A kill may come between a commit and its line, which the next run then writes first.
    assert len(set(counts)) > 5
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    assert rows(db) == rows(whole)
    assert answers(db, media) == answers(whole, media)
    assert thumbnails(db) == thumbnails(whole)


@pytest.mark.slow
def test_a_second_process_is_refused_while_the_first_one_indexes(whole, media, network, tmp_path):
    db = tmp_path / "db"
    command = index_command(media, db, network, kind_of(whole))
    first = started(command)
    wait_for_a_commit(first, db, 0)
    # It stays at work, however slow the second one is.
    first.send_signal(signal.SIGSTOP)
    second = subprocess.run(command, capture_output=True, text=True)
    first.send_signal(signal.SIGCONT)
    first.communicate()
    assert (first.returncode, second.returncode) == (0, 1)
    sentence = " ".join(second.stderr.split())
    assert f"is being written by process {first.pid}" in sentence
    assert rows(db) == rows(whole)


@pytest.mark.slow
def test_processes_that_start_at_once_make_one_index(whole, media, network, tmp_path):
    db = tmp_path / "db"
    processes = [started(index_command(media, db, network, kind_of(whole))) for _ in range(3)]
    outcomes = [(process.communicate()[1], process.returncode) for process in processes]
    assert any(code == 0 for _, code in outcomes)
    for errors, code in outcomes:
        assert code == 0 or "is being written by" in " ".join(errors.split())
    assert rows(db) == rows(whole)


def test_a_kill_after_the_last_commit_changes_no_answer(whole, media, network, tmp_path):
    """The scores are fitted then; without them the next run would have nothing to do."""
    db = tmp_path / "db"
    store = ("--store", kind_of(whole))
    killed_at("maintain", "index", media, "--db", db, "--checkpoint", network, *store)
    assert rows(db) == rows(whole)
    result = ll.index([media], db, network, device="cpu")
    assert (result.indexed, result.unchanged) == (0, CHORDS + 12)
    assert answers(db, media) == answers(whole, media)


def tag_examples(folder, classes):
    for name, numbers in classes.items():
        (folder / name).mkdir(parents=True)
        for number in numbers:
            write_chord(folder / name / f"{number}.wav", number)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "db")
    return tmp_path / "db"


def tags_of(db):
    with open_store(db) as store:
        return store.tags()


def test_a_removal_of_tags_that_was_killed_is_finished_by_the_next_one(
    whole, copy, tmp_path, capsys
):
    examples = tag_examples(tmp_path / "examples", {"low": (1, 2, 3), "high": (4, 5, 6)})
    ll.tag_index(copy, examples, "pitch", device="cpu")
    assert tags_of(copy) == ["high", "low"]
    for commits in (0, 2):
        killed_at(commits, "tag", copy, "--remove", "pitch")
    assert tags_of(copy), "some moments still have a tag"
    assert main(["tag", str(copy), "--remove", "pitch"]) == 0
    assert "pitch" in capsys.readouterr().out
    assert rows(copy) == rows(whole)


def test_tags_of_a_set_that_is_replaced_go_after_a_kill(copy, tmp_path):
    first = tag_examples(tmp_path / "first", {"low": (1, 2, 3), "high": (4, 5, 6)})
    second = tag_examples(tmp_path / "second", {"other": (1, 2, 3), "another": (4, 5, 6)})
    ll.tag_index(copy, first, "own", device="cpu")
    killed_at(2, "tag", copy, second)
    assert {"low", "high"} & set(tags_of(copy)), "killed in the middle"
    ll.tag_index(copy, second, "own", device="cpu")
    assert tags_of(copy) == ["another", "other"]


SMALL_DISK = """
set -e
mount -t tmpfs -o size=8m tmpfs "$1"
cp -r "$2" "$1/db"
# All but a little is taken.
free=$(df --output=avail -k "$1" | tail -1)
head -c $(( (free - $3) * 1024 )) /dev/zero > "$1/filler"
shift 3
status=0
"$@" || status=$?
rm "$SMALL/filler"
cp -r "$SMALL/db" "$SMALL.after"
exit $status
"""


@pytest.mark.slow
@pytest.mark.parametrize("free_kilobytes", [16, 300])
def test_a_full_disk_leaves_the_old_index_whole(
    whole, media, network, world, tmp_path, free_kilobytes
):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs a file system of its own")
    more = tmp_path / "more"
    more.mkdir()
    for number in range(40):
        write_chord(more / f"more {number}.wav", 1_000 + number, seconds=20.0)
    for path in sorted(world.rglob("*.mp4"))[20:32]:
        shutil.copy(path, more)
    small, old = tmp_path / "small", tmp_path / "old"
    small.mkdir()
    shutil.copytree(whole, old)
    command = index_command(more, small / "db", network, kind_of(whole))
    shell = ["unshare", "-rm", "bash", "-c", SMALL_DISK, "bash"]
    ended = subprocess.run(
        [*shell, str(small), str(old), str(free_kilobytes), *command],
        env=os.environ | {"SMALL": str(small)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1, ended.stderr
    sentence = " ".join(ended.stderr.split())
    assert "free some space and run the same command again" in sentence
    after = Path(f"{small}.after")
    kept = [row for row in rows(after) if not row[0].startswith(str(more))]
    assert kept == rows(whole)
    # What was added before the disk was full is whole too, and the next run adds the rest.
    ll.index([more], after, network, device="cpu")
    ll.index([more], old, network, device="cpu")
    assert rows(after) == rows(old)
    assert answers(after, media) == answers(old, media)
