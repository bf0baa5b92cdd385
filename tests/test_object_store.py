"""The table of the store `lance` in an object store: its writers, its owner and its errors."""

import shutil
import socket
import subprocess
import sys
import threading
import time

import lancedb
import pytest

import looklisten as ll
from killed_index import answers, general_network, killed_at, rows, write_media
from looklisten.app.cli import main
from looklisten.errors import OptionError, StoreError, StoreInUseError
from looklisten.search import lance_location
from looklisten.search.lance_location import LanceLocation, new_bucket_table
from looklisten.search.lance_store import LanceStore
from looklisten.search.opening import open_store
from looklisten.search.options import IndexOptions
from object_stores import KEY, SECRET, access_denied, new_bucket
from store_moments import SPACE, VECTORS, WIDTH, all_facts, facts, make_source
from store_writer import filled_sources
from test_store_crashes import expected_facts, kill_again_and_again

CHORDS = 8


@pytest.fixture
def address(monkeypatch):
    return new_bucket(monkeypatch)


def make_index(db, address):
    return open_store(db, SPACE, WIDTH, create=True, table=address)


def test_the_folder_keeps_what_is_small_and_no_key(tmp_path, address):
    with make_index(tmp_path / "db", address + "/") as store:
        store.add(make_source("a.mp4"))
        store.maintain()
        assert store.stats().disk_bytes > 3 * 2 * WIDTH * 4
    (only,) = (tmp_path / "db").iterdir()
    text = only.read_text()
    assert f'"address": "{address}"' in text
    assert KEY not in text
    assert SECRET not in text


def test_a_copy_of_the_folder_reads_what_is_written_later(tmp_path, address):
    with make_index(tmp_path / "db", address) as store:
        shutil.copytree(tmp_path / "db", tmp_path / "copy")
        store.add(make_source("a.mp4"))
        reader = open_store(tmp_path / "copy")
        assert all_facts(reader) == all_facts(store)
        best = reader.search(VECTORS[2], "audio", 3)
        assert [facts(each.moment) for each in best] == [
            facts(each.moment) for each in store.search(VECTORS[2], "audio", 3)
        ]


@pytest.mark.slow
def test_a_writer_killed_ten_times_leaves_whole_sources(tmp_path, address):
    kill_again_and_again(tmp_path / "db", address, kills=10, count=60)


def test_a_table_whose_making_was_killed_is_made_again(tmp_path, address):
    db = tmp_path / "db"
    LanceStore.make_table(LanceLocation(db, new_bucket_table(db, address)), WIDTH + 1)
    with make_index(db, address) as store:
        store.add(make_source("a.mp4"))
        assert store.stats().moments == 3


def test_the_table_of_another_index_is_refused(tmp_path, address):
    make_index(tmp_path / "db", address).close()
    with pytest.raises(
        StoreError, match=f"^{address} holds the moments of another index; give another address"
    ):
        make_index(tmp_path / "other", address)
    # What went wrong leaves no index and no lock.
    assert list((tmp_path / "other").iterdir()) == []
    with make_index(tmp_path / "db", None) as store:
        store.add(make_source("a.mp4"))
    # The folder is lost, and one of the same name begins anew.
    shutil.rmtree(tmp_path / "db")
    with pytest.raises(StoreError, match="holds the moments of another index"):
        make_index(tmp_path / "db", address)


def test_another_place_for_the_table_is_refused(tmp_path, address):
    make_index(tmp_path / "db", address).close()
    with pytest.raises(StoreError, match=f"has its table in {address}, not in s3://b/c; leave the"):
        make_index(tmp_path / "db", "s3://b/c")
    make_index(tmp_path / "local", None).close()
    with pytest.raises(StoreError, match=f"table in the folder itself, not in {address}"):
        make_index(tmp_path / "local", address)


def test_a_writer_with_a_copy_of_the_folder_is_noticed(tmp_path, address):
    make_index(tmp_path / "db", address).close()
    shutil.copytree(tmp_path / "db", tmp_path / "copy")
    with open_store(tmp_path / "db", create=True) as first:
        first.add(make_source("a.mp4"))
        with open_store(tmp_path / "copy", create=True) as second:
            second.add(make_source("b.mp4"))
            changes = [
                lambda: first.add(make_source("b.mp4")),
                lambda: first.remove_source("a.mp4"),
                first.maintain,
            ]
            for change in changes:
                with pytest.raises(
                    StoreInUseError, match=f"another process has written to {address} meanwhile"
                ):
                    change()
            second.add(make_source("c.mp4"))
        assert set(first.sources()) == {"a.mp4", "b.mp4", "c.mp4"}
    with open_store(tmp_path / "db", create=True) as first:
        first.add(make_source("b.mp4"))
        assert first.stats().moments == 9


def test_two_writers_at_once_leave_no_moment_twice(tmp_path, address):
    """Each adds all, until it notices the other one; then one of them finishes alone."""
    make_index(tmp_path / "0", address).close()
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    count = 12
    refused = []

    def add_all(db):
        with open_store(db, create=True) as store:
            known = store.sources()
            for source, seconds in filled_sources(count).items():
                if source not in known:
                    store.add(make_source(source, seconds))

    def add_all_or_stop(db):
        try:
            add_all(db)
        except StoreInUseError:
            refused.append(db)

    for _ in range(3):
        writers = [
            threading.Thread(target=add_all_or_stop, args=[tmp_path / name]) for name in "01"
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    add_all(tmp_path / "0")
    assert all_facts(open_store(tmp_path / "0")) == expected_facts(count)
    assert refused


@pytest.fixture
def no_repeats(monkeypatch):
    """An error comes at once; LanceDB repeats some requests all the same."""
    monkeypatch.setenv("OBJECT_STORE_CLIENT_MAX_RETRIES", "0")


def sentence_of(attempt):
    with pytest.raises(StoreError) as caught:
        attempt()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert KEY not in sentence
    assert len(sentence) < 300
    return sentence


def test_a_missing_bucket_is_told(tmp_path, address, no_repeats):
    sentence = sentence_of(lambda: make_index(tmp_path / "db", "s3://no-such-bucket/a"))
    assert sentence == (
        "s3://no-such-bucket/a cannot be used: there is no bucket no-such-bucket; make it, or "
        "correct the address"
    )
    # The next call may give another address.
    make_index(tmp_path / "db", address).close()


def test_missing_and_wrong_keys_are_told(tmp_path, address, no_repeats, monkeypatch):
    make_index(tmp_path / "db", address).close()
    with access_denied():
        sentence = sentence_of(lambda: open_store(tmp_path / "db"))
    assert f"{address} cannot be used: access was denied; see that the keys" in sentence
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    sentence = sentence_of(lambda: make_index(tmp_path / "new", address))
    assert "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS" in sentence
    assert list((tmp_path / "new").iterdir()) == []


def test_an_endpoint_where_nothing_is_is_told(tmp_path, address, no_repeats, monkeypatch):
    make_index(tmp_path / "db", address).close()
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    sentence = sentence_of(lambda: open_store(tmp_path / "db"))
    assert "cannot be used: no object store answered; see that the network is up" in sentence


def free_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def test_an_endpoint_that_never_answers_ends_in_time(tmp_path, address, monkeypatch):
    make_index(tmp_path / "db", address).close()
    monkeypatch.setattr(lance_location, "OPENING_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        for open_index in (
            lambda: open_store(tmp_path / "db"),
            lambda: make_index(tmp_path / "new", address),
        ):
            started = time.monotonic()
            with pytest.raises(StoreError, match="no object store answered within 1 s; see that"):
                open_index()
            assert time.monotonic() - started < 10


def test_a_table_that_went_is_told(tmp_path, address):
    with make_index(tmp_path / "db", address) as store:
        store.add(make_source("a.mp4"))
    lancedb.connect(address).drop_table("moments")
    with pytest.raises(StoreError, match=f"^{address} holds no table of moments any more; restore"):
        open_store(tmp_path / "db")


@pytest.mark.parametrize(
    ("table", "store", "problem"),
    [
        ("s3://bucket/a", "arrow", "is for the store lance: the store arrow maps local files"),
        ("/bucket/a", None, "must be the address of an object store, such as s3://bucket/path"),
        ("http://bucket/a", None, "must be the address of an object store"),
        ("s3://", "lance", "must be the address of an object store"),
        ("s3://[bucket/a", None, "must be the address of an object store"),
        ("s3://bucket//a", None, "must be the address of an object store"),
        ("s3://bucket/a\nb", None, "must be the address of an object store"),
        ("s3://bucket/\udcff", None, "must be the address of an object store"),
        ("s3://key:secret@bucket/a", None, "must be a bucket and a path alone; give keys in the"),
        ("s3://bucket/a?secret=1", None, "must be a bucket and a path alone"),
    ],
)
def test_an_address_that_no_table_has_is_wrong_usage(table, store, problem):
    with pytest.raises(OptionError, match=problem) as caught:
        IndexOptions(table=table, store=store)
    assert str(caught.value).startswith("table ")
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named(tmp_path, address):
    make = (
        "import sys; sys.modules['lancedb'] = None\n"
        "from looklisten.search.opening import open_store\n"
        f"open_store({str(tmp_path / 'db')!r}, 'net', 4, create=True, table={address!r})"
    )
    ended = subprocess.run([sys.executable, "-c", make], capture_output=True, text=True)
    assert f"{address} needs lancedb, for the store lance: pip install" in ended.stderr


def test_an_index_in_a_bucket_equals_one_on_the_disk(tmp_path, world, address, capsys):
    """With the parts of a job array, a kill, and a copy of the folder for the searches."""
    network = general_network(tmp_path)
    (tmp_path / "media").mkdir()
    media = write_media(tmp_path / "media", world, CHORDS)
    local, db = tmp_path / "local", tmp_path / "db"
    ll.index([media], local, network, device="cpu", store="lance")
    made = ("index", media, "--db", db, "--checkpoint", network, "--table", address)
    share = ("--task-index", "0", "--num-tasks", "2", "--device", "cpu")
    assert main([*map(str, made), *share]) == 0
    killed_at(2, *made)
    assert main([*map(str, made), "--device", "cpu"]) == 0
    assert not (db / "moments.lance").exists()
    assert rows(db) == rows(local)
    shutil.move(db, tmp_path / "moved")
    assert answers(tmp_path / "moved", media) == answers(local, media)
    capsys.readouterr()
    assert (
        main(["index", str(media), "--db", str(tmp_path / "moved"), "--checkpoint", network]) == 0
    )
    assert f'"unchanged": {CHORDS + 12}' in capsys.readouterr().out
