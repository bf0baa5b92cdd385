"""An output format of embed that is added from outside of the package."""

import json

import numpy as np
import pytest

from conftest import small_config, write_sound
from looklisten.errors import ConfigError
from looklisten.inference.embedding.files import embed_files
from looklisten.inference.embedding.options import EmbedFilesOptions, EmbedOptions
from looklisten.inference.embedding.writers import (
    VECTOR_FORMATS,
    VectorFormat,
    register_vector_format,
)
from looklisten.model.l3net import L3Net


class CsvWriter:
    """One line for each vector; the first line is the provenance."""

    def __init__(self, path, provenance):
        self._file = path.open("w", encoding="utf-8")
        self._file.write(json.dumps(provenance) + "\n")

    def __enter__(self):
        return self

    def write(self, block):
        for start_seconds, vector in zip(block.start_seconds, block.vectors, strict=True):
            numbers = [start_seconds, *vector]
            self._file.write(",".join(f"{number:.9g}" for number in numbers) + "\n")

    def write_array(self, name, values):
        raise NotImplementedError

    def __exit__(self, kind, error, trace):
        self._file.close()


def read_csv_provenance(path):
    with path.open(encoding="utf-8") as lines:
        return json.loads(lines.readline())


@pytest.fixture
def csv_format():
    register_vector_format(VectorFormat("csv", CsvWriter, read_csv_provenance))
    yield
    del VECTOR_FORMATS["csv"]


@pytest.fixture(scope="module")
def network():
    return L3Net(small_config().model).eval()


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    waveform = np.random.default_rng(0).standard_normal(96_000).astype(np.float32) * 0.1
    write_sound(folder / "a.wav", waveform, codec="pcm_f32le")
    return folder


def test_a_registered_format_is_written_and_resumed(csv_format, network, sounds, tmp_path):
    out = tmp_path / "vectors"
    options = EmbedFilesOptions(EmbedOptions(hop_seconds=0.5), format="csv")
    first = embed_files([sounds], network, out, options)
    assert (first["embedded"], first["vectors"]) == (1, 3)
    lines = (out / "a.wav.csv").read_text().splitlines()
    assert [float(line.split(",")[0]) for line in lines[1:]] == [0.0, 0.5, 1.0]
    second = embed_files([sounds], network, out, options)
    assert (second["embedded"], second["skipped"]) == (0, 1)


def test_an_unknown_format_is_an_error_that_names_the_known_ones(network, sounds, tmp_path):
    options = EmbedFilesOptions(format="hdf5")
    with pytest.raises(ConfigError, match=r"there is no format 'hdf5' .* npz, parquet, jsonl"):
        embed_files([sounds], network, tmp_path / "vectors", options)
