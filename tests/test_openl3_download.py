"""Published weights are downloaded once, complete and checked. A real HTTP server serves them."""

import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest

from keras_weights import write_keras
from looklisten.interop import openl3
from looklisten.interop.openl3.download import download_file, git_blob_id
from looklisten.interop.openl3.published import locate
from looklisten.interop.openl3.variants import BLOB_IDS, variant_named

DATA = np.random.default_rng(0).bytes(700_000)
BLOB_ID = hashlib.sha1(b"blob 700000\0" + DATA).hexdigest()
NAME = "openl3_audio_mel256_env-v0_4_0.h5.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.data`, and ends each answer after `server.sent_bytes` bytes."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.paths.append(self.path)
        if server.status != 200:
            self.send_error(server.status)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.data)))
        self.end_headers()
        self.wfile.write(server.data[: server.sent_bytes])


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.data, server.status, server.sent_bytes, server.paths = DATA, 200, None, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_git_blob_id_is_that_of_git(tmp_path):
    (tmp_path / "file").write_bytes(b"hello\n")
    # What `git hash-object` prints.
    assert git_blob_id(tmp_path / "file") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_download_is_complete_and_leaves_no_other_file(server, tmp_path):
    download_file(f"{server.url}/x", tmp_path / "cache" / "x", BLOB_ID)
    assert (tmp_path / "cache" / "x").read_bytes() == DATA
    assert names(tmp_path / "cache") == ["x"]


@pytest.mark.parametrize("sent_bytes", [0, 200_000])
def test_an_interrupted_download_leaves_no_file(server, tmp_path, sent_bytes):
    server.sent_bytes = sent_bytes
    with pytest.raises(openl3.OpenL3Error):
        download_file(f"{server.url}/x", tmp_path / "x", BLOB_ID)
    assert names(tmp_path) == []
    server.sent_bytes = None
    download_file(f"{server.url}/x", tmp_path / "x", BLOB_ID)
    assert (tmp_path / "x").read_bytes() == DATA


def test_wrong_bytes_are_refused_and_not_kept(server, tmp_path):
    server.data = DATA[:-1] + b"?"
    with pytest.raises(
        openl3.OpenL3Error, match=r"not the published one .* nothing of it was kept"
    ):
        download_file(f"{server.url}/x", tmp_path / "x", BLOB_ID)
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [404, 503])
def test_the_error_names_the_status_of_the_server(server, tmp_path, status):
    server.status = status
    with pytest.raises(openl3.OpenL3Error, match=f"the server says {status}"):
        download_file(f"{server.url}/x", tmp_path / "x", BLOB_ID)
    assert len(server.paths) == 1


def test_a_server_that_does_not_answer_is_an_error(tmp_path):
    with pytest.raises(
        openl3.OpenL3Error, match=r"cannot be downloaded .* or give the file by hand"
    ):
        download_file("http://127.0.0.1:9/x", tmp_path / "x", BLOB_ID)


# Weights by name: mirror, cache and offline mode.


@pytest.fixture
def cache(monkeypatch, tmp_path):
    for name in ("LOOKLISTEN_OFFLINE", "LOOKLISTEN_OPENL3_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOOKLISTEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openl3"


@pytest.fixture
def mirror(server, cache, monkeypatch, tmp_path):
    """A mirror with random weights, whose blob id is taken for the published one."""
    weight_file = write_keras(tmp_path / NAME, 5, 1)
    server.data = weight_file.read_bytes()
    monkeypatch.setitem(BLOB_IDS, "openl3_audio_mel256_env", git_blob_id(weight_file))
    monkeypatch.setenv("LOOKLISTEN_OPENL3_MIRROR", f"{server.url}/weights/")
    return server


def test_a_published_network_is_downloaded_once_from_the_mirror(mirror, cache, monkeypatch):
    net = openl3.load("openl3:audio-mel256-env")
    assert mirror.paths == [f"/weights/{NAME}"]
    assert names(cache) == [NAME]
    monkeypatch.setenv("LOOKLISTEN_OFFLINE", "1")  # a file in the cache needs no network
    again = openl3.models.load_audio_embedding_model("mel256", "env", 512)
    assert len(mirror.paths) == 1
    assert again.variant == net.variant


def test_a_damaged_file_in_the_cache_is_downloaded_again(mirror, cache):
    locate(variant_named("openl3:audio-mel256-env")).write_bytes(b"damaged")
    openl3.load("openl3:audio-mel256-env")
    assert len(mirror.paths) == 2


def test_the_offline_error_says_where_to_put_the_file(mirror, cache, monkeypatch):
    monkeypatch.setenv("LOOKLISTEN_OFFLINE", "1")
    sentence = (
        r"not in the cache .*, and LOOKLISTEN_OFFLINE forbids the network; unset it once, or put"
    )
    with pytest.raises(openl3.OpenL3Error, match=sentence):
        openl3.load("openl3:audio-mel256-env")
    assert not mirror.paths


def test_a_file_that_is_not_the_published_one_is_refused(server, cache, monkeypatch):
    monkeypatch.setenv("LOOKLISTEN_OPENL3_MIRROR", server.url)
    with pytest.raises(openl3.OpenL3Error, match=r"git blob .*, not 34dbd7a91cdd"):
        openl3.load("openl3:audio-mel256-env")


def test_weights_may_be_in_a_folder(tmp_path, cache, monkeypatch):
    weight_file = write_keras(tmp_path / NAME, 5, 1)
    network = variant_named("openl3:audio-mel256-env")
    assert locate(network, tmp_path) == weight_file
    unpacked = tmp_path / "openl3_audio_mel256_env.h5"
    unpacked.write_bytes(gzip.decompress(weight_file.read_bytes()))
    assert locate(network, tmp_path) == unpacked
    monkeypatch.setenv("LOOKLISTEN_OPENL3_MIRROR", str(tmp_path))
    assert locate(network) == unpacked
    with pytest.raises(openl3.OpenL3Error, match=r"holds no openl3_audio_mel256_music\.h5 or "):
        locate(variant_named("openl3:audio-mel256-music"))
    with pytest.raises(openl3.OpenL3Error, match="is no address"):
        locate(network, "ftp://host/weights")
