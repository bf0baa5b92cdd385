"""Stores whose writer is killed, has no space, or has company; and files that are damaged."""

import contextlib
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from looklisten.errors import StoreError
from looklisten.search.opening import open_store
from store_moments import SPACE, VECTORS, WIDTH, all_facts, facts, make_source
from store_writer import filled_sources

KINDS = ["arrow", "lance"]
WRITER = Path(__file__).with_name("store_writer.py")


@contextlib.contextmanager
def writer(*arguments):
    """A writing process that has the lock; waited for at the end."""
    command = [sys.executable, str(WRITER), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        yield process


def expected_facts(count):
    rows = [
        moment
        for source, seconds in filled_sources(count).items()
        for moment in make_source(source, seconds)
    ]
    return sorted(map(facts, rows), key=lambda row: row[:2])


def kill_again_and_again(db, kind, kills, count):
    """Kill the writer at a random time, `kills` times, and then let it finish."""
    times = random.Random(7)
    for _ in range(kills):
        with writer("fill", db, kind, count) as process:
            time.sleep(times.uniform(0, 0.2))
            process.kill()
        with contextlib.suppress(StoreError), open_store(db) as store:
            # A reader never sees a part of a source.
            for source in store.sources():
                where = f"source = '{source}'"
                assert len(list(store.moments(where))) == filled_sources(count)[source]
    with writer("fill", db, kind, count) as process:
        pass
    assert process.returncode == 0
    with open_store(db) as store:
        assert all_facts(store) == expected_facts(count)
        assert store.stats().moments == len(expected_facts(count))


def test_a_killed_writer_of_arrow_leaves_whole_sources(tmp_path):
    kill_again_and_again(tmp_path / "db", "arrow", kills=10, count=60)
    fragments = json.loads((tmp_path / "db" / "index.json").read_text())["fragments"]
    on_disk = {path.name for path in (tmp_path / "db" / "fragments").iterdir()}
    assert on_disk == {fragment["name"] for fragment in fragments}, "nothing else is left"


def test_a_killed_writer_of_lance_leaves_whole_sources(tmp_path):
    kill_again_and_again(tmp_path / "db", "lance", kills=1, count=20)


@pytest.mark.slow
def test_a_writer_of_lance_killed_ten_times_leaves_whole_sources(tmp_path):
    kill_again_and_again(tmp_path / "db", "lance", kills=10, count=60)


def make_db(db, kind, sources=("a.mp4", "b.mp4")):
    with open_store(db, SPACE, WIDTH, kind, create=True) as store:
        for source in sources:
            store.add(make_source(source))
    return all_facts(store)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path, kind):
    before = make_db(tmp_path / "db", kind)
    with open_store(tmp_path / "db", SPACE, WIDTH, create=True):
        with pytest.raises(
            StoreError, match=r"db is being written by process \d+ on .*; wait for it, stop it"
        ):
            open_store(tmp_path / "db", SPACE, WIDTH, create=True)
        reader = open_store(tmp_path / "db")
        assert all_facts(reader) == before
        with pytest.raises(StoreError, match="is being written by"):
            reader.add(make_source("c.mp4"))
    reader.add(make_source("c.mp4"))
    assert set(reader.sources()) == {"a.mp4", "b.mp4", "c.mp4"}
    reader.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_sees_whole_commits(tmp_path, kind):
    db = tmp_path / "db"
    make_db(db, kind, ["a.mp4"])
    reader = open_store(db)
    versions = set()
    with writer("replace", db, 0.7) as process:
        while process.poll() is None:
            rows = list(reader.moments())
            digests = {row.source_digest for row in rows}
            assert len(digests) == 1, "an old and a new version of a source at once"
            digest = digests.pop()
            versions.add(digest)
            number = int(digest.removeprefix("digest ")) if digest != "d0" else 2
            assert len(rows) == 1 + number % 5
            found = reader.search(VECTORS[0], "vision", 10)
            assert len({each.moment.source_digest for each in found}) == 1
    assert process.returncode == 0
    assert len(versions) > 3


@contextlib.contextmanager
def largest_file(size):
    """No file of this process can grow beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_a_full_disk_leaves_the_index_whole(tmp_path, kind, size):
    db = tmp_path / "db"
    before = make_db(db, kind)
    with open_store(db, SPACE, WIDTH, create=True) as store:
        with (
            largest_file(size),
            pytest.raises(
                StoreError,
                match=r"db could not be written \(File too large.*\); the index is as it was "
                "before; free some space and run the same command again",
            ),
        ):
            store.add(make_source("long.mp4", 3000))
        assert all_facts(store) == before
        store.add(make_source("c.mp4"))
    assert set(open_store(db).sources()) == {"a.mp4", "b.mp4", "c.mp4"}


def damaged_copies(db, folder):
    """Copies of an index, each with one damaged file."""
    damages = {
        "removed": lambda path: path.unlink(),
        "empty": lambda path: path.write_bytes(b""),
        "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        "noise": lambda path: path.write_bytes(random.Random(1).randbytes(path.stat().st_size)),
    }
    files = [path.relative_to(db) for path in db.rglob("*") if path.is_file()]
    for name, damage in damages.items():
        for file in files:
            copy = folder / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(db, copy)
            damage(copy / file)
            yield f"{name} {file}", copy


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_give_one_sentence_or_the_right_answer(tmp_path, kind):
    db = tmp_path / "db"
    before = make_db(db, kind)
    with open_store(db) as store:
        # One version of the table is enough, and is quicker to try.
        store.maintain()
    sentences = 0
    for name, copy in damaged_copies(db, tmp_path):
        try:
            store = open_store(copy)
            store.search(VECTORS[0], "vision", 3)
            store.tags()
            rows = all_facts(store)
        except StoreError as error:
            sentences += 1
            assert "\n" not in str(error), name
            assert "damaged" in str(error) or "holds no index" in str(error), name
            continue
        # Random numbers are as good vectors as others, so raw vectors are not checked.
        if not (name.startswith("noise") and name.endswith(".f32")):
            assert rows == before, name
    assert sentences > 5
