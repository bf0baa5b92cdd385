"""Files of other publishers are downloaded once, complete and checked. A real HTTP server."""

import hashlib
import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from file_server import DATA, file_server
from looklisten.errors import PublishedFileError
from looklisten.system.published_files import (
    GIT_BLOB,
    PublishedFile,
    download_file,
    file_digest,
    has_digest,
    is_local,
    locate_file,
)


@pytest.fixture
def server():
    with file_server() as server:
        yield server


@pytest.fixture
def cache(monkeypatch, tmp_path):
    for name in ("LOOKLISTEN_OFFLINE", "LOOKLISTEN_TEST_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOOKLISTEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "networks"


def published(address="http://127.0.0.1:9/", **changes):
    settings = {
        "name": "network.bin",
        "title": "a network",
        "address": address,
        "digest": f"sha256:{hashlib.sha256(DATA).hexdigest()}",
        "size_mb": 0.7,
        "license": "Apache-2.0",
        "cache_name": "networks",
        "mirror_variable": "LOOKLISTEN_TEST_MIRROR",
    }
    return PublishedFile(**settings | changes)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_git_blob_id_is_that_of_git(tmp_path):
    (tmp_path / "file").write_bytes(b"hello\n")
    # What `git hash-object` prints.
    blob_id = f"{GIT_BLOB}:ce013625030ba8dba906f756967f9e9ca394464a"
    assert file_digest(tmp_path / "file", GIT_BLOB) == blob_id
    assert has_digest(tmp_path / "file", blob_id)
    assert not has_digest(tmp_path / "file", published().digest)


def test_a_download_is_complete_and_leaves_no_other_file(server, tmp_path):
    download_file(f"{server.url}/x", tmp_path / "cache" / "x", published())
    assert (tmp_path / "cache" / "x").read_bytes() == DATA
    assert names(tmp_path / "cache") == ["x"]


@pytest.mark.parametrize("sent_bytes", [0, 200_000])
def test_an_interrupted_download_leaves_no_file(server, tmp_path, sent_bytes):
    server.sent_bytes = sent_bytes
    with pytest.raises(PublishedFileError):
        download_file(f"{server.url}/x", tmp_path / "x", published())
    assert names(tmp_path) == []
    server.sent_bytes = None
    download_file(f"{server.url}/x", tmp_path / "x", published())
    assert (tmp_path / "x").read_bytes() == DATA


def test_wrong_bytes_are_refused_and_not_kept(server, tmp_path):
    server.data = DATA[:-1] + b"?"
    with pytest.raises(
        PublishedFileError, match=r"not the published one .* nothing of it was kept"
    ):
        download_file(f"{server.url}/x", tmp_path / "x", published())
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [404, 503])
def test_the_error_names_the_status_of_the_server(server, tmp_path, status):
    server.status = status
    with pytest.raises(PublishedFileError, match=f"the server says {status}"):
        download_file(f"{server.url}/x", tmp_path / "x", published())
    assert len(server.paths) == 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x", "http://[no/x", "http://a host/x"])
def test_a_server_that_cannot_be_asked_is_an_error(tmp_path, address):
    with pytest.raises(PublishedFileError, match=r"cannot be downloaded .* LOOKLISTEN_TEST_MIRROR"):
        download_file(address, tmp_path / "x", published())


def test_a_connection_that_ends_early_or_stops_sending_is_named(server, tmp_path):
    server.sent_bytes = 200_000
    with pytest.raises(PublishedFileError, match="ended after 200000 of 700000 bytes"):
        download_file(f"{server.url}/x", tmp_path / "x", published())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(PublishedFileError, match=r"cannot be downloaded \(.*timed out"):
            download_file(address, tmp_path / "x", published(), timeout_seconds=0.1)
    assert names(tmp_path) == []


def test_a_server_that_sends_far_too_much_is_left(server, tmp_path):
    with pytest.raises(PublishedFileError, match=r"cannot be downloaded \(it sends more than 0\.2"):
        download_file(f"{server.url}/x", tmp_path / "x", published(size_mb=0.1))
    assert names(tmp_path) == []


def test_a_server_that_sends_slowly_without_an_end_is_left(server, tmp_path):
    server.piece_bytes, server.pause_seconds, server.sent_bytes = 1, 0.02, 300
    file = published(size_mb=0.002)  # 0.1 s at the slowest rate
    with pytest.raises(PublishedFileError, match=r"\(it sent \d+ bytes in 0\.3 s\)"):
        download_file(f"{server.url}/x", tmp_path / "x", file, timeout_seconds=0.2)
    assert names(tmp_path) == []


def test_a_download_is_announced_and_removes_what_a_killed_one_left(server, cache, caplog):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = cache / f".aside-{platform.node().replace('-', '_')}-{ended.pid}-abc"
    left.mkdir(parents=True)
    (left / "network.bin").write_bytes(DATA[:1000])
    # A program of a user sets no level of the log.
    with caplog.at_level("WARNING", logger="looklisten"):
        locate_file(published(server.url.replace("http://", "HTTP://")))
    (line,) = caplog.messages
    assert line.startswith("downloading the weights of a network once (1 MB), from HTTP://")
    assert str(cache) in line
    assert names(cache) == ["network.bin"]


AS_NOBODY = """
from looklisten.app.cli import main
from looklisten.errors import PublishedFileError
from looklisten.system.published_files import is_local, locate_file
from test_published_files import published
assert not is_local(published())
try:
    locate_file(published())
except PublishedFileError as error:
    print(error)
main(["models", "--json"])
"""


def test_a_cache_that_may_not_be_read_is_one_sentence(cache):
    cache.mkdir(parents=True)
    cache.parent.chmod(0)
    command = [sys.executable, "-c", AS_NOBODY]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("no program setpriv")
        command = [
            *("setpriv", "--bounding-set", "-dac_override,-dac_read_search"),
            *("--inh-caps", "-all", *command),
        ]
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "src")]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    cache.parent.chmod(0o700)
    assert done.returncode == 0, done.stderr
    sentence, _, listing = done.stdout.partition("\n")
    assert f"{cache / 'network.bin'} cannot be read or written (Permission denied)" in sentence
    assert "yamnet" in listing


def test_a_folder_in_place_of_the_file_is_named(server, cache):
    (cache / "network.bin").mkdir(parents=True)
    assert not is_local(published())
    with pytest.raises(PublishedFileError, match="is a folder where a file should be"):
        locate_file(published(server.url))


def test_a_mirror_with_a_typing_error_is_named(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("LOOKLISTEN_TEST_MIRROR", str(tmp_path / "weigths"))
    with pytest.raises(
        PublishedFileError, match=r"weigths does not exist.*correct LOOKLISTEN_TEST"
    ):
        locate_file(published())


def test_a_file_in_the_folder_of_the_mirror_is_local(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("LOOKLISTEN_TEST_MIRROR", str(tmp_path))
    assert not is_local(published())
    (tmp_path / "network.bin").write_bytes(DATA)
    assert is_local(published())


def test_a_file_is_downloaded_once_and_again_if_it_is_damaged(server, cache, monkeypatch):
    file = published(f"{server.url}/files/")
    assert not is_local(file)
    assert locate_file(file) == cache / "network.bin"
    assert is_local(file)
    monkeypatch.setenv("LOOKLISTEN_OFFLINE", "1")  # a file in the cache needs no network
    assert locate_file(file).read_bytes() == DATA
    assert server.paths == ["/files/network.bin"]
    monkeypatch.delenv("LOOKLISTEN_OFFLINE")
    (cache / "network.bin").write_bytes(b"damaged")
    assert locate_file(file).read_bytes() == DATA
    assert len(server.paths) == 2


def test_the_offline_error_says_where_to_put_the_file(server, cache, monkeypatch):
    monkeypatch.setenv("LOOKLISTEN_OFFLINE", "1")
    sentence = r"a network are not in the cache .*networks, and LOOKLISTEN_OFFLINE forbids"
    with pytest.raises(PublishedFileError, match=sentence):
        locate_file(published(server.url))
    assert not server.paths


def test_a_mirror_is_an_address_a_folder_or_a_file(server, cache, monkeypatch, tmp_path):
    monkeypatch.setenv("LOOKLISTEN_TEST_MIRROR", f"{server.url}/mirror")
    assert locate_file(published()).read_bytes() == DATA
    assert server.paths == ["/mirror/network.bin"]
    folder = tmp_path / "by hand"
    folder.mkdir()
    file = published(local_names=("short.bin",))
    with pytest.raises(PublishedFileError, match=r"by hand holds no short\.bin or network\.bin"):
        locate_file(file, folder)
    (folder / "network.bin").write_bytes(DATA)
    assert locate_file(file, folder) == folder / "network.bin"
    (folder / "short.bin").write_bytes(DATA)
    monkeypatch.setenv("LOOKLISTEN_TEST_MIRROR", str(folder))
    assert locate_file(file) == folder / "short.bin"
    assert locate_file(file, folder / "network.bin") == folder / "network.bin"
    with pytest.raises(PublishedFileError, match="is no address"):
        locate_file(file, "ftp://host/weights")


def test_an_installed_package_that_contains_the_file_is_used(cache, monkeypatch, tmp_path):
    package = tmp_path / "site" / "weights_for_a_test"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models" / "network.bin").write_bytes(DATA)
    file = published(installed_in=("weights_for_a_test", "models/network.bin"))
    with pytest.raises(PublishedFileError, match="cannot be downloaded"):
        locate_file(file)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert locate_file(file) == package / "models" / "network.bin"
