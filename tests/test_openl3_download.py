"""The published weights of OpenL3 come by name: from a mirror, the cache or a folder."""

import gzip

import pytest

from file_server import file_server
from keras_weights import write_keras
from looklisten.interop import openl3
from looklisten.interop.openl3.published import locate
from looklisten.interop.openl3.variants import BLOB_IDS, variant_named
from looklisten.system.published_files import GIT_BLOB, file_digest

NAME = "openl3_audio_mel256_env-v0_4_0.h5.gz"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Weights by name: mirror, cache and offline mode.


@pytest.fixture
def server():
    with file_server() as server:
        yield server


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
    monkeypatch.setitem(
        BLOB_IDS,
        "openl3_audio_mel256_env",
        file_digest(weight_file, GIT_BLOB).removeprefix(f"{GIT_BLOB}:"),
    )
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
