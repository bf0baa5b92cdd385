"""The benchmarks that wait for a machine run here at toy size, so that they work on the day."""

import importlib
import json
import math
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

import looklisten as ll

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def gpu():
    """The module `benchmarks/gpu.py`."""
    # Not for longer: a benchmark has the name of a package, such as openl3.
    sys.path.insert(0, str(BENCHMARKS))
    module = importlib.import_module("gpu")
    sys.path.remove(str(BENCHMARKS))
    return module


@pytest.fixture(scope="module")
def gpu_figures(gpu, tmp_path_factory):
    """The benchmark on the CPU: its folder and its figures."""
    out = tmp_path_factory.mktemp("gpu")
    gpu.run(out, minutes=0.01, sizes=gpu.SIZES["toy"], device_name="cpu")
    return out, json.loads((out / "figures.json").read_text())


def test_the_gpu_benchmark_gives_all_figures(gpu_figures):
    _, figures = gpu_figures
    assert not [name for name in figures if name.endswith("_error")]
    assert figures["tests"]["exit_code"] == 0, figures["tests"]["output"]
    assert " skipped" in figures["tests"]["output"] or " passed" in figures["tests"]["output"]
    step = figures["step"]
    assert next(row["step"] for row in step["rows"]) == "naive"
    assert step["pairs_per_second"] == 2 * step["videos_per_second"] > 0
    for recipe in ("l3", "general"):
        assert figures[recipe]["steps"] >= 1
        assert {"accuracy", "ci95"} <= figures[recipe]["correspondence"].keys()
        assert {"pointing", "center"} <= figures[recipe]["pointing"].keys()


def test_the_run_of_the_paper_is_60_million_videos(gpu_figures):
    step = gpu_figures[1]["step"]
    assert step["paper_run_videos"] == 234_375 * 256 == 60_000_000
    assert step["paper_run_pairs"] == 120_000_000
    assert math.isclose(step["paper_run_hours"] * step["videos_per_second"] * 3600, 60_000_000)


def test_the_parts_of_a_checkpoint_join_to_a_network(gpu_figures, tmp_path):
    out, figures = gpu_figures
    for recipe in ("l3", "general"):
        parts = [out / name for name in figures[f"{recipe}_parts"]]
        assert all(part.stat().st_size < 16 * 2**20 for part in parts)
        joined = tmp_path / f"{recipe}.tar"
        joined.write_bytes(b"".join(part.read_bytes() for part in parts))
        with tarfile.open(joined) as tar:
            tar.extractall(tmp_path, filter="data")
        assert ll.load(tmp_path / recipe).config.widths == (4, 8, 8, 16)


def test_an_archive_is_cut_into_parts(gpu, tmp_path):
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "weights").write_bytes(bytes(range(256)) * 100)
    names = gpu.write_parts(folder, tmp_path, part_bytes=10_000)
    assert names == [f"network.tar.{number:02d}" for number in range(len(names))]
    assert len(names) > 2
    joined = tmp_path / "joined.tar"
    joined.write_bytes(b"".join((tmp_path / name).read_bytes() for name in names))
    with tarfile.open(joined) as tar:
        tar.extractall(tmp_path / "again", filter="data")
    assert (tmp_path / "again/network/weights").read_bytes() == bytes(range(256)) * 100


@pytest.fixture(scope="module")
def from_scratch():
    """The module `benchmarks/from_scratch.py`."""
    sys.path.insert(0, str(BENCHMARKS))
    module = importlib.import_module("from_scratch")
    sys.path.remove(str(BENCHMARKS))
    return module


def test_a_fold_is_held_out_of_shards_that_are_linked(from_scratch, shards, tmp_path):
    test = np.arange(len(shards)) % 3 == 0
    other = shards.path
    from_scratch.link_shards(shards.path, test, [other], tmp_path / "linked")
    linked = ll.Shards(tmp_path / "linked")
    fold, others = np.arange(len(linked)) < len(shards), np.arange(len(linked)) >= len(shards)
    assert len(linked) == 2 * len(shards)
    assert (linked.splits[fold] == np.where(test, "test", "train")).all()
    assert (linked.splits[others] == shards.splits).all()
    assert not set(linked.videos(fold)) & set(linked.videos(others))
    assert (
        bytes(linked.jpeg(len(shards), 0)) == bytes(linked.jpeg(0, 0)) == bytes(shards.jpeg(0, 0))
    )
