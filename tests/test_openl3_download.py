"""Published weights come over the network once, whole and checked, whatever the connection does; a
real server serves them.
"""

import gzip
import hashlib
import http.server
import multiprocessing
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from keras_weights import write_keras
from looklisten.interop import openl3
from looklisten.interop.openl3 import download as room
from looklisten.interop.openl3.download import download, git_blob_id
from looklisten.interop.openl3.published import locate
from looklisten.interop.openl3.variants import BLOBS, variant_named

DATA = np.random.default_rng(0).bytes(700_000)
BLOB = hashlib.sha1(b"blob 700000\0" + DATA).hexdigest()
NAME = "openl3_audio_mel256_env-v0_4_0.h5.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.data`; `server.cut` lists after how many bytes each of the first answers ends;
    `server.ranges`: may go on.
    """

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        if server.ranges and (given := self.headers.get("Range")):
            start = int(re.fullmatch(r"bytes=(\d+)-", given)[1])
        if start >= len(server.data) > 0:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.data) - start))
        self.end_headers()
        stop = start + server.cut.pop(0) if server.cut else len(server.data)
        self.wfile.write(server.data[start:stop])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(room, "PAUSE_SECONDS", 0.01)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        one.data, one.cut, one.asked, one.ranges, one.status = DATA, [], [], True, 200
        one.url = f"http://127.0.0.1:{one.server_port}"
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        yield one
        one.shutdown()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_git_blob_id_is_gits(tmp_path):
    (tmp_path / "file").write_bytes(b"hello\n")
    assert (
        git_blob_id(tmp_path / "file") == "ce013625030ba8dba906f756967f9e9ca394464a"
    )  # git hash-object


def test_a_good_download_is_whole_and_alone_in_its_folder(server, tmp_path):
    told = []
    download(
        f"{server.url}/x", tmp_path / "x", BLOB, lambda done, total: told.append((done, total))
    )
    assert (tmp_path / "x").read_bytes() == DATA
    assert names(tmp_path) == ["x"]
    assert told


def test_a_connection_that_breaks_goes_on_where_it_stopped(server, tmp_path):
    server.cut = [200_000, 300_000]
    download(f"{server.url}/x", tmp_path / "x", BLOB)
    assert (tmp_path / "x").read_bytes() == DATA
    assert [given for _, given in server.asked] == [None, "bytes=200000-", "bytes=500000-"]


def test_a_server_that_cannot_go_on_is_asked_for_all(server, tmp_path):
    server.cut, server.ranges = [200_000], False
    download(f"{server.url}/x", tmp_path / "x", BLOB)
    assert (tmp_path / "x").read_bytes() == DATA


def test_one_that_keeps_breaking_is_an_error_and_the_next_call_goes_on(server, tmp_path):
    server.cut = [100_000] * room.ATTEMPTS
    with pytest.raises(
        openl3.OpenL3Error,
        match=r"the connection ended after 400,000 of 700,000 bytes\); run the same again",
    ):
        download(f"{server.url}/x", tmp_path / "x", BLOB)
    assert names(tmp_path) == ["x.part"]
    download(f"{server.url}/x", tmp_path / "x", BLOB)
    assert server.asked[-1][1] == "bytes=400000-"
    assert (tmp_path / "x").read_bytes() == DATA
    assert names(tmp_path) == ["x"]


def test_wrong_bytes_are_refused_and_not_kept(server, tmp_path):
    server.data = DATA[:-1] + b"?"
    with pytest.raises(
        openl3.OpenL3Error, match=r"not the published one .* nothing of it was kept"
    ):
        download(f"{server.url}/x", tmp_path / "x", BLOB)
    assert names(tmp_path) == []


@pytest.mark.parametrize("left", [b"?" * 5_000, b"?" * 700_000, DATA + b"more", DATA])
def test_a_half_that_does_not_fit_is_fetched_anew(server, tmp_path, left):
    (tmp_path / "x.part").write_bytes(left)
    download(f"{server.url}/x", tmp_path / "x", BLOB)
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_file_that_is_not_there_is_said_at_once(server, tmp_path):
    server.status = 404
    with pytest.raises(openl3.OpenL3Error, match="the server says 404"):
        download(f"{server.url}/x", tmp_path / "x", BLOB)
    assert len(server.asked) == 1


def test_a_server_in_trouble_is_asked_again(server, tmp_path):
    server.status = 503
    with pytest.raises(openl3.OpenL3Error, match="cannot be fetched"):
        download(f"{server.url}/x", tmp_path / "x", BLOB)
    assert len(server.asked) == room.ATTEMPTS


def test_nobody_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "PAUSE_SECONDS", 0.01)
    with pytest.raises(openl3.OpenL3Error, match=r"cannot be fetched .* or give the file by hand"):
        download("http://127.0.0.1:9/x", tmp_path / "x", BLOB)


def test_of_two_processes_one_fetches(server, tmp_path):
    context = multiprocessing.get_context("spawn")
    both = [
        context.Process(target=download, args=(f"{server.url}/x", tmp_path / "x", BLOB))
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [one.exitcode for one in both] == [0, 0]
    assert len(server.asked) == 1
    assert names(tmp_path) == ["x"]


# What is built on it.


@pytest.fixture
def cache(monkeypatch, tmp_path):
    for name in ("LOOKLISTEN_OFFLINE", "LOOKLISTEN_OPENL3_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOOKLISTEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openl3"


@pytest.fixture
def mirror(server, cache, monkeypatch, tmp_path):
    """A mirror of a network of random weights, whose blob id is taken for the published one."""
    packed = write_keras(tmp_path / NAME, 5, 1)
    server.data = packed.read_bytes()
    monkeypatch.setitem(BLOBS, "openl3_audio_mel256_env", git_blob_id(packed))
    monkeypatch.setenv("LOOKLISTEN_OPENL3_MIRROR", f"{server.url}/weights/")
    return server


def test_a_published_network_is_fetched_once_from_the_mirror(mirror, cache, monkeypatch):
    net = openl3.load("openl3:audio-mel256-env")
    assert [path for path, _ in mirror.asked] == [f"/weights/{NAME}"]
    assert names(cache) == [NAME]
    monkeypatch.setenv("LOOKLISTEN_OFFLINE", "1")  # what is in the cache needs no network
    again = openl3.models.load_audio_embedding_model("mel256", "env", 512)
    assert len(mirror.asked) == 1
    assert again.variant == net.variant


def test_a_damaged_cache_is_fetched_anew(mirror, cache):
    locate(variant_named("openl3:audio-mel256-env")).write_bytes(b"damaged")
    openl3.load("openl3:audio-mel256-env")
    assert len(mirror.asked) == 2


def test_without_the_network_it_says_where_to_put_the_file(mirror, cache, monkeypatch):
    monkeypatch.setenv("LOOKLISTEN_OFFLINE", "1")
    with pytest.raises(
        openl3.OpenL3Error,
        match=r"not in the cache .*, and LOOKLISTEN_OFFLINE forbids the network; unset it once, or put",
    ):
        openl3.load("openl3:audio-mel256-env")
    assert not mirror.asked


def test_the_published_ids_refuse_what_is_not_published(server, cache, monkeypatch):
    monkeypatch.setenv("LOOKLISTEN_OPENL3_MIRROR", server.url)
    with pytest.raises(openl3.OpenL3Error, match=r"git blob .*, not 34dbd7a91cdd"):
        openl3.load("openl3:audio-mel256-env")


def test_a_folder_of_weights_serves_too(tmp_path, cache, monkeypatch):
    packed = write_keras(tmp_path / NAME, 5, 1)
    kind = variant_named("openl3:audio-mel256-env")
    assert locate(kind, tmp_path) == packed
    (tmp_path / "openl3_audio_mel256_env.h5").write_bytes(gzip.decompress(packed.read_bytes()))
    assert locate(kind, tmp_path).name == "openl3_audio_mel256_env.h5"
    monkeypatch.setenv("LOOKLISTEN_OPENL3_MIRROR", str(tmp_path))
    assert locate(kind) == locate(kind, tmp_path)
    with pytest.raises(openl3.OpenL3Error, match=r"holds no openl3_audio_mel256_music\.h5 or "):
        locate(variant_named("openl3:audio-mel256-music"))
    with pytest.raises(openl3.OpenL3Error, match="is no address"):
        locate(kind, "ftp://host/weights")


def test_the_cache_is_the_systems_unless_told(monkeypatch, tmp_path):
    from looklisten.system.cache import cache_folder

    monkeypatch.delenv("LOOKLISTEN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "looklisten"
    monkeypatch.setenv("LOOKLISTEN_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == Path(tmp_path / "mine")
